"""Prediction of many images: read ahead, segmented, measured, written, shown.

Each finished image adds one row to OUTPUT/records.jsonl. A later job with the same
arguments skips images whose files are unchanged and whose results exist.
"""

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
from tqdm import tqdm

from metaseg import checks, files, prediction, report
from metaseg.data import collect, label_encoding
from metaseg.data import file_options as options_lib
from metaseg.data.collect import Item, Source
from metaseg.data.file_options import FileKeywords, FileOptions
from metaseg.data.label_files import StoredLabels
from metaseg.errors import InputError, escaped, prefixed
from metaseg.parallel import processes
from metaseg.runs import jax_settings, prediction_labels, prediction_output
from metaseg.text import count_of

__all__ = ["Predicted", "predict"]

VALUES = ("ids", "mask", "instances")
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
      stored: How true label maps are stored; None without any.
      files: How images are read.
      options: The arguments that results depend on.
    """

    predictor: prediction.Predictor
    decode: Callable[[np.ndarray], np.ndarray]
    partners: Mapping[str, Item]
    output: Path
    stored: StoredLabels | None
    files: FileOptions
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


@jax_settings.same_numbers()
def predict(
    run: str | os.PathLike[str] | prediction.Predictor,
    images: Source,
    output: str | os.PathLike[str],
    *,
    labels: Source | None = None,
    decision_rule: str = "analytic",
    values: str = "ids",
    scores: bool = False,
    tile: int | None = None,
    overlap: int | None = None,
    **files: Unpack[FileKeywords],
) -> Predicted:
    """Segments images and writes label maps, overlays, a table and a page.

    Args:
      run: Work folder of a run, or a loaded predictor. Of an unfinished run the newest
        weights are used.
      images: Folder, file or glob pattern; or a sequence of files; or arrays, see
        `data.collect.find`.
      output: Folder for the results: new, empty, or that of an earlier prediction,
        which is continued.
      labels: True label maps with the names of the images, to measure against.
      decision_rule: Rule from scores to labels: "analytic" (noise-aware), "argmax" or
        "validation".
      values: "ids" writes class ids, "mask" 0 and 255 for two classes, "instances"
        the number of each object, see `prediction.instance_ids`.
      scores: Whether to write the scores, as 32-bit TIFF files.
      tile: Side in pixels of what the network sees at once, or None.
      overlap: Overlap of tiles in pixels, or None.
      **files: How image and label files are read: fields of `FileOptions`. The channels
        of image files are by default those that the run was trained on.

    Returns:
      What was predicted.

    Raises:
      InputError: If an argument is wrong, no image can be predicted, or the output
        cannot be written.
    """
    processes.check_backend()
    checks.choice("values", values, VALUES)
    options = {
        "decision_rule": decision_rule,
        "values": values,
        "scores": scores,
        "tile": tile,
        "overlap": overlap,
    }
    file_options = options_lib.build(**files)
    label_encoding.check(file_options)
    folder = Path(output).expanduser()
    try:
        return _predict(run, images, folder, labels, file_options, options)
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
        return prediction.load(run), f" ({escaped(str(run))})"


def _predict(
    run: str | os.PathLike[str] | prediction.Predictor,
    images: Source,
    output: Path,
    labels: Source | None,
    file_options: FileOptions,
    options: Mapping[str, Any],
) -> Predicted:
    start = time.perf_counter()
    predictor, folder = _loaded(run)
    decode = prediction.decoder(predictor, options["decision_rule"])
    _check_values(options["values"], predictor)
    file_options = _with_classes(file_options, predictor)
    items = collect.find(
        images, field="images", exclude=output, options=file_options, say=print
    )
    if file_options.channels is None and items[0].path is not None:
        file_options = file_options._replace(channels=predictor.files.channels)
    partners, stored = {}, None
    if labels is not None:
        partners = collect.find_partners(
            labels,
            items,
            field="labels",
            beside=True,
            options=file_options,
            say=print,
        )
        stored = prediction_labels.recognise(
            list(partners.values()),
            file_options,
            _with_classes(prediction_labels.of_run(file_options, predictor), predictor),
            num_classes=predictor.num_classes,
        )
        file_options = stored.options
        print(stored.encoding.describe())
        options = {**options, "labels": repr(stored.encoding._replace(text=""))}
    prediction_output.check_folder(output)
    options = {**options, "files": repr(options_lib.changed(file_options))}
    task = _Task(predictor, decode, partners, output, stored, file_options, options)
    source = collect.described(images)
    weights = f"; weights: {predictor.weights}" if predictor.weights else ""
    print(
        f"{count_of(len(items), 'image')} at {source}"
        + (f", {len(partners)} with a label map" if labels is not None else "")
        + f"; run: {predictor.name}{weights}; decision rule: {options['decision_rule']}"
    )
    bad: list[tuple[str, str]] = []
    rows, rate = _predict_all(task, items, bad)
    if not rows:
        raise InputError(f"images: no image could be predicted; first: {bad[0][1]}")
    bad += [(row["name"], row["label_error"]) for row in rows if "label_error" in row]
    run = f"{predictor.name}{folder}{weights}"
    facts = {"images": source, "run": run, "rate": rate}
    where = None if labels is None else collect.described(labels)
    return _summarise(task, rows, bad, str(where), {**facts, "start": start})


def _with_classes(options: FileOptions, predictor: prediction.Predictor) -> FileOptions:
    """Lets instance maps have the classes of the run: with or without borders."""
    if options.instances and predictor.border is not None:
        return options._replace(instances="border")
    if options.instances == "border":
        raise InputError(
            "instances: got border, but the run has no class for borders; expected"
            " `instances=union`"
        )
    return options


def _check_values(values: str, predictor: prediction.Predictor) -> None:
    """Refuses values that the classes of the run do not have."""
    found = f"values: got {values}, but the run has {predictor.num_classes} classes;"
    if values == "mask" and predictor.num_classes != 2:
        raise InputError(f"{found} expected ids")
    if values == "instances" and not prediction.has_instances(predictor):
        raise InputError(
            f"{found} expected ids, or a run of two classes, or one that was trained"
            " with `instances=border`"
        )


def _summarise(
    task: _Task,
    rows: Sequence[Mapping[str, Any]],
    bad: list[tuple[str, str]],
    labels: str,
    facts: Mapping[str, Any],
) -> Predicted:
    """Writes the table, the measures and the page, and prints a summary."""
    rule, names = task.options["decision_rule"], task.predictor.class_names
    measured = [row for row in rows if "confusion" in row]
    each = {row["name"]: prediction_labels.measures([row]) for row in measured}
    pooled = prediction_labels.measures(measured) if measured else None
    table = [
        prediction_output.columns(row, names, each.get(row["name"])) for row in rows
    ]
    done = Predicted(task.output / "index.html", table, pooled, bad)
    prediction_output.write_measures(
        task.output, pooled, each, decision_rule=rule, labels=labels
    )
    text = prediction_output.csv_text(table)
    files.write_text(task.output / "predictions.csv", text)
    final = rule == "analytic" and task.predictor.final_threshold
    report.write_predictions(
        done.report,
        images=facts["images"],
        run=facts["run"],
        rule="own" if final else rule,
        aware=task.predictor.matrix is not None,
        class_names=names,
        rows=table,
        pooled=pooled,
        bad=bad,
        seconds=time.perf_counter() - facts["start"],
        rate=facts["rate"],
    )
    counts = {"images": len(table), "measured": len(measured)}
    prediction_output.say(pooled, bad, **counts, rate=facts["rate"], report=done.report)
    return done


def _predict_all(
    task: _Task, items: Sequence[Item], bad: list[tuple[str, str]]
) -> tuple[list[dict[str, Any]], str]:
    """Returns rows of all images, earlier ones too, and the rate; extends `bad`."""
    fingerprint = prediction.fingerprint(task.predictor)
    header = {"fingerprint": fingerprint, **task.options}
    journal = files.Journal(task.output / prediction_output.RECORDS, header)
    stamps = {item.name: _stamps(task, item) for item in items}
    rows: dict[str, dict[str, Any]] = {}
    for row in journal.earlier():
        paths = prediction_output.paths(
            task.output,
            row["name"],
            scores=task.options["scores"],
            labels=row.get("ending", ".png"),
        )
        there = all(path.is_file() for path in paths.values())
        if there and stamps.get(row["name"]) == row["stamp"]:
            rows[row["name"]] = row
        else:
            rows.pop(row["name"], None)
    prediction_output.remove_stale(task.output, keep=rows)
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


def _predicted(
    task: _Task,
    items: Sequence[Item],
    bad: list[tuple[str, str]],
    progress: PredictionProgress,
) -> Iterator[dict[str, Any]]:
    """Yields a row for each image once its files are written."""
    started: dict[int, tuple[Item, np.ndarray]] = {}  # by index of the image

    def images() -> Iterator[np.ndarray]:
        loaded = collect.stream(items, task.files)
        for item, (pixels, error) in zip(items, loaded, strict=True):
            if pixels is not None:
                try:
                    fitting = prediction.fit_channels(
                        pixels, task.predictor.channels, item.where
                    )
                except InputError as wrong:
                    error = str(wrong)
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
    paths = prediction_output.paths(
        task.output, item.name, scores=task.options["scores"]
    )
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
    numbered = cache(partial(prediction.instance_ids, task.predictor, labels))
    if item.name in task.partners and task.stored is not None:
        row |= prediction_labels.compared(
            labels,
            task.partners[item.name],
            K,
            task.stored,
            numbered if prediction.has_instances(task.predictor) else None,
        )
    files.write_png(paths["overlays"], report.overlay(pixels, labels, K))
    if task.options["values"] == "mask":
        labels *= 255
    elif task.options["values"] == "instances":
        labels = numbered()
    row["ending"] = prediction_output.write_labels(paths["labels"], labels)
    row["seconds"] = seconds + time.perf_counter() - began
    return row, next(rest, None)
