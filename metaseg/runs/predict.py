"""Prediction of many images: read ahead, segmented, measured, written, shown.

Each finished image adds one row to OUTPUT/records.jsonl. A later job with the same
arguments skips images whose files are unchanged and whose results exist.
"""

import contextlib
import csv
import io
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from tqdm import tqdm

from metaseg import checks, decoding, files, prediction, report
from metaseg.data import collect, image_files, label_files
from metaseg.data.collect import Item, Source
from metaseg.data.dataset import VOID
from metaseg.errors import InputError, prefixed

__all__ = ["Predicted", "predict"]

RECORDS = "records.jsonl"
VALUES = ("ids", "mask")
_SLAB = 1 << 22  # pixels that are compared with labels at a time
_LINE_EVERY = 10  # seconds between lines of progress if there is no terminal


class Predicted(NamedTuple):
    """Result of `predict`.

    Attributes:
      report: Path of index.html.
      rows: Rows of predictions.csv: name, sizes, areas, objects and measures.
      measures: `decoding.measure` of all images with labels together, or None.
      bad: `(name, what is wrong)` for each file that could not be used.
    """

    report: Path
    rows: list[dict[str, Any]]
    measures: dict[str, Any] | None
    bad: list[tuple[str, str]]


class _Task(NamedTuple):
    """What the prediction of each image needs; see `predict`.

    Attributes:
      predictor: The network.
      decode: Function from scores to labels.
      partners: True label maps by the names of the images.
      output: Folder for the results.
      label_values: Class ids by stored value, or None.
      options: The arguments that results depend on.
    """

    predictor: prediction.Predictor
    decode: Callable[[np.ndarray], np.ndarray]
    partners: Mapping[str, Item]
    output: Path
    label_values: Mapping[int, int] | None
    options: Mapping[str, Any]


class PredictionProgress:
    """A bar on a terminal; elsewhere a line every ten seconds."""

    def __init__(self, total: int, done: int) -> None:
        self._bar = tqdm(
            desc="predicting", total=total, initial=done, unit="img", disable=None
        )
        self._total, self._before, self._done = total, done, done
        self._start = self._said = time.perf_counter()
        self._pixels = 0

    def rate(self) -> str:
        """Returns images and megapixels per second; empty if no image was computed."""
        if self._pixels == 0:
            return ""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        images, mega = (self._done - self._before) / seconds, self._pixels / seconds
        return f"{images:.3g} images/s, {mega / 1e6:.3g} megapixels/s"

    def pixels(self, count: int) -> None:
        """Counts segmented pixels."""
        self._pixels += count
        now = time.perf_counter()
        if self._bar.disable and now - self._said > _LINE_EVERY:
            self._said = now
            line = f"{self._done}/{self._total} images, {self.rate()}"
            print(line, file=sys.stderr, flush=True)
        elif not self._bar.disable:
            mega = self._pixels / 1e6 / (now - self._start)
            self._bar.set_postfix_str(f"{mega:.3g} megapixels/s")

    def image(self) -> None:
        """Counts an image, finished or bad."""
        self._done += 1
        self._bar.update()

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def predict(
    run: str | os.PathLike[str] | prediction.Predictor,
    images: Source,
    output: str | os.PathLike[str],
    *,
    labels: Source | None = None,
    label_values: Mapping[int, int] | None = None,
    decision_rule: str = "analytic",
    values: str = "ids",
    scores: bool = False,
    channel: int | None = None,
    tile: int | None = None,
    overlap: int | None = None,
) -> Predicted:
    """Segments images and writes label maps, overlays, a table and a page.

    Args:
      run: Work folder of a finished run, or a loaded predictor.
      images: Folder, file or glob pattern; or a sequence of files; or arrays, see
        `data.collect.find`.
      output: Folder for the results: new, empty, or that of an earlier prediction,
        which is continued.
      labels: True label maps with the names of the images, to measure against.
      label_values: Class ids of stored values of `labels` that are not class ids; 255
        is void.
      decision_rule: Rule from scores to labels: "analytic" (noise-aware), "argmax" or
        "validation".
      values: "ids" writes class ids, "mask" 0 and 255 for two classes.
      scores: Whether to write the scores, as 32-bit TIFF files.
      channel: Channel of each image to use, or None for all.
      tile: Side in pixels of what the network sees at once, or None.
      overlap: Overlap of tiles in pixels, or None.

    Returns:
      What was predicted.

    Raises:
      InputError: If an argument is wrong, no image can be predicted, or the output
        cannot be written.
    """
    checks.choice("values", values, VALUES)
    options = {
        "decision_rule": decision_rule,
        "values": values,
        "scores": scores,
        "channel": channel,
        "tile": tile,
        "overlap": overlap,
        "label_values": sorted((label_values or {}).items()),
    }
    folder = Path(output)
    try:
        return _predict(run, images, folder, labels, label_values, options)
    except OSError as error:  # errors of images are listed, so this is the output
        raise InputError(
            f"output: cannot write '{error.filename or output}' ({error.strerror});"
            " finished images are kept, run again to continue"
        ) from error


