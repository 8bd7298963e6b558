"""The audit of a folder of label maps: read, measured one by one, summed up, written.

Every measured map leaves one line in OUTPUT/records.jsonl, by which a second run goes
on: maps whose file is unchanged are not read again.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from metaseg import audit, files, report
from metaseg.data import image_files, label_files
from metaseg.data.label_files import LabelFile
from metaseg.errors import InputError

__all__ = ["Settings", "run"]

RECORDS = "records.jsonl"
GRID = (16, 16)  # cells of the density by place in the image
SHOWN = 24  # label maps shown as pictures


class Settings(NamedTuple):
    """What the command line says.

    Attributes:
      labels: folder of label maps.
      reference: folder of references, or None.
      images: folder of images, or None.
      output: folder for the results.
      num_classes: K, or 0 to find it out.
      class_names: K names, or none.
      workers: processes that read files.
      seed: of the bootstrap.
    """

    labels: Path
    reference: Path | None
    images: Path | None
    output: Path
    num_classes: int
    class_names: tuple[str, ...]
    workers: int
    seed: int


class Record(NamedTuple):
    """What is kept of one map.

    Attributes:
      file: where it came from.
      map: measures without a reference.
      position: pixels of each class in each cell, int64 `[16, 16, K]`.
      joint: pixels of each (reference, label) pair, int64 `[K, K]`, or None.
      split: kinds of its disagreement, or None.
    """

    file: LabelFile
    map: audit.LabelMap
    position: np.ndarray
    joint: np.ndarray | None
    split: audit.ErrorKinds | None


class Gathered(NamedTuple):
    """What the whole set left.

    Attributes:
      records: of each map, in the order of the files.
      pair: sums over all maps with a reference, or None.
      position: sum over all maps.
      bad: names of files that could not be used, and why.
    """

    records: list[Record]
    pair: audit.Comparison | None
    position: np.ndarray
    bad: list[tuple[str, str]]


def run(settings: Settings) -> int:
    """Audits a folder.

    Returns:
      0, or 1 if some files were bad.

    Raises:
      InputError: wrong folders or fields; no map could be read.
    """
    maps = label_files.find(settings.labels, "--labels")
    references = _references(settings, maps)
    stored = label_files.encoding(maps, settings.num_classes)
    known = [file for file in references if file is not None]
    reference_stored = None
    if known:
        reference_stored = label_files.encoding(known, settings.num_classes)
        num_classes = max(stored.num_classes, reference_stored.num_classes)
        stored = stored._replace(num_classes=num_classes)
        reference_stored = reference_stored._replace(num_classes=num_classes)
    names = _class_names(settings, stored.num_classes)
    pictures = _images(settings, maps)
    _check_output(settings.output)
    print(
        f"{len(maps)} label maps in {settings.labels}, {len(known)} with a reference; "
        f"{stored.num_classes} classes"
        + (", 255 is foreground" if stored.foreground == 255 else "")
    )
    gathered = _gather(settings, maps, references, stored, reference_stored)
    if not gathered.records:
        name, reason = gathered.bad[0]
        raise InputError(f"--labels: no map could be read; the first: {reason or name}")
    summary = _summary(settings, gathered, names)
    rows = _rows(gathered.records, summary)
    files.write_json(settings.output / "audit.json", summary)
    _write_csv(settings.output / "audit.csv", rows, names)
    html = settings.output / "audit.html"
    report.write_audit(
        html,
        summary=summary,
        rows=rows,
        thumbnails=_thumbnails(
            rows, gathered.records, references, stored, reference_stored, pictures
        ),
    )
    _say(summary, html)
    return int(bool(gathered.bad))


def _references(
    settings: Settings, files: Sequence[LabelFile]
) -> list[LabelFile | None]:
    if settings.reference is None:
        return [None] * len(files)
    by_name = {
        file.name: file for file in label_files.find(settings.reference, "--reference")
    }
    matched = [by_name.get(file.name) for file in files]
    if not any(matched):
        raise InputError(
            f"--reference: no name in '{settings.reference}' is one of "
            f"'{settings.labels}', expected some like '{files[0].name}'"
        )
    return matched


def _images(settings: Settings, files: Sequence[LabelFile]) -> dict[str, Path]:
    """Image of each name that has one."""
    if settings.images is None:
        return {}
    if not settings.images.is_dir():
        raise InputError(f"--images: no folder '{settings.images}'")
    wanted = {file.name for file in files}
    found = {}
    for path in image_files.walk(settings.images, image_files.IMAGE_SUFFIXES):
        name = path.relative_to(settings.images).with_suffix("").as_posix()
        if name in wanted:
            found[name] = path
    if not found:
        raise InputError(
            f"--images: no image in '{settings.images}' has the name of a label "
            f"map, expected some like '{files[0].name}'"
        )
    return found


def _class_names(settings: Settings, num_classes: int) -> tuple[str, ...]:
    if settings.class_names and len(settings.class_names) != num_classes:
        raise InputError(
            f"--class_names: {len(settings.class_names)} names, expected {num_classes}"
        )
    if settings.class_names:
        return settings.class_names
    if num_classes == 2:
        return ("background", "foreground")
    return tuple(f"class {index}" for index in range(num_classes))


def _check_output(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output: cannot make '{output}': {error.strerror}"
        ) from None


def _gather(
    settings: Settings,
    files: Sequence[LabelFile],
    references: Sequence[LabelFile | None],
    stored: label_files.Encoding,
    reference_stored: label_files.Encoding | None,
) -> Gathered:
    """Measures all maps, those of an earlier run excepted."""
    header = {
        "labels": str(settings.labels.absolute()),
        "reference": settings.reference and str(settings.reference.absolute()),
        "stored": list(stored),
        "reference_stored": reference_stored and list(reference_stored),
    }
    path = settings.output / RECORDS
    stamps = {
        file.name: [list(file.stamp), list(reference.stamp) if reference else None]
        for file, reference in zip(files, references, strict=True)
    }
    K = stored.num_classes
    records: dict[str, Record] = {}
    totals: list[audit.Comparison] = []  # one at most: the sum
    position = np.zeros((*GRID, K), np.int64)
    bad: list[tuple[str, str]] = []
    by_name = {file.name: file for file in files}

    def keep(record: Record, pair: audit.Comparison | None) -> None:
        nonlocal position
        records[record.file.name] = record
        position = position + record.position
        if pair is not None:
            totals[:] = [audit.add(totals[0], pair)] if totals else [pair]

    for line in _earlier(path, header):
        name = line["name"]
        if name in records or stamps.get(name) != line["stamp"]:
            continue
        pair = None if line["pair"] is None else _pair_of(line["pair"])
        keep(_record(by_name[name], line, pair), pair)
    todo = [i for i, file in enumerate(files) if file.name not in records]
    if records:
        print(f"{len(records)} of them measured by an earlier run")
    _start_over(path, header, bool(records))
    loaded = label_files.stream(
        [files[i] for i in todo],
        [references[i] for i in todo],
        stored,
        reference_stored,
        min(settings.workers, len(todo)),
    )
    bar = tqdm(
        zip(todo, loaded, strict=True),
        desc="auditing",
        total=len(files),
        initial=len(records),
        unit="map",
        disable=None,  # no bar where stderr is not a terminal
    )
    with path.open("a", encoding="utf-8") as out:
        for index, (labels, reference, error) in bar:
            file = files[index]
            if labels is None:
                bad.append((file.name, error))
                continue
            pair = None
            if reference is not None:
                pair = audit.compare(labels, reference, K, where=str(file.path))
            line = {
                "name": file.name,
                "stamp": stamps[file.name],
                "map": _plain(audit.examine(labels, K, where=str(file.path))),
                "position": _position(labels, K).tolist(),
                "pair": None if pair is None else _plain(pair),
            }
            out.write(json.dumps(line) + "\n")
            keep(_record(file, line, pair), pair)
    ordered = [records[file.name] for file in files if file.name in records]
    return Gathered(ordered, totals[0] if totals else None, position, bad)


def _record(
    file: LabelFile, line: Mapping[str, Any], pair: audit.Comparison | None
) -> Record:
    fields = dict(line["map"])
    for name, dtype in (("counts", np.int64), ("objects", np.int64)):
        fields[name] = np.asarray(fields[name], dtype)
    fields["thumb"] = np.asarray(fields["thumb"], np.uint8)
    for name in ("size", "wrong_ids"):
        fields[name] = tuple(fields[name])
    return Record(
        file,
        audit.LabelMap(**fields),
        np.asarray(line["position"], np.int64),
        None if pair is None else pair.joint,
        None if pair is None else audit.error_kinds(pair),
    )


def _pair_of(fields: Mapping[str, Any]) -> audit.Comparison:
    arrays = {
        name: np.asarray(value, np.float64 if name == "spread" else np.int64)
        for name, value in fields.items()
        if isinstance(value, list)
    }
    return audit.Comparison(**{**fields, **arrays})


def _plain(measured: audit.LabelMap | audit.Comparison) -> dict[str, Any]:
    """Fields of a named tuple as JSON has them."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in measured._asdict().items()
    }


