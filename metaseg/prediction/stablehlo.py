"""Predictor -> one StableHLO file that runs with jax alone; and back.

The file holds the weights, the normalisation and the decision rule. It takes a batch of
images of any size, but does not cut large images into tiles.
"""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from metaseg import checks, decoding, files
from metaseg.data.normalize import PERCENTILES, Normalizer
from metaseg.errors import DamagedError, InputError, decoder_errors
from metaseg.prediction import network, tiles
from metaseg.prediction.predictor import Predictor, decision
from metaseg.prediction.scores import Prediction
from metaseg.typing import AnyArray

__all__ = ["PLATFORMS", "ExportedPredictor", "export", "load_export", "normalized"]

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export(
    predictor: Predictor,
    path: str | os.PathLike[str],
    *,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    decision_rule: str = "analytic",
    size: tuple[int, int] | None = None,
) -> Path:
    """Writes a network as StableHLO, with normalisation and decision rule inside.

    The function in the file takes images float32 `[B, H, W, C]`, as stored, and returns
    class ids uint8 `[B, H, W]` and scores float32 `[B, H, W, 1]` (two classes) or
    `[B, H, W, K]`. `jax.export.deserialize(path.read_bytes()).call(images)` runs it
    without this package. `path` with `.json` appended holds class names, channels and
    what else a user of the file needs to know.

    Args:
      predictor: The predictor.
      path: File to write.
      platforms: Platforms to compile for, some of `PLATFORMS`; no device is needed.
      decision_rule: Rule from scores to labels, see `decoder`.
      size: Height and width of the images, for networks whose program depends on them;
        None allows any size.

    Returns:
      `path`.

    Raises:
      InputError: If an argument is wrong, or the network needs `size`.

    Example:
      >>> from metaseg import prediction
      >>> predictor = prediction.load("runs/cells")  # doctest: +SKIP
      >>> prediction.export(predictor, "cells.stablehlo")  # doctest: +SKIP
      >>> exported = prediction.load_export("cells.stablehlo")  # doctest: +SKIP
      >>> labels, scores = exported(images)  # doctest: +SKIP
    """
    if isinstance(platforms, str) or not platforms:
        raise InputError(f"platforms: got {platforms!r}, expected some of {PLATFORMS}")
    for platform in platforms:
        checks.choice("platforms", platform, PLATFORMS)
    threshold, inverse = decision(predictor, decision_rule)
    grain = math.lcm(network.stride(predictor.model), tiles.GRAIN)

    def segment(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        height, width = images.shape[1:3]
        pixels = _extended(normalized(predictor.normalizer, images), grain)
        scores = network.scores(predictor.model, predictor.variables, pixels)
        scores = scores[:, :height, :width]
        if threshold is not None:
            labels = decoding.is_foreground(scores[..., 0], *threshold)
        else:
            decoded = scores
            if inverse is not None:
                decoded = jnp.matmul(scores, inverse, precision="highest")
            labels = jnp.argmax(decoded, axis=-1)
        return labels.astype(jnp.uint8), scores

    sides = "h, w" if size is None else f"{size[0]}, {size[1]}"
    shape = jax.export.symbolic_shape(f"b, {sides}, {predictor.channels}")
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        with _without_paths():
            exported = jax.export.export(jax.jit(segment), platforms=tuple(platforms))(
                images
            )
    except jax.errors.InconclusiveDimensionOperation as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            "size: got None, but the program of the network depends on the size of the"
            f" images ({reason}); expected (height, width)"
        ) from error
    target = Path(path).expanduser()
    _write_bytes(target, bytes(exported.serialize()))
    facts = {
        "name": predictor.name,
        "num_classes": predictor.num_classes,
        "class_names": predictor.class_names,
        "channels": predictor.channels,
        "size": size,
        "decision_rule": decision_rule,
        "normalization": dataclasses.asdict(predictor.normalizer),
        "platforms": platforms,
    }
    files.write_json(f"{target}.json", facts)
    return target


