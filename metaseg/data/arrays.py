"""Arrays in memory -> a data set.

Host-side NumPy. Imports `checks`, `dataset`, `file_options`, `label_encoding` and
`normalize`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from metaseg import checks
from metaseg.data import label_encoding
from metaseg.data import normalize as normalize_lib
from metaseg.data.dataset import VOID, Dataset, Example, Split, stack_examples
from metaseg.data.file_options import FileOptions
from metaseg.errors import InputError
from metaseg.text import count_of

__all__ = ["from_arrays", "from_images"]

Arrays = np.ndarray | Sequence[Any]
Part = float | tuple[Arrays, Arrays | None] | None


def from_arrays(
    images: Arrays,
    labels: Arrays,
    *,
    val: Part = 0.1,
    test: Part = 0.2,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    normalize: str = "zscore",
    mean: Any = None,
    std: Any = None,
    names: Sequence[str] | None = None,
    name: str = "arrays",
    label_values: str | Mapping[int, int] | None = None,
    label_colors: str | Mapping[tuple[int, int, int], int] | None = None,
    label_threshold: float | None = None,
    instances: str = "",
) -> Dataset:
    """Makes a data set of images and label maps that are in memory.

    Label maps are read as those of files, by the rules of docs/data.md ("How labels are
    read"): class ids, masks of 0 and 255, and others by option.

    Images of different sizes are padded at the bottom and right to the largest height
    and width. If some images are grey and the others have C channels, the grey ones are
    repeated into C channels.

    Args:
      images: Numbers `[N, H, W]` or `[N, H, W, C]`, or a sequence of N arrays `[H, W]`
        or `[H, W, C]` of any sizes.
      labels: Class ids `[N, H, W]`, or a sequence of N arrays `[H, W]`: integers, whole
        floats or bool. 255 is void. In masks that hold 0 and 255 alone, 255 is class 1.
      val: Validation split: a share of `images` in (0, 1), or its own
        `(images, labels)`, where `labels` may be None. 0 or None: there is none.
      test: Test split: likewise.
      num_classes: Number of classes K; by default one more than the highest class id,
        and at least 2.
      class_names: K names, for reports.
      seed: Seed of the draw of the splits.
      normalize: Normalisation of the images, see `normalize.build`.
      mean: For "fixed": subtracted from the images.
      std: For "fixed": divides the images.
      names: N names of the examples, each once; by default their indices. The noise of
        an example follows from its name and its split.
      name: Name of the data set, for reports.
      label_values: Class ids of stored values, such as "1-65535=1,*=255", or a mapping.
      label_colors: Class ids of colours, for `labels` `[N, H, W, 3]`: path of a file,
        "#dc143c=1,0:0:0=0", or a mapping.
      label_threshold: Values of at least this are class 1, smaller ones class 0.
      instances: Of ids of objects: "union": each object is class 1; "border": the same,
        and class 2 where objects touch; "void": those are void.

    Returns:
      The data set, with images float32 `[n, H, W, C]` and labels uint8 `[n, H, W]` in
      each split. Shares above 0 are rounded to whole examples, at least one each;
      which examples a split gets follows from `seed` and N alone. Images without labels
      are void.

    Raises:
      InputError: If an argument is wrong, or it is not clear what labels mean.

    Example:
      >>> images = np.random.default_rng(0).random((10, 8, 8))
      >>> data = from_arrays(images, images > 0.5)
      >>> [len(split) for _, split in data.splits()]
      [7, 1, 2]
    """
    normalizer = normalize_lib.build(normalize, mean=mean, std=std)
    checks.seed("seed", seed)
    options = FileOptions(
        label_values=label_values,
        label_colors=label_colors,
        label_threshold=label_threshold,
        instances=instances,
    )
    label_encoding.check(options)
    given = {"train": _examples("", images, labels)}
    for split, part in (("val", val), ("test", test)):
        if isinstance(part, tuple | list):
            given[split] = _examples(split, *_two(split, part))
    count = len(given["train"])
    known = _names(names, count)
    rows = _rows(count, seed, {"val": val, "test": test})
    every = [example for part in given.values() for example in part]
    unlabelled = _unlabelled(val=val, test=test)
    encoding = _decode_labels(given, num_classes, options, unlabelled)
    called_classes = _class_names(class_names, encoding)
    size = _common_size(every)

    def stack(split: str) -> Split:
        if split in rows:
            own = [given["train"][row] for row in rows[split]]
            called = [known[row] for row in rows[split]]
        else:
            own, called = given[split], _names(None, len(given[split]))
        return stack_examples(split, called, own, size=size, normalizer=normalizer)

    return Dataset(
        name=name,
        train=stack("train"),
        val=stack("val"),
        test=stack("test"),
        num_classes=encoding.num_classes,
        class_names=called_classes,
        files=options,
    )


def from_images(
    images: Arrays,
    *,
    normalize: str = "zscore",
    mean: Any = None,
    std: Any = None,
    name: str = "arrays",
) -> Dataset:
    """Makes a data set of images in memory that have no labels.

    Args:
      images: Numbers `[N, H, W]` or `[N, H, W, C]`, or a sequence of N arrays `[H, W]`
        or `[H, W, C]` of any sizes.
      normalize: Normalisation of the images, see `normalize.build`.
      mean: For "fixed": subtracted from the images.
      std: For "fixed": divides the images.
      name: Name of the data set, for reports.

    Returns:
      The data set: all images are training and test split, all labels are void.

    Raises:
      InputError: If an argument is wrong.

    Example:
      >>> data = from_images(np.zeros((3, 8, 8)))
      >>> [len(split) for _, split in data.splits()]
      [3, 0, 3]
    """
    normalizer = normalize_lib.build(normalize, mean=mean, std=std)
    pixels = [
        _image(f"images[{i}]", np.asarray(image)) for i, image in enumerate(images)
    ]
    if not pixels:
        raise InputError("images: got none, expected at least one image")
    examples = [(image, np.full(image.shape[:2], VOID, np.uint8)) for image in pixels]
    size = _common_size(examples)
    names = _names(None, len(examples))
    every = stack_examples("train", names, examples, size=size, normalizer=normalizer)
    return Dataset(name, every, every.take(np.arange(0)), every, num_classes=2)


def _two(split: str, part: Sequence[Any]) -> tuple[Arrays, Arrays | None]:
    if len(part) != 2:
        raise InputError(
            f"{split}: got {count_of(len(part), 'item')}, expected a share in [0, 1), "
            "or a pair (images, labels)"
        )
    return part[0], part[1]


def _examples(
    split: str, images: Iterable[Any], labels: Iterable[Any] | None
) -> list[Example]:
    """Checks arrays one by one; returns images `[h, w, C]` and labels as stored."""
    prefix = _prefix(split)
    pixels = [np.asarray(image) for image in images]
    if labels is None:
        labels = (np.full(image.shape[:2], VOID, np.uint8) for image in pixels)
    maps = [np.asarray(label) for label in labels]
    if len(pixels) != len(maps) or not pixels:
        raise InputError(
            f"{prefix}labels: got {count_of(len(maps), 'map')} for "
            f"{count_of(len(pixels), 'image')}, expected one for each of at least one "
            "image"
        )
    examples = []
    for i, (image, label) in enumerate(zip(pixels, maps, strict=True)):
        image = _image(f"{prefix}images[{i}]", image)
        where = f"{prefix}labels[{i}]"
        colors = label.ndim == 3 and label.shape[2] == 3 and label.dtype.kind in "ui"
        if label.dtype.kind not in "buif" or not (label.ndim == 2 or colors):
            raise InputError(
                f"{where}: got {label.dtype} of shape {list(label.shape)}, expected "
                "class ids [H, W]"
            )
        if label.shape[:2] != image.shape[:2]:
            raise InputError(
                f"{where}: got shape {list(label.shape)}, expected "
                f"{list(image.shape[:2])}, the size of its image"
            )
        examples.append((image, label))
    return examples


def _prefix(split: str) -> str:
    return f"{split}." if split in ("val", "test") else ""


def _image(where: str, image: np.ndarray) -> np.ndarray:
    if image.dtype.kind not in "buif" or image.ndim not in (2, 3) or image.size == 0:
        raise InputError(
            f"{where}: got {image.dtype} of shape {list(image.shape)}, expected "
            "numbers [H, W] or [H, W, C]"
        )
    if image.dtype.kind == "b":
        image = image.astype(np.uint8)
    elif image.dtype.kind == "f":
        with np.errstate(over="ignore"):  # values beyond float32 become infinite
            image = image.astype(np.float32, copy=False)
        if not np.isfinite(image).all():
            raise InputError(
                f"{where}: NaN or infinite values, expected finite float32"
            )
    return image[..., None] if image.ndim == 2 else image


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [f"{index:06d}" for index in range(count)]
    found = [str(name) for name in names]
    if len(set(found)) != count or len(found) != count:
        raise InputError(
            f"names: got {count_of(len(found), 'name')}, {len(set(found))} of them "
            f"different, expected {count} different ones"
        )
    return found


def _rows(count: int, seed: int, parts: dict[str, Part]) -> dict[str, np.ndarray]:
    """Draws the splits that are given as shares; returns sorted rows of `images`."""
    order = np.random.default_rng(seed).permutation(count)
    rows: dict[str, np.ndarray] = {}
    first = 0
    for split, part in parts.items():
        if isinstance(part, tuple | list):
            continue
        checks.number(split, part or 0, 0, 1)
        number = max(1, round(float(part) * count)) if part else 0
        rows[split] = np.sort(order[first : first + number])
        first += number
    if first >= count:
        raise InputError(
            f"images: got {count}, of which validation and test split take {first}; "
            "expected more images, or smaller shares (val=0, test=0: no such split)"
        )
    return rows | {"train": np.sort(order[first:])}


def _unlabelled(**parts: Part) -> set[str]:
    """Returns the splits that are given as images without labels."""
    pairs = {k: part for k, part in parts.items() if isinstance(part, tuple | list)}
    return {split for split, (_, labels) in pairs.items() if labels is None}


def _decode_labels(
    given: dict[str, list[Example]],
    num_classes: int | None,
    options: FileOptions,
    unlabelled: Collection[str],
) -> label_encoding.Encoding:
    """Turns stored values into uint8 class ids in place; returns what they meant.

    Void maps of images without labels say nothing about how labels are encoded.
    """
    if num_classes is not None:
        checks.num_classes("num_classes", num_classes)
    names = {
        split: [f"{_prefix(split)}labels[{i}]" for i in range(len(examples))]
        for split, examples in given.items()
        if split not in unlabelled
    }
    surveys = [
        (where, label_encoding.survey(label, options=options))
        for split in names
        for where, (_, label) in zip(names[split], given[split], strict=True)
    ]
    encoding = label_encoding.recognise(
        surveys, options=options, num_classes=num_classes or 0
    )
    for split in names:
        given[split] = [
            (image, label_encoding.decode(label, encoding, where=where))
            for where, (image, label) in zip(names[split], given[split], strict=True)
        ]
    return encoding


def _class_names(
    given: Sequence[str] | None, encoding: label_encoding.Encoding
) -> tuple[str, ...] | None:
    """Checks names of classes; returns those of the encoding if none are given."""
    if given is None:
        return encoding.class_names()
    if len(given) != encoding.num_classes:
        raise InputError(
            f"class_names: got {count_of(len(given), 'name')}, expected "
            f"{encoding.num_classes}"
        )
    return tuple(map(str, given))


def _common_size(examples: Iterable[Example]) -> tuple[int, int, int]:
    shapes = np.array([image.shape for image, _ in examples])
    channels = sorted(set(shapes[:, 2].tolist()) - {1})
    if len(channels) > 1:
        raise InputError(
            f"images: got {channels[0]} and {channels[1]} channels, expected the same "
            "number in all images, or one"
        )
    height, width, most = shapes.max(axis=0).tolist()
    return height, width, most
