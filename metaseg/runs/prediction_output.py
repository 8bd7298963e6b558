"""What a prediction leaves: files of each image, a table, and measures."""

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Integer

from metaseg import files
from metaseg.errors import InputError, with_prefixes
from metaseg.runs import prediction_labels
from metaseg.text import count_of

__all__ = [
    "RECORDS",
    "check_folder",
    "columns",
    "csv_text",
    "paths",
    "remove_stale",
    "say",
    "write_labels",
    "write_measures",
]

RECORDS = "records.jsonl"
_SINGLE = ("iou", "miou", "dice", "precision", "recall", "accuracy")  # of the table
_OBJECT_SCORES = ("ap", "ap50", "ap75", "pq", "sq", "rq")  # of the table


def check_folder(output: Path) -> None:
    """Makes the folder, unless it holds files that no prediction has written.

    Args:
      output: Folder for the results.

    Raises:
      InputError: If the folder is another's, or cannot be made.
    """
    if output.is_dir():
        header = files.Journal.header_of(output / RECORDS)
        mine = isinstance(header, dict) and "fingerprint" in header
        if not mine and any(output.iterdir()):
            raise InputError(
                f"output: '{output}' is not empty and not of an earlier prediction;"
                " expected a new or empty folder"
            )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output: cannot make '{output}' ({error.strerror}); expected a folder"
        ) from None


def paths(
    output: Path, name: str, *, scores: bool, labels: str = ".png"
) -> dict[str, Path]:
    """Returns where the results of an image go.

    Args:
      output: Folder for the results.
      name: Name of the image.
      scores: Whether scores are written.
      labels: Ending of the label map, see `write_labels`.

    Returns:
      Paths by kind: "labels", "overlays" and, if they are written, "scores".
    """
    wanted = {"labels": labels, "overlays": ".png"} | (
        {"scores": ".tif"} if scores else {}
    )
    return {kind: output / kind / f"{name}{end}" for kind, end in wanted.items()}


def remove_stale(output: Path, *, keep: Iterable[str]) -> None:
    """Removes unfinished files, and results of images that changed or are gone.

    Args:
      output: Folder for the results.
      keep: Names of images whose results remain.
    """
    kept = set(keep)
    for path in output.rglob(files.UNFINISHED):
        path.unlink()
    for row in files.Journal.rows_of(output / RECORDS):
        if row["name"] not in kept:
            known = paths(
                output, row["name"], scores=True, labels=row.get("ending", ".png")
            )
            for path in known.values():
                path.unlink(missing_ok=True)


def write_labels(path: Path, labels: Integer[np.ndarray, "H W"]) -> str:
    """Writes a label map, or an instance map, which int32 marks.

    Args:
      path: Path of a PNG file. A map with ids above 65535 becomes a 32-bit TIFF file
        beside it, compressed by zlib.
      labels: uint8 class ids, or int32 numbers of objects, which are written as 16 bit.

    Returns:
      Ending of the file: ".png" or ".tif".

    Raises:
      OSError: If the file cannot be written.
    """
    if labels.dtype == np.uint8:
        files.write_png(path, labels)
        return ".png"
    if labels.max(initial=0) <= np.iinfo(np.uint16).max:
        files.write_png(path, labels.astype(np.uint16))
        return ".png"
    path = path.with_name(f"{path.name.removesuffix('.png')}.tif")
    draft = files.scratch(path)
    try:
        pixels = labels.astype(np.uint32)
        tifffile.imwrite(
            draft, pixels, photometric="minisblack", compression="zlib", metadata=None
        )
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return ".tif"