def _loaded(
    run: str | os.PathLike[str] | prediction.Predictor,
) -> tuple[prediction.Predictor, str]:
    """Returns a predictor, and its folder for messages."""
    if isinstance(run, prediction.Predictor):
        return run, ""
    with prefixed("run: "):
        return prediction.load(run), f" ({run})"


def _predict(
    run: str | os.PathLike[str] | prediction.Predictor,
    images: Source,
    output: Path,
    labels: Source | None,
    label_values: Mapping[int, int] | None,
    options: Mapping[str, Any],
) -> Predicted:
    start = time.perf_counter()
    predictor, folder = _loaded(run)
    decode = prediction.decoder(predictor, options["decision_rule"])
    if options["values"] == "mask" and predictor.num_classes != 2:
        raise InputError(
            f"values: got mask, but the run has {predictor.num_classes} classes;"
            " expected ids"
        )
    items = collect.find(images, field="images", exclude=output)
    _check_output(output)
    partners = {}
    if labels is not None:
        partners = collect.find_partners(labels, items, field="labels")
    task = _Task(predictor, decode, partners, output, label_values, options)
    source = _described(images, items)
    print(
        f"{len(items)} images at {source}"
        + (f", {len(partners)} with a label map" if labels is not None else "")
        + f"; run: {predictor.name}; decision rule: {options['decision_rule']}"
    )
    bad: list[tuple[str, str]] = []
    rows, rate = _predict_all(task, items, bad)
    if not rows:
        raise InputError(f"images: no image could be predicted; first: {bad[0][1]}")
    bad += [(row["name"], row["label_error"]) for row in rows if "label_error" in row]
    measured = [row for row in rows if "confusion" in row]
    each = {row["name"]: _measures([row]) for row in measured}
    pooled = _measures(measured) if measured else None
    table = [
        _columns(row, predictor.class_names, each.get(row["name"])) for row in rows
    ]
    done = Predicted(output / "index.html", table, pooled, bad)
    _write_measures(task, str(labels), done, each)
    files.write_text(output / "predictions.csv", _csv(table))
    final = options["decision_rule"] == "analytic" and predictor.final_threshold
    report.write_predictions(
        done.report,
        images=source,
        run=f"{predictor.name}{folder}",
        rule="own" if final else options["decision_rule"],
        aware=predictor.matrix is not None,
        class_names=predictor.class_names,
        rows=table,
        pooled=pooled,
        bad=bad,
        seconds=time.perf_counter() - start,
        rate=rate,
    )
    _say(done, len(measured), rate)
    return done


def _described(images: Source, items: Sequence[Item]) -> str:
    """Returns where the images come from, for messages and the page."""
    if isinstance(images, str | os.PathLike):
        return os.fspath(images)
    return "a list of files" if items[0].pixels is None else "arrays"


def _check_output(output: Path) -> None:
    """Makes the folder, unless it holds files that no prediction has written."""
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


def _paths(output: Path, name: str, scores: bool) -> dict[str, Path]:
    """Returns where the results of an image go."""
    wanted = {"labels": ".png", "overlays": ".png"} | (
        {"scores": ".tif"} if scores else {}
    )
    return {kind: output / kind / f"{name}{end}" for kind, end in wanted.items()}


def _predict_all(
    task: _Task, items: Sequence[Item], bad: list[tuple[str, str]]
) -> tuple[list[dict[str, Any]], str]:
    """Returns rows of all images, earlier ones too, and the rate; extends `bad`."""
    fingerprint = prediction.fingerprint(task.predictor)
    header = {"fingerprint": fingerprint, **task.options}
    journal = files.Journal(task.output / RECORDS, header)
    stamps = {item.name: _stamps(task, item) for item in items}
    rows: dict[str, dict[str, Any]] = {}
    for row in journal.earlier():
        paths = _paths(task.output, row["name"], task.options["scores"])
        there = all(path.is_file() for path in paths.values())
        if there and stamps.get(row["name"]) == row["stamp"]:
            rows[row["name"]] = row
        else:
            rows.pop(row["name"], None)
    _remove_stale(task.output, keep=set(rows))
    todo = [item for item in items if item.name not in rows]
    if rows:
        print(f"{len(rows)} of them finished by an earlier run")
    progress = PredictionProgress(len(items), len(rows))
    with journal:
        journal.begin(rows.values())
        for row in _predicted(task, todo, bad, progress):
            row["stamp"] = stamps[row["name"]]
            journal.append(row)
            rows[row["name"]] = row
    progress.close()
    return [rows[item.name] for item in items if item.name in rows], progress.rate()


