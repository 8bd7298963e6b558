"""Numbers and sentences of the pages."""

import math
import numbers
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

from metaseg.text import count_of

__all__ = [
    "DASH",
    "DECISION_RULES",
    "RULE_NOTES",
    "about",
    "count",
    "duration",
    "facts",
    "is_number",
    "matrix_remark",
    "memory",
    "noise_phrase",
    "number",
    "percent",
    "summary",
]

DASH = "–"  # noqa: RUF001
TIMES = "×"  # noqa: RUF001
SPACE = "\N{NO-BREAK SPACE}"

DECISION_RULES = {
    "argmax": "Argmax",
    "analytic": "Noise-aware",
    "validation": "Validation threshold",
    "oracle": "Oracle threshold",
}
RULE_NOTES = {
    "argmax": (
        "Takes the class with the highest score, as if the training labels were right."
    ),
    "analytic": (
        "Corrects the scores for the label noise. The threshold or the decoding matrix "
        "follows from the noise alone and uses no labels."
    ),
    "validation": "Uses the threshold with the best IoU on the validation images.",
    "oracle": (
        "Uses the threshold with the best IoU on the test images. It needs the test "
        "labels: it is an upper bound for comparison, and not available in practice."
    ),
}
MODELS = {"unet": "U-Net", "deeplab": "DeepLabV3+", "hrnet": "HRNetV2"}


