"""Images -> scores, strip by strip and in bounded memory, and the function `predict`.

Tiles of all images form one stream: those of equal size that follow each other are
computed together, the device works on one batch while the host prepares the next and
blends the last, and strips of rows leave as soon as no tile to come has weight there.
"""

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from metaseg.data import image_files
from metaseg.data.normalize import Affine
from metaseg.errors import InputError
from metaseg.prediction import network, tiles
from metaseg.prediction.run import Run, decision_rule, load

__all__ = ["Prediction", "Strip", "fit_channels", "predict", "strips"]

# Pixels computed together: more than a few small images gain nothing on a CPU.
BATCH_PIXELS = {"cpu": 1 << 18}
BATCH_PIXELS_ELSEWHERE = 1 << 22


class Prediction(NamedTuple):
    """What the network says of one image.

    Attributes:
      labels: uint8 `[H, W]`, class ids.
      scores: float32 `[H, W, K]`, class probabilities under the noisy labels.
    """

    labels: np.ndarray
    scores: np.ndarray


class Strip(NamedTuple):
    """Rows of the scores of one image, in order from the top.

    Attributes:
      image: index of the image.
      start: first row.
      scores: float32 `[h, W, 1]`, the foreground's probability, or `[h, W, K]`.
      last: whether the image ends here.
      seconds: wall time that went into the strip, less that of whoever takes strips.
    """

    image: int
    start: int
    scores: np.ndarray
    last: bool
    seconds: float


class _Grid(NamedTuple):
    """An image's number and size, and how its sides are cut."""

    image: int
    height: int
    width: int
    rows: tiles.Axis
    columns: tiles.Axis


class _Piece(NamedTuple):
    """One tile: float32 `pixels` `[h, w, C]`, and which of the grid."""

    grid: _Grid
    row: int
    column: int
    pixels: np.ndarray


Images = Sequence[Any] | np.ndarray | jax.Array | str | os.PathLike[str]


def predict(
    run: Run | str | os.PathLike[str],
    images: Images,
    *,
    rule: str = "analytic",
    tile: int | None = None,
    overlap: int | None = None,
) -> list[Prediction]:
    """Segments images with a trained run.

    Args:
      run: a run's work folder, or what `load` made of it.
      images: one image or a sequence of them, of any sizes: paths, or arrays `[H, W]`
        or `[H, W, C]` in the units of the run's files, not normalised. Grey is
        repeated for a colour run.
      rule: how scores become labels: "analytic" (noise-aware), "argmax" or
        "validation", see `decision_rule`.
      tile: pixels a side that the network sees at once; see `tiles.plan`.
      overlap: of neighbouring tiles, in pixels.

    Returns:
      One prediction for each image.

    Raises:
      InputError: wrong run, image, rule or sizes.
    """
    if not isinstance(run, Run):
        run = load(run)
    decide = decision_rule(run, rule)
    found: list[Prediction] = []
    parts: list[np.ndarray] = []
    arrays = _arrays(run, images)
    for strip in strips(run, arrays, tile=tile, overlap=overlap):
        parts.append(strip.scores)
        if strip.last:
            scores = np.concatenate(parts)
            parts.clear()
            found.append(Prediction(decide(scores), _all_classes(scores)))
    return found


def _all_classes(scores: np.ndarray) -> np.ndarray:
    if scores.shape[-1] > 1:
        return scores
    return np.concatenate([1 - scores, scores], axis=-1)


def _arrays(run: Run, images: Images) -> Iterator[np.ndarray]:
    """Images as stored, read one by one; checks what is given as arrays."""
    one = isinstance(images, str | os.PathLike) or getattr(images, "ndim", 4) < 4
    given: Iterable[Any] = [images] if one else images  # type: ignore[assignment]
    for index, image in enumerate(given):
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            yield fit_channels(image_files.read_image(path), run.channels, str(path))
            continue
        where = f"images[{index}]"
        array = np.asarray(image)
        if (
            array.ndim not in (2, 3)
            or array.size == 0
            or array.dtype.kind not in "buif"
        ):
            raise InputError(
                f"{where}: {array.dtype} of shape {array.shape}, expected numbers"
                " [H, W] or [H, W, C]"
            )
        if not np.isfinite(array).all():
            raise InputError(f"{where}: NaN or infinite values, expected finite ones")
        array = array.astype(np.uint8) if array.dtype.kind == "b" else array
        yield fit_channels(array, run.channels, where)


