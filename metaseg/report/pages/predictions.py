"""index.html of predictions, and overlays of label maps on their images.

May import `files` and the rest of `report`.
"""

import base64
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image
from scipy import ndimage

from metaseg import files
from metaseg.report import figures, pictures, template, wording

__all__ = ["MOST_THUMBNAILS", "OVERLAY_SIDE", "overlay", "write_predictions"]

TEMPLATE = "predictions.html.jinja"
OVERLAY_SIDE = 2048
MOST_THUMBNAILS = 200
MOST_BAD = 200  # rows of the table
THUMB_SIDE = 288
TINT = 0.25  # weight of the colour of a class inside its objects
POLICY = "style-src 'unsafe-inline'"  # in base.html.jinja
DECISION_RULES = {
    **wording.DECISION_RULES,
    "own": "Median threshold of the training images, found without labels",
}
MEASURES = {
    "iou": "IoU",
    "miou": "Mean IoU",
    "dice": "Dice",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Accuracy",
    "mean_image_iou": "Mean per-image IoU",
    "mean_image_dice": "Mean per-image Dice",
}
OBJECT_SCORES = {
    "ap": "AP, mean of 0.5 to 0.95",
    "ap50": "AP at IoU 0.5",
    "ap75": "AP at IoU 0.75",
    "mean_image_ap": "Mean per-image AP",
    "pq": "Panoptic quality (PQ)",
    "sq": "Segmentation quality (SQ)",
    "rq": "Recognition quality (RQ)",
}
COLUMNS = {  # shorter titles in the table
    **MEASURES,
    "ap": "AP",
    "ap50": "AP 0.5",
    "ap75": "AP 0.75",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
}


def overlay(image: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Draws a label map over its image, with tinted and outlined objects.

    Images with a side above `OVERLAY_SIDE` are reduced by the smallest sufficient
    integer n: every n-th pixel of the labels, and means over n x n pixels of the image.

    Args:
      image: Numbers of any range, `[H, W, C]`. The brightness is stretched.
      labels: Class ids below `num_classes`, `[H, W]`. Class 0 is not drawn.
      num_classes: Number of classes K.

    Returns:
      uint8 `[h, w, 3]`.
    """
    step = -(-max(labels.shape) // OVERLAY_SIDE)
    below = _brightness(_reduced(image, step))
    ids = labels[step // 2 :: step, step // 2 :: step][: len(below), : below.shape[1]]
    colours = np.array(_colours(num_classes), np.float32)
    inside = ids > 0
    canvas = below.astype(np.float32)
    canvas[inside] += TINT * (colours[ids[inside]] - canvas[inside])
    low = ndimage.grey_erosion(ids, (3, 3), mode="nearest")
    high = ndimage.grey_dilation(ids, (3, 3), mode="nearest")
    rim = inside & (low < ids)
    canvas[rim] = colours[ids[rim]]
    canvas[~rim & (high > ids)] = pictures.DARK
    return np.rint(canvas).astype(np.uint8)


def _colours(num_classes: int) -> list[tuple[int, int, int]]:
    """Returns the colours of the classes; of two classes, a bright one for class 1."""
    if num_classes == 2:
        return [pictures.DARK, pictures.OUTLINE_COLOUR]
    return pictures.class_colours(num_classes)


def _reduced(image: np.ndarray, step: int) -> np.ndarray:
    """Averages `step` x `step` pixels, float32, a few rows at a time."""
    if step == 1:
        return image.astype(np.float32)
    height, width = (side // step for side in image.shape[:2])
    small = np.empty((max(height, 1), max(width, 1), image.shape[2]), np.float32)
    for row, column in np.ndindex(max(height, 1), 1):
        block = image[row * step : (row + 1) * step].astype(np.float32).mean(axis=0)
        if width == 0:
            small[row, column] = block.mean(axis=0)
        else:
            block = block[: width * step].reshape(width, step, -1)
            small[row] = block.mean(axis=1)
    return small


def _brightness(image: np.ndarray) -> np.ndarray:
    """Stretches the brightness between two percentiles, uint8 `[h, w, 3]`.

    Draws the first three channels; the mean of two.
    """
    many = image.shape[2] >= 3
    image = image[..., :3] if many else image.mean(axis=2, keepdims=True)
    low, high = np.percentile(image, (0.5, 99.5))
    if high <= low:
        low, high = image.min(), image.max()
    scaled = (image - low) / (high - low if high > low else 1)
    levels = np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    return np.broadcast_to(levels, (*levels.shape[:2], 3))


def write_predictions(
    path: str | os.PathLike[str],
    *,
    images: str,
    run: str,
    rule: str,
    aware: bool,
    class_names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    pooled: Mapping[str, Any] | None,
    bad: Sequence[tuple[str, str]],
    seconds: float,
    rate: str,
) -> None:
    """Writes the page of predictions as one HTML file.

    Args:
      path: File to write. The page links to `overlays/NAME.png` in the same folder, and
        embeds thumbnails of the first `MOST_THUMBNAILS`.
      images: Origin of the images.
      run: Name of the run.
      rule: Key of `DECISION_RULES`.
      aware: Whether a matrix describes the label noise of the run.
      class_names: K names.
      rows: Rows of predictions.csv: "name", and numbers or empty strings.
      pooled: Measures over all images with labels, or None.
      bad: Names and reasons of bad files.
      seconds: Duration of the command.
      rate: Images per second as text; empty if no image was left to predict.
    """
    fields = list(dict.fromkeys(key for row in rows for key in row))[1:]
    shown = _with_thumbnails(rows)
    data = {
        "fields": [_titled(field, class_names) for field in fields],
        "rows": [[row["name"], *(_number(row.get(f)) for f in fields)] for row in rows],
        "links": [f"overlays/{quote(row['name'])}.png" for row in rows],
        "thumbnails": _thumbnails(Path(path).parent, rows, shown),
    }
    text = template.render(
        TEMPLATE,
        images=images,
        facts=_facts(rows, bad, seconds, rate, run, rule, aware),
        classes=_classes(rows, class_names),
        colours=_colours(len(class_names)),
        two=len(class_names) == 2,
        measures=_measures(pooled, class_names) if pooled else None,
        objects=_objects(pooled["objects"]) if pooled and "objects" in pooled else None,
        compared=sum("accuracy" in row for row in rows),
        count=wording.count(len(rows)),
        embedded=wording.count(len(shown)),
        every=len(shown) == len(rows),
        worst=any("accuracy" in row for row in rows),
        data=json.dumps(data, separators=(",", ":"), allow_nan=False),
        bad=list(bad[:MOST_BAD]),
        bad_left=max(0, len(bad) - MOST_BAD),
    )
    files.write_text(path, _allowing_script(text))


def _allowing_script(text: str) -> str:
    """Allows the script of the page, and no other, in the content security policy."""
    script = text.rsplit("<script>", 1)[1].split("</script>", 1)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return text.replace(POLICY, f"{POLICY}; script-src 'sha256-{digest}'", 1)


def _titled(field: str, names: Sequence[str]) -> dict[str, Any]:
    """Returns heading and kind of numbers of a column."""
    kind = field.split(" ", 1)[0]
    title = COLUMNS.get(field, field[0].upper() + field[1:])
    return {
        "title": title,
        "kind": {"share": "share", "seconds": "seconds"}.get(
            kind, "measure" if field in COLUMNS else "count"
        ),
        # The table shows shares, not pixels, and leaves out the share of class 0.
        "column": kind != "pixels" and field != f"share {names[0]}",
    }


def _number(value: Any) -> float | None:
    return value if wording.is_number(value) else None


def _with_thumbnails(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Selects the embedded images: the worst if measures are known, else the first."""
    overlap = next((key for key in ("iou", "miou") if any(key in r for r in rows)), "")
    known = [i for i, row in enumerate(rows) if wording.is_number(row.get(overlap))]
    worst = sorted(known, key=lambda i: rows[i][overlap])[:MOST_THUMBNAILS]
    others = [i for i in range(len(rows)) if i not in set(worst)]
    return sorted([*worst, *others[: MOST_THUMBNAILS - len(worst)]])


def _thumbnails(
    folder: Path, rows: Sequence[Mapping[str, Any]], shown: Sequence[int]
) -> dict[int, list[Any]]:
    """Returns URI, width and height of thumbnails, by row."""
    found = {}
    for index in shown:
        with Image.open(folder / "overlays" / f"{rows[index]['name']}.png") as picture:
            picture.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "JPEG", quality=85)
            code = base64.b64encode(buffer.getvalue()).decode("ascii")
            found[index] = [f"data:image/jpeg;base64,{code}", *picture.size]
    return found