def _stamps(task: _Task, item: Item) -> list[Any]:
    label = task.partners.get(item.name)
    return [list(item.stamp), list(label.stamp) if label else None]


def _remove_stale(output: Path, keep: set[str]) -> None:
    """Removes unfinished files, and results of images that changed or are gone."""
    for path in output.rglob(files.UNFINISHED):
        path.unlink()
    for row in files.Journal.rows_of(output / RECORDS):
        if row["name"] not in keep:
            for path in _paths(output, row["name"], scores=True).values():
                path.unlink(missing_ok=True)


def _predicted(
    task: _Task,
    items: Sequence[Item],
    bad: list[tuple[str, str]],
    progress: PredictionProgress,
) -> Iterator[dict[str, Any]]:
    """Yields a row for each image once its files are written."""
    started: dict[int, tuple[Item, np.ndarray]] = {}  # by index of the image

    def images() -> Iterator[np.ndarray]:
        loaded = collect.stream(items, task.options["channel"])
        for item, (pixels, error) in zip(items, loaded, strict=True):
            if pixels is not None:
                try:
                    fitting = prediction.fit_channels(
                        pixels, task.predictor.channels, item.where
                    )
                except InputError as wrong:
                    error = f"{wrong} (channel picks one)"
                else:
                    started[next(number)] = item, pixels
                    yield fitting
                    continue
            bad.append((item.name, error))
            progress.image()

    number = itertools.count()
    scored = prediction.strips(
        task.predictor,
        images(),
        tile=task.options["tile"],
        overlap=task.options["overlap"],
    )
    first = next(scored, None)
    while first is not None:
        item, pixels = started.pop(first.image)
        row, first = _one(task, item, pixels, first, scored, progress)
        progress.image()
        yield row


def _one(
    task: _Task,
    item: Item,
    pixels: np.ndarray,
    strip: prediction.Strip,
    rest: Iterator[prediction.Strip],
    progress: PredictionProgress,
) -> tuple[dict[str, Any], prediction.Strip | None]:
    """Takes the strips of one image; returns its row and the next image's strip."""
    K = task.predictor.num_classes
    height, width = pixels.shape[:2]
    paths = _paths(task.output, item.name, task.options["scores"])
    labels = np.empty((height, width), np.uint8)
    objects, counts, seconds = prediction.no_objects(K), np.zeros(K, np.int64), 0.0
    with contextlib.ExitStack() as stack:
        score_file = None
        if "scores" in paths:
            planes = strip.scores.shape[-1]
            score_file = stack.enter_context(
                prediction.ScoreFile(paths["scores"], planes, height, width)
            )
        while True:
            began = time.perf_counter()
            part = task.decode(strip.scores)
            labels[strip.start : strip.start + len(part)] = part
            counts += np.bincount(part.ravel(), minlength=K)
            objects = prediction.add_strip(objects, part)
            if score_file is not None:
                score_file.write(strip.start, strip.scores)
            progress.pixels(part.size)
            seconds += strip.seconds + time.perf_counter() - began
            if strip.last:
                break
            strip = next(rest)
        began = time.perf_counter()
        if score_file is not None:
            score_file.finish()
    row: dict[str, Any] = {"name": item.name, "height": height, "width": width}
    row |= {"pixels": counts.tolist(), "objects": objects.counts.tolist()}
    if item.name in task.partners:
        row |= _compared(labels, task.partners[item.name], K, task.label_values)
    files.write_png(paths["overlays"], report.overlay(pixels, labels, K))
    if task.options["values"] == "mask":
        labels *= 255
    files.write_png(paths["labels"], labels)
    row["seconds"] = seconds + time.perf_counter() - began
    return row, next(rest, None)


def _compared(
    labels: np.ndarray,
    truth: Item,
    num_classes: int,
    values: Mapping[int, int] | None,
) -> dict[str, Any]:
    """Returns the confusion matrix, or what is wrong with the label map."""
    try:
        true = _true_labels(truth, num_classes, values)
    except InputError as error:
        return {"label_error": str(error)}
    if true.shape != labels.shape:
        (height, width), expected = true.shape, labels.shape
        return {
            "label_error": f"{truth.where}: {height} x {width}, expected"
            f" {expected[0]} x {expected[1]} as its image"
        }
    return {"confusion": confusion(labels, true, num_classes).tolist()}