def columns(
    row: Mapping[str, Any], names: Sequence[str], measures: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns a row of predictions.csv.

    Args:
      row: Row of the journal.
      names: Names of the K classes.
      measures: Measures of the image, or None if it has no true labels.

    Returns:
      Values by heading.
    """
    total = row["height"] * row["width"]
    found = {name: row[name] for name in ("name", "height", "width")}
    found |= {f"pixels {n}": p for n, p in zip(names, row["pixels"], strict=True)}
    found |= {
        f"share {n}": p / total for n, p in zip(names, row["pixels"], strict=True)
    }
    found |= {f"objects {n}": p for n, p in zip(names[1:], row["objects"], strict=True)}
    found["seconds"] = row["seconds"]
    measures = measures or {}
    found |= {k: measures[k] for k in _SINGLE if k in measures}
    if "objects" in measures:
        objects = measures["objects"]
        found["true objects"] = objects["true_objects"]
        found["found objects"] = objects["predicted_objects"]
        found |= {k: objects[k] for k in _OBJECT_SCORES}
    return found


def csv_text(table: Sequence[Mapping[str, Any]]) -> str:
    """Returns predictions.csv.

    Args:
      table: Values by heading of each row. Headings may differ between rows.

    Returns:
      The text: absent values and NaN are empty, floats have six digits.
    """
    fields = list(dict.fromkeys(key for row in table for key in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(fields)
    for row in table:
        values = [row.get(field, "") for field in fields]
        values = ["" if value != value else value for value in values]  # NaN
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return out.getvalue()


def write_measures(
    output: Path,
    pooled: Mapping[str, Any] | None,
    each: Mapping[str, Any],
    *,
    decision_rule: str,
    labels: str,
) -> None:
    """Writes metrics.json, or removes that of an earlier job.

    Args:
      output: Folder for the results.
      pooled: Measures of all images with labels together; None if there are none.
      each: Measures of each image, by its name.
      decision_rule: Rule from scores to labels.
      labels: Origin of the true labels.
    """
    path = output / "metrics.json"
    if pooled is None:
        path.unlink(missing_ok=True)
        return
    facts = {
        "decision_rule": decision_rule,
        "labels": labels,
        "images": len(each),
        "pooled": _explained(pooled),
        "per_image": {name: _explained(found) for name, found in each.items()},
    }
    files.write_json(path, facts)


def _explained(measures: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the reasons of measures that become null."""
    reasons = prediction_labels.why_null(measures)
    return {**measures, **({"why_null": reasons} if reasons else {})}


def say(
    pooled: Mapping[str, Any] | None,
    bad: Sequence[tuple[str, str]],
    *,
    images: int,
    measured: int,
    rate: str,
    report: Path,
) -> None:
    """Prints bad files, measures, and where the page is.

    Args:
      pooled: Measures of all images with labels together; None if there are none.
      bad: Names and reasons of bad files.
      images: Number of predicted images.
      measured: Number of images with labels.
      rate: Images per second as text; empty if no image was left to predict.
      report: Path of the page.
    """
    for _, reason in bad:
        print(f"bad: {with_prefixes(reason)}", file=sys.stderr)
    if bad:
        print(f"bad files: {len(bad)}", file=sys.stderr)
    if pooled is not None:
        shown = ("iou", "miou", "dice", "accuracy")
        values = [f"{k} {pooled[k]:.4f}" for k in shown if k in pooled]
        labelled = count_of(measured, "image")
        print(f"{labelled} with labels: {'  '.join(values)}")
        if "objects" in pooled:
            print(_objects_line(pooled["objects"]))
    print(", ".join(part for part in (count_of(images, "image"), rate) if part))
    print(f"report: {report}")


def _objects_line(objects: Mapping[str, Any]) -> str:
    """Returns the scores of objects in a line."""
    shown = {"AP 0.5-0.95": "ap", "AP 0.5": "ap50", "AP 0.75": "ap75", "PQ": "pq"}
    values = [f"{name} {objects[key]:.4f}" for name, key in shown.items()]
    counts = f"{objects['true_objects']} true, {objects['predicted_objects']} found"
    return f"objects: {counts}  {'  '.join(values)}"
