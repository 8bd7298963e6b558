"""The TFDS builder of all sources: staged examples -> ArrayRecord shards.

TensorFlow is not needed, because images are encoded before TFDS gets them.
"""

import contextlib
import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import split_builder, writer
from tensorflow_datasets.proto import tf_example_pb2

from metaseg.data.importers.encoding import StoragePlan
from metaseg.data.importers.pairs import Found, ImportOptions
from metaseg.data.importers.staging import Stored
from metaseg.errors import InputError

__all__ = ["Builder", "Content", "config_of", "quiet"]

Config = tfds.core.BuilderConfig

_SHARD = 128 << 20  # approximate bytes of a shard; TFDS keeps one in memory


@dataclasses.dataclass(frozen=True)
class Content:
    """What a builder writes.

    Attributes:
      splits: the examples of each split, in the order they get.
      plan: how their bytes are stored.
      metadata: what the data set says of itself.
      progress: is told how many more examples were written.
    """

    splits: Mapping[str, Sequence[Stored]]
    plan: StoragePlan
    metadata: Mapping[str, Any]
    progress: Callable[[int], None]


class Builder(
    tfds.core.GeneratorBasedBuilder,
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
            image.encode_example = lambda encoded: encoded  # by the workers
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

    def _split_generators(self, dl_manager: Any) -> dict[str, list[Any]]:
        """A function for each shard of each split; nothing is downloaded."""
        del dl_manager
        assert self._content is not None
        return {
            split: [
                functools.partial(self._generate_examples, part)
                for part in _shards(stored)
            ]
            for split, stored in self._content.splits.items()
            if stored  # TFDS knows no empty split; metadata.json does
        }

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[Any]:
        """Writes shard by shard, in the order of the examples.

        TFDS would sort them by key, in memory up to 1 GiB and beyond that in files
        for which it needs TensorFlow.
        """
        writing = split_builder.SplitBuilder(
            split_dict=self.info.splits,
            features=self.info.features,
            dataset_size=self.info.dataset_size,
            beam_options=None,
            beam_runner=None,
            max_examples_per_split=None,
            example_writer=self._example_writer(),
        )
        return [
            writing.submit_shard_based_generation(
                split, self._get_filename_template(split_name=split), shards
            ).result()
            for split, shards in self._split_generators(dl_manager).items()
        ]

    def _generate_examples(
        self, stored: Sequence[Stored]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        assert self._content is not None
        plan = self._content.plan
        for i, one in enumerate(stored):
            image, label = one.read()
            if not (image and label):
                raise InputError(
                    f"{one.record.group}: changed while it was imported; expected files"
                    " that stay as they are"
                )
            shape = (*one.record.size, plan.channels)
            packed = {"value": image, "shape": shape}
            yield (
                i,
                {
                    "image": image if plan.is_png else packed,
                    "label": label,
                    "name": one.record.name,
                },
            )
            self._content.progress(1)

    def _example_writer(self) -> writer.ExampleWriter:
        return _Plain(self.info.file_format)


class _Plain(writer.ExampleWriter):
    """The same bytes in every run, and not compressed: PNG and zlib have done that."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> None:
        """Writes one shard."""
        from array_record.python import array_record_module  # type: ignore[import-untyped]

        shard = array_record_module.ArrayRecordWriter(
            os.fspath(path), "group_size:1,uncompressed"
        )
        for _, example in examples:
            record = tf_example_pb2.Example.FromString(example)
            shard.write(record.SerializeToString(deterministic=True))
        shard.close()


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
