"""The TFDS builder of all sources: staged examples -> ArrayRecord shards.

TensorFlow is not needed, because images are encoded before TFDS gets them.
"""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import dataset_builder, splits

from metaseg.data.importers import shards
from metaseg.data.importers.encoding import StoragePlan
from metaseg.data.importers.pairs import Found, ImportOptions
from metaseg.data.importers.staging import Stored
from metaseg.errors import InputError

__all__ = ["Builder", "Content", "config_of", "quiet"]

Config = tfds.core.BuilderConfig

_SHARD = 128 << 20  # approximate bytes of a shard


@dataclasses.dataclass(frozen=True)
class Content:
    """What a builder writes.

    Attributes:
      splits: the examples of each split, in the order they get.
      plan: how their bytes are stored.
      metadata: what the data set says of itself.
      progress: is told how many more examples were written.
      pool: processes that write shards, or None to write them in this one.
    """

    splits: Mapping[str, Sequence[Stored]]
    plan: StoragePlan
    metadata: Mapping[str, Any]
    progress: Callable[[int], None]
    pool: Executor | None


class Builder(
    dataset_builder.FileReaderBuilder,
    skip_registration=True,  # type: ignore[call-arg]
):
    """Writes staged examples; the method `find` of a source finds them.

    Attributes:
      TREE: the layout that is expected, in words.
      TAKES: the fields of `ImportOptions` that the source takes.
    """

    VERSION = tfds.core.Version("1.0.0")
    # No checksums of downloads lie beside this file.
    code_path = None
    TREE: ClassVar[str]
    TAKES: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **arguments: Any) -> None:
        # TFDS has a cityscapes of its own.
        super().__init_subclass__(skip_registration=True, **arguments)

    def __init__(self, *, content: Content | None = None, **arguments: Any) -> None:
        self._content = content
        super().__init__(**arguments)

    @classmethod
    def find(cls, root: Path, config: str, options: ImportOptions) -> Found:
        """Finds the examples of a data set as it is published.

        Args:
          root: where it lies.
          config: name of the config.
          options: what the user chose; only fields of `TAKES` differ from None.

        Raises:
          InputError: if the layout is another one.
        """
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        if self._content is None:
            raise InputError(
                f"{self.name}: a builder without content; expected"
                " experiments/prepare.py to make it"
            )
        plan = self._content.plan
        shape = (None, None, plan.channels)
        if plan.is_png:
            image = tfds.features.Image(shape=shape, encoding_format="png")
        else:  # which TFDS decodes without further packages, as it would not 16-bit PNG
            image = tfds.features.Tensor(
                shape=shape, dtype=np.dtype(plan.dtype).type, encoding="zlib"
            )
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": image,
                    "label": tfds.features.Image(
                        shape=(None, None, 1), encoding_format="png"
                    ),
                    "name": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(self._content.metadata),
            disable_shuffling=True,
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """Writes the shards of all splits, in the order of the examples.

        TFDS would sort them by key, in memory up to 1 GiB and beyond that in files
        for which it needs TensorFlow.
        """
        del dl_manager, download_config  # nothing is downloaded
        assert self._content is not None
        parts = {
            split: _shards(stored)
            for split, stored in self._content.splits.items()
            if stored  # TFDS knows no empty split; metadata.json does
        }
        paths = {split: self._paths(split, len(own)) for split, own in parts.items()}
        self._write(
            [
                job
                for split in parts
                for job in zip(paths[split], parts[split], strict=True)
            ]
        )
        self.info.set_splits(
            splits.SplitDict(
                splits.SplitInfo(
                    name=split,
                    shard_lengths=[len(part) for part in own],
                    num_bytes=sum(path.stat().st_size for path in paths[split]),
                    filename_template=self._get_filename_template(split_name=split),
                )
                for split, own in parts.items()
            )
        )

    def _paths(self, split: str, count: int) -> list[Path]:
        template = self._get_filename_template(split_name=split)
        return [
            Path(template.sharded_filepath(shard_index=i, num_shards=count))
            for i in range(count)
        ]

    def _write(self, jobs: Sequence[tuple[Path, Sequence[Stored]]]) -> None:
        """Writes shards, in the pool if there is one."""
        content = self._content
        assert content is not None
        if content.pool is None:
            for path, part in jobs:
                content.progress(shards.write(str(path), part, content.plan))
            return
        futures = [
            content.pool.submit(shards.write, str(path), part, content.plan)
            for path, part in jobs
        ]
        for future in as_completed(futures):
            content.progress(future.result())


def _shards(stored: Sequence[Stored]) -> list[Sequence[Stored]]:
    """Parts of about the same number of bytes."""
    sizes = np.cumsum([one.record.image + one.record.label for one in stored])
    count = max(1, round(sizes[-1] / _SHARD))
    cuts = np.searchsorted(sizes, sizes[-1] * np.arange(1, count) / count).tolist()
    bounds = zip([0, *cuts], [*cuts, len(stored)], strict=True)
    return [stored[start:stop] for start, stop in bounds if start < stop]


def config_of(builder: type[Builder], name: str) -> Any:
    """Returns the builder config of a name; a new one if the source has none.

    Args:
      builder: Builder of the source.
      name: Name of the config.

    Returns:
      The config.
    """
    known = builder.builder_configs.get(name)
    return known or Config(name=name, version=builder.VERSION)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences TFDS: its bars, its log and what it prints."""
    tfds.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)
