"""Images -> scores, strip by strip in bounded memory; and the function `predict`.

The tiles of all images form one stream. Consecutive tiles of equal size are computed
together. The device computes one batch while the host prepares the next one and blends
the last one. A strip of rows is complete when no later tile has weight in it.
"""

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np
from jaxtyping import Real

from metaseg.data import collect, file_options, image_files
from metaseg.data.file_options import FileKeywords, FileOptions
from metaseg.data.normalize import Affine
from metaseg.errors import InputError, escaped
from metaseg.prediction import network, tiles
from metaseg.prediction.predictor import Predictor, decoder, load
from metaseg.text import count_of

__all__ = ["Prediction", "Strip", "fit_channels", "predict", "strips"]

# Pixels computed together: more than a few small images gain nothing on a CPU.
BATCH_PIXELS = {"cpu": 1 << 18}
BATCH_PIXELS_ELSEWHERE = 1 << 22


class Prediction(NamedTuple):
    """Segmentation of one image.

    Attributes:
      labels: Class ids, uint8 `[H, W]`.
      scores: Probabilities of the noisy labels, float32 `[H, W, K]`.
    """

    labels: np.ndarray
    scores: np.ndarray


class Strip(NamedTuple):
    """Scores of consecutive rows of one image.

    Attributes:
      image: Index of the image.
      start: First row.
      scores: float32 `[h, W, 1]`, probability of the foreground, or `[h, W, K]`.
      last: Whether this is the last strip of the image.
      seconds: Wall time spent on the strip, without the time of the caller.
    """

    image: int
    start: int
    scores: np.ndarray
    last: bool
    seconds: float


class _Grid(NamedTuple):
    """Index and size of an image, and how its sides are cut into tiles."""

    image: int
    height: int
    width: int
    rows: tiles.Axis
    columns: tiles.Axis


class _Piece(NamedTuple):
    """One tile: its place in the grid and its normalised pixels `[h, w, C]`."""

    grid: _Grid
    row: int
    column: int
    pixels: np.ndarray


Images = Sequence[Any] | np.ndarray | jax.Array | str | os.PathLike[str]


def predict(
    predictor: Predictor | str | os.PathLike[str],
    images: Images,
    *,
    decision_rule: str = "analytic",
    tile: int | None = None,
    overlap: int | None = None,
    **files: Unpack[FileKeywords],
) -> list[Prediction]:
    """Segments images with a trained network.

    Args:
      predictor: Result of `load`, or the work folder of a run.
      images: One path or a sequence of paths; or arrays as `data.collect.unstacked`
        takes them: `[N, H, W]`, or a sequence of `[H, W]` or `[H, W, C]` of any sizes.
        Arrays hold values in the units of the training files, not normalised. Grey
        images are repeated into the channels of a network for colour.
      decision_rule: Rule from scores to labels, see `decoder`: "analytic" (the
        noise-aware one), "argmax" or "validation".
      tile: Side in pixels of what the network sees at once; see `tiles.plan`.
      overlap: Overlap of neighbouring tiles in pixels.
      **files: How image files are read: fields of `FileOptions`. The channels of files
        are by default those that the run was trained on.

    Returns:
      One prediction for each image.

    Raises:
      InputError: If the run, an image, the rule or a size is wrong.
    """
    if not isinstance(predictor, Predictor):
        predictor = load(predictor)
    decode = decoder(predictor, decision_rule)
    found: list[Prediction] = []
    parts: list[np.ndarray] = []
    options = file_options.build(**files)
    arrays = _arrays(predictor, images, options)
    for strip in strips(predictor, arrays, tile=tile, overlap=overlap):
        parts.append(strip.scores)
        if strip.last:
            scores = np.concatenate(parts)
            parts.clear()
            found.append(Prediction(decode(scores), _all_classes(scores)))
    return found


def _all_classes(scores: np.ndarray) -> np.ndarray:
    if scores.shape[-1] > 1:
        return scores
    return np.concatenate([1 - scores, scores], axis=-1)


def _arrays(
    predictor: Predictor, images: Images, options: FileOptions
) -> Iterator[np.ndarray]:
    """Yields images as stored, read one by one."""
    if options.channels is None:
        options = options._replace(channels=predictor.files.channels)
    one = isinstance(images, str | os.PathLike)
    given: Iterable[Any] = [images] if one else images  # type: ignore[assignment]
    if hasattr(given, "ndim"):
        given = collect.unstacked(given)
    for index, image in enumerate(given):
        if isinstance(image, str | os.PathLike):
            where = escaped(os.fspath(image))
            path = Path(image).expanduser()
            array = image_files.read_image(path, options=options)
        else:
            where = f"images[{index}]"
            array = collect.checked(image, where)
        yield fit_channels(array, predictor.channels, where)


def fit_channels(
    image: Real[np.ndarray, "H W *C"], channels: int, where: str
) -> Real[np.ndarray, "H W _"]:
    """Gives an image the channels that a network takes.

    Args:
      image: `[H, W]` or `[H, W, C]`.
      channels: Channels that the network takes.
      where: What messages name.

    Returns:
      `[H, W, channels]`, or `[H, W, 1]` if the image is grey and the network takes
      grey or colour.

    Raises:
      InputError: If the image has another number of channels and is not grey.
    """
    image = image[..., None] if image.ndim == 2 else image
    found = image.shape[-1]
    grey = channels in (1, 3)  # colour networks take grey images as well
    if found == channels or (found == 1 and grey):
        return image
    first = image[..., :1]
    if grey and all(np.array_equal(first, image[..., i : i + 1]) for i in range(found)):
        return first
    expected = {1: "grey", 3: "grey or 3"}.get(channels, f"{channels}")
    raise InputError(
        f"{where}: {count_of(found, 'channel')}; expected {expected}, as in training, "
        "or a choice, such as `channels=0`"
    )