def _facts(
    rows: Sequence[Mapping[str, Any]],
    bad: Sequence[Any],
    seconds: float,
    rate: str,
    run: str,
    rule: str,
    aware: bool,
) -> list[tuple[str, str]]:
    pixels = sum(row["height"] * row["width"] for row in rows)
    name = DECISION_RULES[rule]
    if rule == "analytic" and not aware:
        name = "Argmax (no matrix describes the noise of this run)"
    listed = [
        ("Images", wording.count(len(rows))),
        ("Pixels", wording.about(pixels)),
        ("Bad files", wording.count(len(bad))),
        ("Time", wording.duration(seconds)),
        ("Rate", rate),
        ("Decision rule", name),
        ("Run", run),
    ]
    return [(name, text) for name, text in listed if text]


def _classes(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[tuple[str, str, float, str]]:
    """Returns name, share of pixels (text and number) and objects of each class."""
    pixels = [sum(row[f"pixels {name}"] for row in rows) for name in names]
    total = max(sum(pixels), 1)
    objects = [sum(row[f"objects {name}"] for row in rows) for name in names[1:]]
    return [
        (name, wording.percent(count / total), count / total, number)
        for name, count, number in zip(
            names, pixels, ["", *map(wording.count, objects)], strict=True
        )
    ]


def _measures(
    pooled: Mapping[str, Any], names: Sequence[str]
) -> dict[str, list[tuple[str, str, float]]]:
    """Returns the measures over all images and the IoU of each class."""
    each = pooled.get("class_iou") or ()
    return {
        "all": [
            (title, wording.number(pooled[key]), 0.0)
            for key, title in MEASURES.items()
            if key in pooled
        ],
        "classes": [
            (name, wording.number(value), value if wording.is_number(value) else 0.0)
            for name, value in zip(names, each, strict=False)
        ],
    }


def _objects(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Returns counts and scores of objects as text, and the curve."""
    counts = {"True objects": "true_objects", "Found objects": "predicted_objects"}
    rows = [(title, wording.count(scores[key])) for title, key in counts.items()]
    rows += [(title, wording.number(scores[k])) for k, title in OBJECT_SCORES.items()]
    known = any(map(wording.is_number, scores["curve"].values()))
    chart = figures.precision_curve(scores["curve"]) if known else None
    return {"rows": rows, "chart": chart}
