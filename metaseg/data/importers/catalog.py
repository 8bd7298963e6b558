"""Data sets of the TFDS catalog that have been prepared, as ArrayRecord, before."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg.data.importers import pairs
from metaseg.data.importers.builder import Builder
from metaseg.data.importers.pairs import (
    VOID,
    Found,
    ImportExample,
    ImportItem,
    ImportOptions,
)
from metaseg.errors import DamagedError, InputError, decoder_errors
from metaseg.text import quoted

__all__ = ["Catalog"]

TENTH = 0.1


class Known(NamedTuple):
    """What the importer has to know of a data set of the catalog.

    Attributes:
      features: names of its features `image` and `label`.
      values: class id of each stored value.
      class_names: K names.
    """

    features: Mapping[str, str]
    values: Mapping[int, int]
    class_names: tuple[str, ...]


KNOWN = {
    "oxford_iiit_pet": Known(
        features={"image": "image", "label": "segmentation_mask"},
        values={1: 1, 2: 0, 3: VOID},  # pet, background, outline
        class_names=("background", "pet"),
    )
}


class Catalog(Builder):
    """`tfds:NAME`. Its test split, or else its validation split, is the test split.

    Where there is no third split, a drawn tenth of the training split is our
    validation split.
    """

    name = "tfds"
    TREE = "NAME/VERSION/ or NAME/CONFIG/VERSION/, as TFDS writes them"
    TAKES = (
        "seed",
        "num_classes",
        "class_names",
        "features",
        "label_values",
        "label_threshold",
        "instances",
    )

    @classmethod
    def find(cls, root: Path, config: str, options: ImportOptions) -> Found:
        """See `Builder.find`."""
        home = _home(root, config)
        counts, names = _contents(home, config)
        known = KNOWN.get(config)
        if known:
            options = _with(known, options)
        features = _features(options, names)
        splits = _splits(counts, home)
        files = {s: tuple(sorted(home.glob(f"*-{s}.array_record*"))) for s in counts}
        for split in splits.values():
            if not files[split]:
                raise InputError(f"{home}: no array_record file of split {split}")
        items = [
            ImportItem(f"{theirs}-{i:06d}", ours, files[theirs], i)
            for ours, theirs in splits.items()
            for i in range(counts[theirs])
        ]
        if "val" not in splits:
            items = _with_validation(items, options.seed or 0)
        read = functools.partial(
            read_record, home=home, image=features["image"], label=features["label"]
        )
        return Found(items, read, [], **pairs.classes(options))


def _with_validation(items: list[ImportItem], seed: int) -> list[ImportItem]:
    """The items, with a drawn tenth of train as val."""
    train = [item.name for item in items if item.split == "train"]
    _, drawn = pairs.draw(train, (1 - TENTH, TENTH), seed)
    val = {train[i] for i in drawn}
    return [item._replace(split="val") if item.name in val else item for item in items]


def _with(known: Known, options: ImportOptions) -> ImportOptions:
    """Fills in what the user left open."""
    values = options.files.label_values or known.values
    return options._replace(
        features=options.features or known.features,
        class_names=options.class_names or known.class_names,
        files=options.files._replace(label_values=values),
    )


def _home(root: Path, name: str) -> Path:
    """The one prepared data set of that name, its newest version."""
    here = [root] if (root / "features.json").is_file() else []
    found = here or [
        path.parent
        for pattern in ("*/features.json", "*/*/features.json")
        for path in (root / name).glob(pattern)
    ]
    command = (
        f"tfds build {name} --file_format=array_record --data_dir={quoted(root)}"
        " (TensorFlow may be needed for this once)"
    )
    if not found:
        raise InputError(
            f"path: no prepared '{name}' in '{root}', which has"
            f" {pairs.entries(root)}; expected {name}/VERSION/features.json, as this"
            f" writes it: {command}"
        )
    parents = sorted({path.parent for path in found})
    if len(parents) > 1:
        raise InputError(
            f"path: {len(parents)} configs of '{name}'; expected the path of one,"
            f" such as '{parents[0]}/VERSION'"
        )
    newest = max(found, key=_version)
    if not any(newest.glob("*.array_record*")):
        raise InputError(
            f"path: no array_record file in '{newest}', which has"
            f" {pairs.entries(newest)}; expected what this writes: {command}"
        )
    return newest


def _version(path: Path) -> list[int]:
    return [int(x) for x in path.name.split(".") if x.isdigit()]


def _contents(home: Path, name: str) -> tuple[dict[str, int], list[str]]:
    """Examples of each split, and the names of the features."""
    import tensorflow_datasets as tfds

    try:
        with decoder_errors():  # TFDS raises many types
            info = tfds.builder_from_directory(home).info
            counts = {k: v.num_examples for k, v in info.splits.items()}
            return counts, list(info.features)
    except (DamagedError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{home}: unreadable; expected '{name}' as TFDS prepares it ({reason})"
        ) from error


def _features(options: ImportOptions, names: list[str]) -> Mapping[str, str]:
    features = options.features or {}
    there = ", ".join(sorted(names))
    if set(features) != {"image", "label"}:
        got = ", ".join(features) or "not given"
        raise InputError(
            f"features: got {got}, expected image=NAME,label=NAME of {there}"
        )
    for feature in features.values():
        if feature not in names:
            raise InputError(f"features: no '{feature}'; expected some of {there}")
    return features


def _splits(counts: Mapping[str, int], home: Path) -> dict[str, str]:
    """The data set's split for each of ours, as far as there are enough."""
    rest = [s for s in ("test", "validation", "val") if counts.get(s)]
    if not counts.get("train") or not rest:
        raise InputError(
            f"{home}: splits {', '.join(counts)}; expected train, and test or"
            " validation"
        )
    test, *val = rest
    return {"train": "train", "test": test} | ({"val": val[0]} if val else {})


def read_record(item: ImportItem, home: Path, image: str, label: str) -> ImportExample:
    """Reads one record.

    Raises:
      InputError: if it is damaged, or its features are no image and label map.
    """
    split = item.name.rpartition("-")[0]
    assert item.page is not None
    where = f"{home}: example {item.page} of {split}"
    try:
        stamp = home.stat().st_mtime_ns
        source = _source(home, stamp, split, image, label)
        with decoder_errors():  # TFDS raises many types
            record = source[item.page]
            pixels, values = np.asarray(record[image]), np.asarray(record[label])
    except (DamagedError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{where} is unreadable ({reason})") from error
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise InputError(
            f"{where}: {label} is {values.dtype} of shape {values.shape}; expected"
            " integers [H, W] or [H, W, 1]"
        )
    if pixels.ndim != 3:
        raise InputError(
            f"{where}: {image} is {pixels.dtype} of shape {pixels.shape}; expected"
            " [H, W, C]"
        )
    return ImportExample(pixels, values)


@functools.lru_cache
def _source(home: Path, stamp: int, split: str, *wanted: str) -> Any:
    """The open files of a split, once per process; other images are not decoded."""
    del stamp  # other files since it changed
    import tensorflow_datasets as tfds
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # TFDS would recommend OpenCV
    with decoder_errors():
        builder = tfds.builder_from_directory(home)
    skip = {
        name: tfds.decode.SkipDecoding()
        for name, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image) and name not in wanted
    }
    with decoder_errors():
        return builder.as_data_source(split, decoders=skip)