def strips(
    predictor: Predictor,
    images: Iterable[np.ndarray],
    *,
    tile: int | None = None,
    overlap: int | None = None,
) -> Iterator[Strip]:
    """Computes scores of images of any size in bounded memory.

    Args:
      predictor: The predictor.
      images: Results of `fit_channels`; they are taken one by one, a batch ahead of the
        strips.
      tile: See `tiles.plan`.
      overlap: See `tiles.plan`.

    Yields:
      The strips of each image from top to bottom, image after image.

    Raises:
      InputError: If a size of tiles is wrong.
    """
    pieces = _pieces(predictor, images, tile, overlap)
    blend: np.ndarray | None = None
    for piece, scores, seconds in _scored(predictor, _batches(pieces)):
        grid, row = piece.grid, piece.row
        if len(grid.rows.starts) == len(grid.columns.starts) == 1:
            inside = scores[: grid.height, : grid.width]
            yield Strip(grid.image, 0, inside, True, seconds)
            continue
        if row == piece.column == 0:
            size = (grid.rows.length, grid.width, scores.shape[-1])
            blend, spent, done = np.zeros(size, np.float32), 0.0, 0
        assert blend is not None
        _add(blend, piece, scores)
        spent += seconds
        if piece.column < len(grid.columns.starts) - 1:
            continue
        start, last = grid.rows.starts[row], row == len(grid.rows.starts) - 1
        after = start if last else grid.rows.starts[row + 1]
        stop = grid.height if last else after + grid.rows.supports[row + 1][0]
        rows = blend[done - start : stop - start].copy()
        yield Strip(grid.image, done, rows, last, spent)
        done, spent = stop, 0.0
        blend[: start - after or None] = blend[after - start :]
        blend[len(blend) + start - after :] = 0


def _add(blend: np.ndarray, piece: _Piece, scores: np.ndarray) -> None:
    """Adds the weighted scores of a tile to the rows that are being blended."""
    rows, columns = piece.grid.rows, piece.grid.columns
    top, bottom = rows.supports[piece.row]
    left, right = columns.supports[piece.column]
    start = columns.starts[piece.column]
    right = min(right, piece.grid.width - start)
    weight = np.multiply.outer(
        rows.weights[piece.row][top:bottom], columns.weights[piece.column][left:right]
    )
    part = scores[top:bottom, left:right] * weight[..., None]
    blend[top:bottom, start + left : start + right] += part


def _pieces(
    predictor: Predictor,
    images: Iterable[np.ndarray],
    tile: int | None,
    overlap: int | None,
) -> Iterator[_Piece]:
    """Yields normalised tiles; the edge of the image is repeated beyond it."""
    step = network.stride(predictor.model)
    # The radius takes a compilation to measure, and matters only where images are cut.
    plan = tiles.plan(step, 0, tile=tile, overlap=overlap)
    measured = False
    for index, image in enumerate(images):
        height, width = image.shape[:2]
        if max(height, width) > plan.tile and not measured:
            seen = network.radius(predictor.model, predictor.channels)
            plan, measured = tiles.plan(step, seen, tile=tile, overlap=overlap), True
        sides = (tiles.extended(side, plan.grain) for side in (height, width))
        rows, columns = (tiles.cut(side, plan) for side in sides)
        grid = _Grid(index, height, width, rows, columns)
        affine = predictor.normalizer(image)
        for (i, top), (j, left) in itertools.product(
            enumerate(rows.starts), enumerate(columns.starts)
        ):
            part = image[top : top + rows.length, left : left + columns.length]
            pixels = _extended(affine, part, (rows.length, columns.length))
            shape = (*pixels.shape[:2], predictor.channels)
            yield _Piece(grid, i, j, np.broadcast_to(pixels, shape))


def _extended(affine: Affine, part: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    missing = [(0, n - have) for n, have in zip(size, part.shape, strict=False)]
    return np.pad(affine(part), (*missing, (0, 0)), mode="edge")


def _batches(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Groups consecutive tiles of one size."""
    most = BATCH_PIXELS.get(jax.default_backend(), BATCH_PIXELS_ELSEWHERE)
    batch: list[_Piece] = []
    for piece in pieces:
        shape = piece.pixels.shape
        full = (len(batch) + 1) * shape[0] * shape[1] > most
        if batch and (full or shape != batch[0].pixels.shape):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def _scored(
    predictor: Predictor, batches: Iterable[list[_Piece]]
) -> Iterator[tuple[_Piece, np.ndarray, float]]:
    """Yields tiles with scores and seconds; the next batch is already under way."""
    program = network.program(predictor.model)
    ahead: list[tuple[list[_Piece], jax.Array]] = []
    began = time.perf_counter()
    for batch in itertools.chain(batches, [None]):
        if batch is not None:
            # Powers of two: a handful of programs for any number of images.
            size = 1 << (len(batch) - 1).bit_length()
            filled = [*batch, *batch[-1:] * (size - len(batch))]
            stack = np.stack([piece.pixels for piece in filled])
            ahead.append((batch, program(predictor.variables, stack)))
        if ahead and (batch is None or len(ahead) > 1):
            done, result = ahead.pop(0)
            scores = np.asarray(result)
            seconds = (time.perf_counter() - began) / len(done)
            for piece, part in zip(done, scores, strict=False):
                yield piece, part, seconds
            began = time.perf_counter()