def fit_channels(image: np.ndarray, channels: int, where: str) -> np.ndarray:
    """Gives an image the channels that a run takes.

    Args:
      image: `[H, W]` or `[H, W, C]`.
      channels: of the run.
      where: what a message names.

    Returns:
      `[H, W, channels]`, or `[H, W, 1]`, which normalisation broadcasts.

    Raises:
      InputError: the image has other channels, and is not grey.
    """
    image = image[..., None] if image.ndim == 2 else image
    found = image.shape[-1]
    if found in (1, channels):
        return image
    if all(np.array_equal(image[..., :1], image[..., i : i + 1]) for i in range(found)):
        return image[..., :1]
    expected = "grey" if channels == 1 else f"grey or {channels} channels"
    raise InputError(f"{where}: {found} channels; expected {expected}, as in training")


def strips(
    run: Run,
    images: Iterable[np.ndarray],
    *,
    tile: int | None = None,
    overlap: int | None = None,
) -> Iterator[Strip]:
    """Scores of images of any size.

    Args:
      run: the run.
      images: of `fit_channels`; taken one by one, a batch ahead of what is given back.
      tile: see `tiles.plan`.
      overlap: see `tiles.plan`.

    Yields:
      The strips of each image, from its top, image after image.

    Raises:
      InputError: wrong sizes of tiles.
    """
    pieces = _pieces(run, images, tile, overlap)
    blend: np.ndarray | None = None
    for piece, scores, seconds in _scored(run, _batches(pieces)):
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
    """Adds a tile, where it has weight, to the rows of its row of tiles."""
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
    run: Run, images: Iterable[np.ndarray], tile: int | None, overlap: int | None
) -> Iterator[_Piece]:
    """Normalised tiles; beyond the image its edge is repeated."""
    step = network.stride(run.model)
    # The radius takes a compilation to measure, and matters only where images are cut.
    plan = tiles.plan(step, 0, tile=tile, overlap=overlap)
    measured = False
    for index, image in enumerate(images):
        height, width = image.shape[:2]
        if max(height, width) > plan.tile and not measured:
            seen = network.radius(run.model, run.channels)
            plan, measured = tiles.plan(step, seen, tile=tile, overlap=overlap), True
        sides = (tiles.extended(side, plan.grain) for side in (height, width))
        rows, columns = (tiles.cut(side, plan) for side in sides)
        grid = _Grid(index, height, width, rows, columns)
        affine = run.normalizer(image)
        for (i, top), (j, left) in itertools.product(
            enumerate(rows.starts), enumerate(columns.starts)
        ):
            part = image[top : top + rows.length, left : left + columns.length]
            pixels = _extended(affine, part, (rows.length, columns.length))
            shape = (*pixels.shape[:2], run.channels)
            yield _Piece(grid, i, j, np.broadcast_to(pixels, shape))


def _extended(affine: Affine, part: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    missing = [(0, n - have) for n, have in zip(size, part.shape, strict=False)]
    return np.pad(affine(part), (*missing, (0, 0)), mode="edge")


def _batches(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Groups tiles of one size that follow each other."""
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
    run: Run, batches: Iterable[list[_Piece]]
) -> Iterator[tuple[_Piece, np.ndarray, float]]:
    """Tiles with their scores and seconds, computed one batch ahead."""
    program = network.program(run.model)
    ahead: list[tuple[list[_Piece], jax.Array]] = []
    began = time.perf_counter()
    for batch in itertools.chain(batches, [None]):
        if batch is not None:
            # Powers of two: a handful of programs for any number of images.
            size = 1 << (len(batch) - 1).bit_length()
            filled = [*batch, *batch[-1:] * (size - len(batch))]
            stack = np.stack([piece.pixels for piece in filled])
            ahead.append((batch, program(run.variables, stack)))
        if ahead and (batch is None or len(ahead) > 1):
            done, result = ahead.pop(0)
            scores = np.asarray(result)
            seconds = (time.perf_counter() - began) / len(done)
            for piece, part in zip(done, scores, strict=False):
                yield piece, part, seconds
            began = time.perf_counter()