def is_number(value: Any) -> TypeGuard[float]:
    """Tells whether a value is a finite number, and not a boolean.

    Args:
      value: Anything.

    Returns:
      Whether it is.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def number(value: Any, *, digits: int = 3) -> str:
    """Formats a metric with a fixed number of digits.

    Args:
      value: Number, or anything else.
      digits: Number of digits after the point.

    Returns:
      The text; a dash if `value` is not a finite number.
    """
    return f"{float(value):.{digits}f}" if is_number(value) else DASH


def percent(value: Any) -> str:
    """Formats a share as a percentage: "40 %", "2.5 %".

    Args:
      value: Share in [0, 1], or anything else.

    Returns:
      The text; a dash if `value` is not a finite number.
    """
    if not is_number(value):
        return DASH
    text = f"{100 * float(value):.1f}".removesuffix(".0")
    return f"{text}{SPACE}%"


def count(value: Any) -> str:
    """Formats an integer in groups of three digits: "48 000".

    Args:
      value: Number, or anything else.

    Returns:
      The text; a dash if `value` is not a finite number.
    """
    return f"{float(value):,.0f}".replace(",", SPACE) if is_number(value) else DASH


def about(value: Any) -> str:
    """Formats a count with two significant digits: "48 000", "1.2 million".

    Args:
      value: Number, or anything else.

    Returns:
      The text; a dash if `value` is not a finite number.
    """
    if not is_number(value):
        return DASH
    rough = float(f"{float(value):.2g}")
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if rough >= size:
            return f"{rough / size:g}{SPACE}{name}"
    return count(rough) if rough >= 10 else f"{rough:g}"


def duration(seconds: Any) -> str:
    """Formats a duration: "0.4 s", "48 s", "2 min 11 s", "3 h 5 min".

    Args:
      seconds: Number of seconds, or anything else.

    Returns:
      The text; a dash if `seconds` is not a finite number.
    """
    if not is_number(seconds):
        return DASH
    whole = round(float(seconds))
    if seconds < 9.95:
        return f"{float(seconds):.1f}{SPACE}s"
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60}{SPACE}s"
    return f"{whole // 3600}{SPACE}h {whole % 3600 // 60}{SPACE}min"


def memory(count: Any) -> str:
    """Formats a size in MB or GB (powers of ten).

    Args:
      count: Number of bytes, or anything else.

    Returns:
      The text; a dash if `count` is not a finite number.
    """
    if not is_number(count):
        return DASH
    if count < 1e9:
        return f"{float(count) / 1e6:.0f}{SPACE}MB"
    return f"{float(count) / 1e9:.2f}{SPACE}GB"


def noise_phrase(noise: Mapping[str, Any]) -> str:
    """Describes the label noise, to follow "trained on cells".

    Args:
      noise: "noise" of results.json: "name" and, where known, "rate", "fraction",
        "radius" and "changed_pixels".

    Returns:
      A phrase such as "with 40 % of the label pixels flipped".
    """
    name = noise.get("name")
    rate, fraction, radius = (noise.get(k) for k in ("rate", "fraction", "radius"))
    changed = noise.get("changed_pixels")
    share = f" ({percent(changed)} of the pixels)" if is_number(changed) else ""
    if name in (None, "", "none", "clean", "identity"):
        return "with clean labels"
    if name == "flip" and is_number(rate):
        return f"with {percent(rate)} of the label pixels flipped"
    if name == "sample" and is_number(fraction):
        return f"with {percent(fraction)} of the labelled pixels kept"
    if name == "random":
        return "with random labels"
    if name in ("dilate", "erode") and is_number(radius):
        return f"with labels {name}d by {count_of(radius, 'pixel')}{share}"
    phrases = {
        "flip": f"with flipped labels{share}",
        "sample": f"with sampled labels{share}",
        "transition": f"with labels changed by a transition matrix{share}",
        "dilate": f"with dilated labels{share}",
        "erode": f"with eroded labels{share}",
        "skeletonize": f"with labels thinned to skeletons{share}",
    }
    return phrases.get(str(name), f"with {name} label noise{share}")


def summary(results: Mapping[str, Any]) -> str:
    """Summarises a run in one sentence: network, data, noise and test scores.

    Args:
      results: Contents of results.json. Missing fields are left out.

    Returns:
      The sentence.
    """
    model, data, test = (_part(results, k) for k in ("model", "data", "test"))
    name = str(model.get("name") or "network")
    trained = f"{MODELS.get(name, name)} trained"
    if data.get("name"):
        trained += f" on {data['name']}"
    if results.get("noise"):
        trained += f" {noise_phrase(_part(results, 'noise'))}"
    scores = []
    for key, label in (("iou", "test IoU"), ("miou", "test mean IoU")):
        values = test.get(key)
        values = values if isinstance(values, Mapping) else {}
        for rule in ("analytic", "argmax"):
            if is_number(values.get(rule)):
                name = f"{DECISION_RULES[rule].lower()} decision rule"
                scores.append(f"{label} {number(values[rule], digits=2)} ({name})")
                break
    if is_number(test.get("auc")):
        scores.append(f"AUC {number(test['auc'])}")
    sentence = f"{trained}: {', '.join(scores)}" if scores else trained
    return sentence[:1].upper() + sentence[1:] + "."


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lists sizes and costs of a run.

    Args:
      results: Contents of results.json. Missing fields are left out.

    Returns:
      Pairs of name and value.
    """
    data, time = _part(results, "data"), _part(results, "time")
    sizes = [_count(data.get(split)) for split in ("train", "val", "test")]
    speed = time.get("images_per_second")
    waited, used = time.get("data_wait_share"), time.get("flops_utilisation")
    on_devices = _part(results, "memory").get("device_peak_bytes") or []
    counted = [peak for peak in on_devices if is_number(peak)]
    listed = {
        "Images (train / val / test)": " / ".join(sizes),
        "Image size": f" {TIMES} ".join(
            _count(side) for side in np.atleast_1d(data.get("image_shape") or ())
        ),
        "Classes": _count(data.get("num_classes")),
        "Parameters": _count(_part(results, "model").get("parameters")),
        "Weights": str(_part(results, "weights").get("described") or ""),
        "Total time": duration(time.get("total_seconds")),
        "Training": f"{_count(speed)} images/s" if is_number(speed) else "",
        "Waiting for data": f"{100 * waited:.1f} %" if waited else "",
        "Share of the peak FLOP/s": f"{100 * used:.1f} %" if is_number(used) else "",
        "Peak memory": memory(_part(results, "memory").get("peak_bytes")),
        "Peak memory of a device": memory(max(counted)) if counted else "",
    }
    return [(name, text) for name, text in listed.items() if text.strip(f" /{DASH}")]


def matrix_remark(matrix: np.ndarray) -> str:
    """Says which classes a noise transition matrix leaves distinguishable.

    Args:
      matrix: `[K, K]`, rows clean and columns noisy classes.

    Returns:
      One sentence.
    """
    size = len(matrix)
    rank = int(np.linalg.matrix_rank(matrix, tol=1e-6))
    if rank == size:
        return f"Rank {rank} of {size}: the noise can be inverted."
    if rank <= 1:
        return f"Rank {rank} of {size}: noisy labels do not depend on clean labels."
    return f"Rank {rank} of {size}: some classes can no longer be distinguished."


def _part(results: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = results.get(key)
    return part if isinstance(part, Mapping) else {}


def _count(value: Any) -> str:
    if not is_number(value):
        return DASH
    if value < 100 and not float(value).is_integer():
        return f"{float(value):.1f}"
    return f"{float(value):,.0f}"