def _earlier(path: Path, header: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines of an earlier run with the same settings; a line cut short is the last."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        try:
            if json.loads(next(lines, "null")) != json.loads(json.dumps(header)):
                return
            for line in lines:
                yield json.loads(line)
        except json.JSONDecodeError:
            return


def _start_over(path: Path, header: Mapping[str, Any], goes_on: bool) -> None:
    """Leaves a file of whole lines only, that lines can be added to."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("w", encoding="utf-8") as out:
        out.write(json.dumps(header) + "\n")
        if goes_on:
            for line in _earlier(path, header):
                out.write(json.dumps(line) + "\n")
    scratch.replace(path)


def _position(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of each class in each cell of the image, int64 `[16, 16, K]`.

    `density.position` on the host: it would compile once for every size of image.
    """
    height, width = labels.shape
    rows = np.arange(height)[:, None] * GRID[0] // height
    cols = np.arange(width) * GRID[1] // width
    cell = (rows * GRID[1] + cols) * num_classes + np.where(
        (labels >= 0) & (labels < num_classes), labels, 0
    )
    known = (labels >= 0) & (labels < num_classes)
    size = GRID[0] * GRID[1] * num_classes
    counts = np.bincount(cell[known].ravel(), minlength=size)
    return counts.reshape(*GRID, num_classes)


def _summary(
    settings: Settings, gathered: Gathered, names: Sequence[str]
) -> dict[str, Any]:
    """The content of audit.json."""
    records = gathered.records
    maps = [record.map for record in records]
    whole, far = audit.overview(maps), audit.outliers(maps)
    same = audit.duplicates(maps)

    def named(indices: Sequence[int]) -> list[str]:
        return [records[i].file.name for i in indices]

    total = gathered.position.sum(axis=-1, keepdims=True)
    return {
        "labels": str(settings.labels),
        "reference": settings.reference and str(settings.reference),
        "images": settings.images and str(settings.images),
        "num_classes": len(names),
        "class_names": list(names),
        "maps": len(records),
        "bad": [{"name": n, "reason": reason} for n, reason in gathered.bad],
        "overview": {
            "class_shares": (whole.counts / max(whole.counts.sum(), 1)).tolist(),
            "void_share": whole.void_share,
            "information": whole.information,
            "roughness": whole.roughness,
            "objects": whole.objects.tolist(),
            "empty": named(whole.empty),
            "one_class": named(whole.one_class),
            "wrong_ids": {str(k): v for k, v in whole.wrong_ids.items()},
        },
        "outliers": [
            {"name": records[i].file.name, "feature": feature, "score": score}
            for i, (feature, score) in zip(far.indices, far.reasons, strict=True)
        ],
        "duplicates": {
            "exact": [named(group) for group in same.exact],
            "near": [named(group) for group in same.near],
        },
        "position": (gathered.position / np.maximum(total, 1)).tolist(),
        "comparison": _comparison(settings, gathered, names),
        "scores": np.abs(far.scores).max(axis=1).tolist(),
    }


def _comparison(
    settings: Settings, gathered: Gathered, names: Sequence[str]
) -> dict[str, Any] | None:
    """What the labels are against their references."""
    if gathered.pair is None:
        return None
    joints = np.stack([r.joint for r in gathered.records if r.joint is not None])
    found = audit.transition(joints, class_names=names, seed=settings.seed)
    judged = audit.verdict(gathered.pair)
    condition = found.condition_number
    return {
        "maps": len(joints),
        "labelled": found.labelled,
        "disagreement": gathered.pair.disagreement,
        "matrix": np.asarray(found.estimate.matrix).tolist(),
        "low": found.interval.low.tolist(),
        "high": found.interval.high.tolist(),
        "rank": found.rank,
        "singular_values": found.singular_values.tolist(),
        "condition_number": condition if np.isfinite(condition) else None,
        "semantic_information": found.semantic_information,
        "prior_entropy": found.prior_entropy,
        "effective": found.effective,
        "effective_worst": found.effective_worst,
        "sentence": found.sentence,
        "profile": _profile(gathered.pair, names),
        "split": judged.kinds._asdict(),
        "verdict": {
            "family": judged.family,
            "sentences": list(judged.sentences),
            "evidence": dict(judged.evidence),
        },
    }


def _profile(pair: audit.Comparison, names: Sequence[str]) -> dict[str, Any]:
    """Share labelled as each class by signed depth, negative inside the class.

    Outside, depth is the distance to the class for two classes only: with more it is
    that to the nearest of all boundaries, and nothing is said.
    """
    counts = pair.profile.sum(axis=0).astype(float)  # [K, DEPTHS, K]
    classes = {}
    for index, name in enumerate(names):
        inside = counts[index]
        outside = counts.sum(axis=0) - inside
        line = np.concatenate([inside[::-1], outside])
        total = line.sum(axis=-1)
        if len(names) > 2:
            total[len(inside) :] = 0
        share = line[:, index] / np.where(total > 0, total, 1)
        classes[name] = [
            float(s) if t > 0 else None for s, t in zip(share, total, strict=True)
        ]
    depths = np.arange(audit.DEPTHS)
    distance = np.concatenate([-1 - depths[::-1], depths])
    return {"distance": distance.tolist(), "classes": classes}


def _rows(records: Sequence[Record], summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per map, worst first: most wrong, or farthest from the others."""
    duplicates = {
        name for group in summary["duplicates"]["exact"] for name in group[1:]
    }
    scores = summary.pop("scores")
    rows = []
    for record, score in zip(records, scores, strict=True):
        one = record.map
        flags = [
            word
            for word, set_ in (
                ("empty", one.empty),
                ("one class", one.one_class),
                ("wrong ids", one.wrong > 0),
                ("duplicate", record.file.name in duplicates),
            )
            if set_
        ]
        row: dict[str, Any] = {
            "name": record.file.name,
            "height": one.size[0],
            "width": one.size[1],
            "labelled": one.labelled,
            "void_share": one.void_share,
            "shares": (one.counts / max(one.labelled, 1)).tolist(),
            "information": max(one.information - one.bias, 0),
            "roughness": one.roughness,
            "objects": int(one.objects[1:].sum()),
            "flags": flags,
            "score": score,
        }
        if record.joint is not None and record.split is not None:
            wrong = record.joint.sum() - np.trace(record.joint)
            parts = record.split.shares
            row |= {
                "disagreement": float(wrong / max(record.joint.sum(), 1)),
                "independent": parts.independent,
                "boundary": parts.boundary,
                "objects_share": parts.objects,
            }
        rows.append(row)
    return sorted(rows, key=_badness, reverse=True)


def _badness(row: Mapping[str, Any]) -> tuple[float, int, float]:
    return (row.get("disagreement", -1.0), len(row["flags"]), row["score"])


def _write_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> None:
    """audit.csv, whole or not at all."""
    compared = any("disagreement" in row for row in rows)
    last = ("disagreement", "independent", "boundary", "objects_share")
    plain = ("name", "height", "width", "labelled", "void_share")
    measures = ("information", "roughness", "objects", "score")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    shares = [f"share {name}" for name in names]
    writer.writerow([*plain, *shares, *measures, "flags", *(last if compared else ())])
    for row in rows:
        values = [*(row[k] for k in plain), *row["shares"]]
        values += [*(row[k] for k in measures), " ".join(row["flags"])]
        values += [row.get(k, "") for k in last] if compared else []
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    files.write_text(path, out.getvalue())


def _thumbnails(
    rows: Sequence[Mapping[str, Any]],
    records: Sequence[Record],
    references: Sequence[LabelFile | None],
    stored: label_files.Encoding,
    reference_stored: label_files.Encoding | None,
    images: Mapping[str, Path],
) -> list[report.Thumbnail]:
    """Pictures of the worst maps."""
    files = {record.file.name: record.file for record in records}
    clean = {file.name: file for file in references if file is not None}
    shown = []
    for row in rows[:SHOWN]:
        name = row["name"]
        reference = clean.get(name)
        loaded = label_files.load(files[name], reference, stored, reference_stored)
        if loaded.labels is None:
            continue
        image = None
        if name in images:
            try:
                image = image_files.read_image(images[name])
            except InputError as error:
                print(f"warning: {error}", file=sys.stderr)
        if image is not None and image.shape[:2] != loaded.labels.shape:
            print(
                f"warning: {images[name]}: size {image.shape[:2]}, expected "
                f"{loaded.labels.shape}, as its label map",
                file=sys.stderr,
            )
            image = None
        said = f"score {row['score']:.1f}"
        if "disagreement" in row:
            said = f"{row['disagreement']:.1%} wrong"
        shown.append(
            report.Thumbnail(
                name=name,
                labels=loaded.labels,
                image=image,
                reference=loaded.reference,
                caption=said,
            )
        )
    return shown


def _say(summary: Mapping[str, Any], html: Path) -> None:
    """The verdict on the terminal, and where the rest is."""
    compared = summary["comparison"]
    if compared:
        print(f"verdict: {compared['verdict']['family']}")
        for sentence in compared["verdict"]["sentences"]:
            print(f"  {sentence}")
        print(
            f"  {compared['labelled']:,} labels are worth about "
            f"{compared['effective']:,.0f} clean ones"
        )
    for bad in summary["bad"]:
        print(f"bad: {bad['reason']}", file=sys.stderr)
    if summary["bad"]:
        print(f"bad files left out: {len(summary['bad'])}", file=sys.stderr)
    print(f"report: {html}")
