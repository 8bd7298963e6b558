"""Prediction of many images: read ahead, segmented, measured, written, shown.

Every finished image leaves one line in OUTPUT/records.jsonl, by which a second run goes
on: images whose file is unchanged and whose results are there are not read again.
"""

import csv
import io
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from tqdm import tqdm

from metaseg import decoding, files, prediction, report
from metaseg.data import collect, image_files
from metaseg.data.collect import Job
from metaseg.data.dataset import VOID
from metaseg.errors import InputError

__all__ = ["Settings", "run"]

RECORDS = "records.jsonl"
_SLAB = 1 << 22  # pixels compared with labels at a time
_LINE_EVERY = 10  # seconds between lines of progress where there is no terminal


class Settings(NamedTuple):
    """What the command line says.

    Attributes:
      run: work folder of the run.
      images: folder, file or pattern.
      output: folder for the results.
      labels: folder of true label maps, or None.
      reading: "analytic", "argmax" or "validation".
      values: "ids" or "mask".
      scores: whether to write scores.
      channel: of the images, or None.
      tile: pixels a side, or None.
      overlap: pixels, or None.
      label_values: class ids of stored values of `labels`, or None.
    """

    run: Path
    images: str
    output: Path
    labels: Path | None = None
    reading: str = "analytic"
    values: str = "ids"
    scores: bool = False
    channel: int | None = None
    tile: int | None = None
    overlap: int | None = None
    label_values: Mapping[int, int] | None = None


class Task(NamedTuple):
    """What the prediction of each image needs.

    Attributes:
      settings: of the command line.
      run: the network.
      read: scores to labels.
      labels: true label maps by name of the image.
    """

    settings: Settings
    run: prediction.Run
    read: Callable[[np.ndarray], np.ndarray]
    labels: Mapping[str, Job]


class Progress:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self, total: int, done: int) -> None:
        self._bar = tqdm(
            desc="predicting", total=total, initial=done, unit="img", disable=None
        )
        self._total, self._before, self._done = total, done, done
        self._start = self._said = time.perf_counter()
        self._pixels = 0

    def rate(self) -> str:
        """Images and megapixels a second, or nothing if there were none."""
        if self._pixels == 0:
            return ""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        images, mega = (self._done - self._before) / seconds, self._pixels / seconds
        return f"{images:.3g} images/s, {mega / 1e6:.3g} megapixels/s"

    def pixels(self, count: int) -> None:
        """Counts what has been segmented."""
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


def run(settings: Settings) -> int:
    """Predicts.

    Returns:
      0, or 1 if some files were bad.

    Raises:
      InputError: wrong run, folders or flags; nothing could be predicted; the output
        could not be written.
    """
    try:
        return _run(settings)
    except OSError as error:  # bad images are listed, so this is the output
        raise InputError(
            f"--output: cannot write '{error.filename or settings.output}' "
            f"({error.strerror}); what is finished is kept, run again to go on"
        ) from error


def _run(settings: Settings) -> int:
    start = time.perf_counter()
    network = prediction.load(settings.run)
    try:
        read = prediction.decision_rule(network, settings.reading)
    except InputError as error:
        reason = str(error).removeprefix("rule: ")
        raise InputError(f"--reading: {reason}") from None
    if settings.values == "mask" and network.num_classes != 2:
        raise InputError(
            f"--values: got mask, but the run has {network.num_classes} classes;"
            " expected ids"
        )
    jobs, bad = collect.find(settings.images, settings.output)
    _check_output(settings.output)
    labels = {}
    if settings.labels is not None and jobs:
        labels = collect.find_labels(settings.labels, jobs)
    task = Task(settings, network, read, labels)
    print(
        f"{len(jobs)} images at {settings.images}"
        + (f", {len(labels)} with a label map" if settings.labels else "")
        + f"; run: {network.name}; reading: {settings.reading}"
    )
    rows, said = _predict_all(task, jobs, bad)
    if not rows:
        raise InputError(f"--images: no image could be predicted; first: {bad[0][1]}")
    bad += [(row["name"], row["label_error"]) for row in rows if "label_error" in row]
    _finish(task, rows, bad, said, time.perf_counter() - start)
    return int(bool(bad))


def _check_output(output: Path) -> None:
    """Makes the folder, unless it holds what no prediction has written."""
    if output.is_dir():
        try:
            with (output / RECORDS).open(encoding="utf-8") as lines:
                mine = "fingerprint" in json.loads(next(lines, "null"))
        except (OSError, ValueError, TypeError):
            mine = False
        if not mine and any(output.iterdir()):
            raise InputError(
                f"--output: '{output}' is not empty and not of an earlier prediction;"
                " expected a new or empty folder"
            )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output: cannot make '{output}' ({error.strerror}); expected a folder"
        ) from None


def _paths(settings: Settings, name: str) -> dict[str, Path]:
    """Where the results of an image go."""
    wanted = {"labels": ".png", "overlays": ".png"}
    if settings.scores:
        wanted["scores"] = ".tif"
    return {
        kind: settings.output / kind / f"{name}{ending}"
        for kind, ending in wanted.items()
    }


