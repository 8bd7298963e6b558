"""Preparation of a data set: its pairs checked, split and written as shards."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

from metaseg.data import file_options
from metaseg.data.file_options import FileKeywords
from metaseg.data.importers import summary
from metaseg.data.importers.importing import ImportRequest, Prepared
from metaseg.data.importers.importing import prepare as import_data_set
from metaseg.data.importers.pairs import ImportOptions
from metaseg.errors import InputError, escaped

__all__ = ["describe", "prepare"]

# Config by prepared data set.
_CONFIGS = {
    "camvid/full": "camvid",
    "cityscapes/fine": "cityscapes",
    "folder/nuclei": "nuclei",
    "organelle/er": "er",
    "organelle/mito": "mito",
    "tfds/oxford_iiit_pet": "pets",
}


def prepare(
    source: str,
    path: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    *,
    config: str = "",
    workers: int = 2,
    skip_bad: bool = False,
    name: str | None = None,
    shares: Sequence[float] | None = None,
    seed: int | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    features: Mapping[str, str] | None = None,
    **files: Unpack[FileKeywords],
) -> Prepared:
    """Imports a data set, unless its files have been imported and have not changed.

    Args:
      source: "organelle", "dsb2018", "camvid", "cityscapes", "folder", or "tfds:NAME"
        for a data set of the TFDS catalog that was prepared as array_record.
      path: Folder of the data set as it was published.
      data_dir: Folder of prepared data sets; the new one goes to
        SOURCE/CONFIG/VERSION in it.
      config: Part of the source, such as "er" of organelle; "" for its first.
      workers: Number of processes that read files; 0 reads in this one.
      skip_bad: Whether bad files are left out instead of stopping the import.
      name: "folder": name of the data set; by default that of the folder.
      shares: "folder", "dsb2018": shares of the train, val and test split; 0 leaves a
        split empty, but not train.
      seed: Seed of the draw of splits.
      num_classes: Number of classes; by default one more than the highest class id.
      class_names: Names of the classes.
      features: "tfds": names of the features "image" and "label".
      **files: How image and label files are read: fields of `FileOptions`.

    Returns:
      Where the data set is and what it holds.

    Raises:
      InputError: If an argument, the layout or a file is wrong, or the disk is full or
        cannot be written to.
    """
    if seed is not None and not 0 <= seed < 1 << 32:
        raise InputError(f"seed: got {seed}, expected an integer from 0 to 4294967295")
    kind, _, catalog_name = source.partition(":")
    request = ImportRequest(
        source=kind,
        path=Path(path).expanduser(),
        data_dir=Path(data_dir).expanduser(),
        config=catalog_name or config,
        workers=workers,
        skip_bad=skip_bad,
        options=ImportOptions(
            name=name,
            shares=None if shares is None else tuple(shares),
            seed=seed,
            num_classes=num_classes,
            class_names=None if class_names is None else tuple(class_names),
            features=features,
            files=file_options.build(**files),
        ),
    )
    return import_data_set(request, _colours)


def describe(prepared: Prepared, data_dir: str | os.PathLike[str]) -> str:
    """Describes a prepared data set.

    Args:
      prepared: Result of `prepare`.
      data_dir: Folder of prepared data sets.

    Returns:
      Lines of text: a summary, where the data set is, and the command that trains on
      it.
    """
    lines = []
    if not prepared.new:
        lines.append(
            "nothing to do: the files have not changed since they were imported"
        )
    lines += summary.lines(prepared.summary)
    name = "/".join(prepared.path.parts[-3:-1])
    words = ["metaseg", "train", f"--config={_CONFIGS.get(name, 'default')}"]
    words.append(f"--config.data.dir={os.fspath(data_dir)}")
    if name not in _CONFIGS:
        words += [
            "--config.data.name=prepared",
            f"--config.data.dataset={name}",
            f"--config.data.num_classes={len(prepared.summary['classes'])}",
        ]
    command = escaped(shlex.join(words))
    lines += [
        "",
        f"data set: {escaped(str(prepared.path))}",
        f"pictures: {escaped(str(prepared.path / 'contact_sheet.png'))}",
        f"train on it: {command}",
    ]
    return "\n".join(lines)


def _colours(num_classes: int) -> Sequence[summary.Colour]:
    """Colours of the classes and of void, for the contact sheet."""
    from metaseg.report import pictures  # late: only a new import needs it

    return [*pictures.class_colours(num_classes), pictures.VOID_COLOUR]