@dataclasses.dataclass(frozen=True)
class ExportedPredictor:
    """A network of `export`.

    Attributes:
      function: The function in the file.
      facts: Content of the JSON file: `class_names`, `channels`, `decision_rule`, ...
    """

    function: jax.export.Exported
    facts: Mapping[str, Any]

    def __repr__(self) -> str:
        """Returns the facts; the program is long."""
        return f"ExportedPredictor({dict(self.facts)})"

    def __call__(self, images: AnyArray) -> Prediction:
        """Segments a batch of images.

        Args:
          images: Numbers `[B, H, W, C]` in the units of the training files.

        Returns:
          Class ids uint8 `[B, H, W]`, and scores float32 `[B, H, W, 1]` (probability of
          the foreground) or `[B, H, W, K]`.

        Raises:
          InputError: If `images` has another number of axes or channels.
        """
        channels = self.facts["channels"]
        if np.ndim(images) != 4 or np.shape(images)[-1] != channels:
            raise InputError(
                f"images: got shape {list(np.shape(images))}, expected [B, H, W,"
                f" {channels}]"
            )
        labels, scores = self.function.call(jnp.asarray(images, jnp.float32))
        return Prediction(np.asarray(labels), np.asarray(scores))


def load_export(path: str | os.PathLike[str]) -> ExportedPredictor:
    """Loads a file of `export`.

    Args:
      path: The file; its JSON file is expected beside it.

    Returns:
      A callable, images `[B, H, W, C]` to labels and scores.

    Raises:
      InputError: If a file is missing or is not one that `export` wrote.
    """
    try:
        place = Path(path).expanduser()
        content = bytearray(place.read_bytes())
        with decoder_errors():
            function = jax.export.deserialize(content)
        facts = json.loads(Path(f"{place}.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from error
    except (DamagedError, ValueError) as error:  # JSON and text raise ValueError
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not a file of metaseg.prediction.export ({reason})"
        ) from error
    return ExportedPredictor(function, facts)


def normalized(
    normalizer: Normalizer, images: Real[AnyArray, "B H W C"]
) -> Float[jax.Array, "B H W C"]:
    """Normalises a batch on the device; equals `normalizer(image)(image)` of each.

    Args:
      normalizer: The normalisation.
      images: Images as stored, `[B, H, W, C]`.

    Returns:
      Normalised images, float32 `[B, H, W, C]`.
    """
    images = jnp.asarray(images, jnp.float32)
    if normalizer.method == "none":
        return images
    if normalizer.method == "fixed":
        mean, std = (
            jnp.asarray(x, jnp.float32) for x in (normalizer.mean, normalizer.std)
        )
        return (images - mean) / std
    if normalizer.method == "zscore":
        return jax.vmap(_standardized)(images)
    return jax.vmap(_between_percentiles)(images)


def _standardized(image: jax.Array) -> jax.Array:
    # Relative to a pixel, so that a large mean costs no digits.
    centred = image - image[0, 0, 0]
    centred = centred - jnp.where(jnp.ptp(image) > 0, centred.mean(), 0)
    std = jnp.sqrt(jnp.square(centred).mean())
    return centred / jnp.where(std > 0, std, 1)


def _between_percentiles(image: jax.Array) -> jax.Array:
    ordered = jnp.sort(image.reshape(-1))
    low, high = (_percentile(ordered, round(10 * q)) for q in PERCENTILES)
    equal = low == high  # all but a few pixels are equal: the few set the scale
    low = jnp.where(equal, ordered[0], low)
    high = jnp.where(equal, ordered[-1], high)
    return (image - low) / jnp.where(high > low, high - low, 1)


def _percentile(ordered: jax.Array, permille: int) -> jax.Array:
    """Interpolates linearly between order statistics, as NumPy does."""
    # The place is permille * (n - 1) / 1000, in integers that do not overflow.
    thousands, rest = jnp.divmod(jnp.asarray(ordered.shape[0]) - 1, 1000)
    below = permille * thousands + permille * rest // 1000
    share = (permille * rest % 1000) / 1000
    above = jnp.minimum(below + 1, ordered.shape[0] - 1)
    first, second = ordered[below], ordered[above]
    return first + (second - first) * share


def _extended(images: jax.Array, grain: int) -> jax.Array:
    """Repeats the lower and right edge up to multiples of `grain`, as `strips` does."""
    for axis in (1, 2):
        side = images.shape[axis]
        longer = grain * ((side + grain - 1) // grain)
        places = jnp.minimum(jnp.arange(longer), side - 1)
        images = jnp.take(images, places, axis=axis)
    return images


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Lets JAX name no source files in a program: they are paths of this machine."""
    option: Any = jax.config
    before = option.jax_hlo_source_file_canonicalization_regex
    option.update("jax_hlo_source_file_canonicalization_regex", ".*")  # is removed
    try:
        yield
    finally:
        option.update("jax_hlo_source_file_canonicalization_regex", before)


def _write_bytes(path: Path, content: bytes) -> None:
    draft = files.scratch(path)
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