def _predict_all(
    task: Task, jobs: Sequence[Job], bad: list[tuple[str, str]]
) -> tuple[list[dict[str, Any]], str]:
    """Rows of all images, earlier ones included, and the rate; extends `bad`."""
    settings = task.settings
    records = settings.output / RECORDS
    header = _header(task)
    stamps = {job.name: _stamps(task, job) for job in jobs}
    rows: dict[str, dict[str, Any]] = {}
    for row in _earlier(records, header):
        there = all(path.is_file() for path in _paths(settings, row["name"]).values())
        if there and stamps.get(row["name"]) == row["stamp"]:
            rows[row["name"]] = row
        else:
            rows.pop(row["name"], None)
    _remove_stale(settings, records, keep=set(rows))
    _start_over(records, header, rows.values())
    todo = [job for job in jobs if job.name not in rows]
    if rows:
        print(f"{len(rows)} of them finished by an earlier run")
    progress = Progress(len(jobs), len(rows))
    with records.open("a", encoding="utf-8") as out:
        for row in _predicted(task, todo, bad, progress):
            row["stamp"] = stamps[row["name"]]
            _write_line(out, row)
            rows[row["name"]] = row
    progress.close()
    return [rows[job.name] for job in jobs if job.name in rows], progress.rate()


def _header(task: Task) -> dict[str, Any]:
    """What the results of an image depend on, but the image."""
    settings = task.settings
    return {
        "fingerprint": prediction.fingerprint(task.run),
        **{
            field: getattr(settings, field)
            for field in ("reading", "values", "scores", "channel", "tile", "overlap")
        },
        "label_values": sorted((settings.label_values or {}).items()),
    }


def _stamps(task: Task, job: Job) -> list[Any]:
    label = task.labels.get(job.name)
    return [list(job.stamp), list(label.stamp) if label else None]


def _earlier(path: Path, header: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Rows of an earlier run, of the same settings if a header is given."""
    try:
        with path.open(encoding="utf-8") as lines:
            first = json.loads(next(lines, "null"))
            if header is None or first == json.loads(json.dumps(header)):
                yield from map(json.loads, lines)
    except (OSError, json.JSONDecodeError):  # a line cut short is the last
        return


def _remove_stale(settings: Settings, records: Path, keep: set[str]) -> None:
    """Removes what earlier runs wrote of images that are to be done anew, or gone."""
    for path in settings.output.rglob(files.UNFINISHED):
        path.unlink()
    with_scores = settings._replace(scores=True)
    for row in _earlier(records, None):
        if row["name"] not in keep:
            for path in _paths(with_scores, row["name"]).values():
                path.unlink(missing_ok=True)


def _start_over(
    path: Path, header: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Leaves a file of whole lines only, that lines can be added to."""
    lines = [json.dumps(each) + "\n" for each in (header, *rows)]
    files.write_text(path, "".join(lines))


def _write_line(out: TextIO, row: Mapping[str, Any]) -> None:
    out.write(json.dumps(row) + "\n")
    out.flush()


def _predicted(
    task: Task, jobs: Sequence[Job], bad: list[tuple[str, str]], progress: Progress
) -> Iterator[dict[str, Any]]:
    """A row for each image, once its files are written."""
    settings = task.settings
    open_: dict[int, tuple[Job, np.ndarray]] = {}  # in work, by index of the image

    def images() -> Iterator[np.ndarray]:
        loaded = collect.stream(jobs, settings.channel)
        for job, (pixels, error) in zip(jobs, loaded, strict=True):
            if pixels is not None:
                try:
                    fitting = prediction.fit_channels(
                        pixels, task.run.channels, str(job.path)
                    )
                except InputError as wrong:
                    error = f"{wrong} (--channel picks one)"
                else:
                    open_[next(number)] = job, pixels
                    yield fitting
                    continue
            bad.append((job.name, error))
            progress.image()

    number = itertools.count()
    scored = prediction.strips(
        task.run, images(), tile=settings.tile, overlap=settings.overlap
    )
    try:
        first = next(scored, None)
    except InputError as error:
        raise InputError(f"--{error}") from None
    while first is not None:
        job, pixels = open_.pop(first.image)
        row, first = _one(task, job, pixels, first, scored, progress)
        progress.image()
        yield row


def _one(
    task: Task,
    job: Job,
    pixels: np.ndarray,
    strip: prediction.Strip,
    rest: Iterator[prediction.Strip],
    progress: Progress,
) -> tuple[dict[str, Any], prediction.Strip | None]:
    """Takes the strips of one image; its row, and the first strip of the next."""
    settings, K = task.settings, task.run.num_classes
    height, width = pixels.shape[:2]
    paths = _paths(settings, job.name)
    labels = np.empty((height, width), np.uint8)
    objects, counts, seconds = prediction.no_objects(K), np.zeros(K, np.int64), 0.0
    scores = None
    if settings.scores:
        scores = collect.ScoreFile(
            paths["scores"], strip.scores.shape[-1], height, width
        )
    while True:
        began = time.perf_counter()
        part = task.read(strip.scores)
        labels[strip.start : strip.start + len(part)] = part
        counts += np.bincount(part.ravel(), minlength=K)
        objects = prediction.add_strip(objects, part)
        if scores is not None:
            scores.write(strip.start, strip.scores)
        progress.pixels(part.size)
        seconds += strip.seconds + time.perf_counter() - began
        if strip.last:
            break
        strip = next(rest)
    began = time.perf_counter()
    row: dict[str, Any] = {"name": job.name, "height": height, "width": width}
    row |= {"pixels": counts.tolist(), "objects": objects.counts.tolist()}
    if job.name in task.labels:
        row |= _compared(labels, task.labels[job.name], K, settings.label_values)
    if scores is not None:
        scores.close()
    overlay = report.overlay(pixels, labels, K)
    files.write_png(paths["overlays"], overlay)
    if settings.values == "mask":
        labels *= 255
    files.write_png(paths["labels"], labels)
    row["seconds"] = seconds + time.perf_counter() - began
    return row, next(rest, None)


def _compared(
    labels: np.ndarray,
    truth: Job,
    num_classes: int,
    values: Mapping[int, int] | None,
) -> dict[str, Any]:
    """The confusion matrix, or what is wrong with the label map."""
    try:
        true = _true_labels(truth, num_classes, values)
    except InputError as error:
        return {"label_error": str(error)}
    if true.shape != labels.shape:
        (height, width), expected = true.shape, labels.shape
        return {
            "label_error": f"{truth.path}: {height} x {width}, expected {expected[0]} x"
            f" {expected[1]} as its image"
        }
    return {"confusion": confusion(labels, true, num_classes).tolist()}


def _true_labels(
    truth: Job, num_classes: int, values: Mapping[int, int] | None
) -> np.ndarray:
    """uint8 `[H, W]` class ids, 255 void, of what the file holds."""
    if values is None:
        found = image_files.read_label(truth.path, num_classes, page=truth.page)
        # With two classes the foreground may be stored as 255.
        return (found > 0).astype(np.uint8) if num_classes == 2 else found
    stored = image_files.read_label_values(truth.path, page=truth.page)
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
            f"{truth.path}: stored value {wrong} in {np.count_nonzero(~known)} pixels; "
            f"expected 0 to {num_classes - 1}, 255, or those of --label_values"
        )
    return found