def _true_labels(
    truth: Item, num_classes: int, values: Mapping[int, int] | None
) -> np.ndarray:
    """Returns uint8 `[H, W]` class ids, 255 for void, of stored values."""
    stored = label_files.read_values(truth)
    if values is None:
        found = image_files.class_ids(stored, num_classes, where=truth.where)
        # Two classes may be stored as 0 and 255.
        return (found > 0).astype(np.uint8) if num_classes == 2 else found
    found = np.full(stored.shape, VOID, np.uint8)
    known = np.zeros(stored.shape, bool)
    ids = {i: i for i in range(num_classes)} | {VOID: VOID} | dict(values)
    for value, class_id in ids.items():
        same = stored == value
        found[same] = class_id
        known |= same
    if not known.all():
        wrong = ", ".join(map(str, np.unique(stored[~known])[:5]))
        raise InputError(
            f"{truth.where}: stored value {wrong} in {np.count_nonzero(~known)}"
            f" pixels; expected 0 to {num_classes - 1}, 255, or those of label_values"
        )
    return found


def confusion(
    labels: UInt8[np.ndarray, "H W"], true: UInt8[np.ndarray, "H W"], num_classes: int
) -> Int64[np.ndarray, "K K"]:
    """Computes `metrics.confusion_matrix` on the host, a few rows at a time.

    Args:
      labels: Predicted class ids, uint8 `[H, W]`.
      true: True class ids, uint8 `[H, W]`; ids of K and more are not counted.
      num_classes: Number of classes K.

    Returns:
      int64 `[K, K]`.
    """
    cells = np.zeros(num_classes**2, np.int64)
    rows = max(1, _SLAB // labels.shape[1])
    for start in range(0, len(labels), rows):
        guess, truth = labels[start : start + rows], true[start : start + rows]
        known = truth < num_classes
        cell = truth[known].astype(np.int64) * num_classes + guess[known]
        cells += np.bincount(cell, minlength=len(cells))
    return cells.reshape(num_classes, num_classes)


def _write_measures(
    task: _Task, labels: str, done: Predicted, each: Mapping[str, Any]
) -> None:
    """Writes metrics.json, or removes that of an earlier job."""
    path = task.output / "metrics.json"
    if done.measures is None:
        path.unlink(missing_ok=True)
        return
    facts = {
        "decision_rule": task.options["decision_rule"],
        "labels": labels,
        "images": len(each),
        "pooled": done.measures,
        "per_image": each,
    }
    files.write_json(path, facts)


def _say(done: Predicted, measured: int, rate: str) -> None:
    """Prints bad files, measures, and where the page is."""
    for _, reason in done.bad:
        print(f"bad: {reason}", file=sys.stderr)
    if done.bad:
        print(f"bad files: {len(done.bad)}", file=sys.stderr)
    if done.measures is not None:
        shown = ("iou", "miou", "dice", "accuracy")
        values = [f"{k} {done.measures[k]:.4f}" for k in shown if k in done.measures]
        print(f"{measured} images with labels: {'  '.join(values)}")
    print(", ".join(part for part in (f"{len(done.rows)} images", rate) if part))
    print(f"report: {done.report}")


def _measures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return decoding.measure(np.array([row["confusion"] for row in rows]))


def _columns(
    row: Mapping[str, Any], names: Sequence[str], measures: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns a row of predictions.csv."""
    total = row["height"] * row["width"]
    columns = {name: row[name] for name in ("name", "height", "width")}
    columns |= {f"pixels {n}": p for n, p in zip(names, row["pixels"], strict=True)}
    columns |= {
        f"share {n}": p / total for n, p in zip(names, row["pixels"], strict=True)
    }
    columns |= {
        f"objects {n}": p for n, p in zip(names[1:], row["objects"], strict=True)
    }
    columns["seconds"] = row["seconds"]
    single = ("iou", "miou", "dice", "precision", "recall", "accuracy")
    return columns | {k: measures[k] for k in single if measures and k in measures}


def _csv(table: Sequence[Mapping[str, Any]]) -> str:
    fields = list(dict.fromkeys(key for row in table for key in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(fields)
    for row in table:
        values = [row.get(field, "") for field in fields]
        values = ["" if value != value else value for value in values]  # NaN
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return out.getvalue()