def confusion(labels: np.ndarray, true: np.ndarray, num_classes: int) -> np.ndarray:
    """`metrics.confusion_matrix` on the host, in slabs: int64 `[K, K]`.

    Args:
      labels: uint8 `[H, W]`, predicted class ids.
      true: uint8 `[H, W]`, true class ids; others do not count.
      num_classes: K.
    """
    cells = np.zeros(num_classes**2, np.int64)
    rows = max(1, _SLAB // labels.shape[1])
    for start in range(0, len(labels), rows):
        guess, truth = labels[start : start + rows], true[start : start + rows]
        known = truth < num_classes
        cell = truth[known].astype(np.int64) * num_classes + guess[known]
        cells += np.bincount(cell, minlength=len(cells))
    return cells.reshape(num_classes, num_classes)


def _finish(
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    bad: Sequence[tuple[str, str]],
    rate: str,
    seconds: float,
) -> None:
    """Writes what sums the images up, and says where it is."""
    settings, names = task.settings, task.run.class_names
    measured = [row for row in rows if "confusion" in row]
    each = {row["name"]: _measures([row]) for row in measured}
    pooled = _measures(measured) if measured else None
    table = [_columns(row, names, each.get(row["name"])) for row in rows]
    if pooled is not None:
        files.write_json(
            settings.output / "metrics.json",
            {
                "reading": settings.reading,
                "labels": str(settings.labels),
                "images": len(measured),
                "pooled": pooled,
                "per_image": each,
            },
        )
    else:
        (settings.output / "metrics.json").unlink(missing_ok=True)
    files.write_text(settings.output / "predictions.csv", _csv(table))
    html = settings.output / "index.html"
    own = settings.reading == "analytic" and task.run.own is not None
    report.write_predictions(
        html,
        images=settings.images,
        run=f"{task.run.name} ({settings.run})",
        rule="own" if own else settings.reading,
        aware=task.run.matrix is not None,
        class_names=names,
        rows=table,
        pooled=pooled,
        bad=bad,
        seconds=seconds,
        rate=rate,
    )
    for _, reason in bad:
        print(f"bad: {reason}", file=sys.stderr)
    if bad:
        print(f"bad files: {len(bad)}", file=sys.stderr)
    if pooled is not None:
        shown = ("iou", "miou", "dice", "accuracy")
        values = [f"{k} {pooled[k]:.4f}" for k in shown if k in pooled]
        print(f"{len(measured)} images with labels: {'  '.join(values)}")
    print(", ".join(part for part in (f"{len(rows)} images", rate) if part))
    print(f"report: {html}")


def _measures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return decoding.measure(np.array([row["confusion"] for row in rows]))


def _columns(
    row: Mapping[str, Any], names: Sequence[str], measures: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A row of predictions.csv."""
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
