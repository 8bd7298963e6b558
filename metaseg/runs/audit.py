"""The audit of label maps: read, measured one by one, summed up, written.

Each measured map adds one row to OUTPUT/records.jsonl. A later job with the same
arguments skips maps whose files are unchanged. `audit_arrays` does the same for arrays
and writes nothing.
"""

import csv
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
from tqdm import tqdm

from metaseg import auditing as audit_lib
from metaseg import checks, report
from metaseg import files as files_lib
from metaseg.data import collect, file_options, label_encoding, label_files
from metaseg.data.collect import Item, Source
from metaseg.data.file_options import DEFAULT, FileKeywords, FileOptions
from metaseg.data.label_files import StoredLabels
from metaseg.errors import InputError, escaped, with_prefixes
from metaseg.parallel import processes
from metaseg.runs import jax_settings
from metaseg.text import count_of

__all__ = ["Audited", "audit", "audit_arrays"]

RECORDS = "records.jsonl"
GRID = (16, 16)  # cells of the density by place in the image
SHOWN = 24  # label maps shown as pictures


class Audited(NamedTuple):
    """Result of `audit`.

    Attributes:
      report: Path of audit.html.
      summary: Content of audit.json.
      rows: Content of audit.csv: a row for each map, worst first.
    """

    report: Path
    summary: dict[str, Any]
    rows: list[dict[str, Any]]


class MapRecord(NamedTuple):
    """Measures of one map.

    Attributes:
      name: Name of the map.
      map: Measures without a reference.
      position: Pixels of each class in each cell, int64 `[16, 16, K]`.
      joint: Pixels of each (reference, label) pair, int64 `[K, K]`, or None.
      split: Kinds of its disagreement, or None.
    """

    name: str
    map: audit_lib.LabelMap
    position: np.ndarray
    joint: np.ndarray | None
    split: audit_lib.ErrorKinds | None


class _Inputs(NamedTuple):
    """Label maps and their references, how both are stored, and K."""

    items: Sequence[Item]
    references: Sequence[Item | None]
    stored: StoredLabels
    reference_stored: StoredLabels | None
    num_classes: int
    options: FileOptions


class _Gathered:
    """Measures of all maps.

    Attributes:
      records: Of each map, by name.
      pair: Sums over all maps with a reference, or None.
      position: Sum over all maps, int64 `[16, 16, K]`.
      bad: Names of files that could not be used, and why.
    """

    def __init__(self, num_classes: int) -> None:
        self.records: dict[str, MapRecord] = {}
        self.pair: audit_lib.Comparison | None = None
        self.position = np.zeros((*GRID, num_classes), np.int64)
        self.bad: list[tuple[str, str]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row of the journal."""
        pair = None if row["pair"] is None else _pair_of(row["pair"])
        record = _record(row, pair)
        self.records[record.name] = record
        self.position += record.position
        if pair is not None:
            self.pair = pair if self.pair is None else audit_lib.add(self.pair, pair)


@jax_settings.same_numbers()
def audit(
    labels: Source,
    output: str | os.PathLike[str],
    *,
    reference: Source | None = None,
    images: Source | None = None,
    num_classes: int = 0,
    class_names: Sequence[str] = (),
    workers: int | None = None,
    seed: int = 0,
    **files: Unpack[FileKeywords],
) -> Audited:
    """Audits label maps and writes audit.json, audit.csv and audit.html.

    Args:
      labels: Folder, file or glob pattern of label maps; or a sequence of files; or
        arrays, see `data.collect.find`.
      output: Folder for the results; an earlier audit there is continued.
      reference: Label maps that are believed to be right, or by a second annotator, for
        some or all of the same names; or None.
      images: Images of the same names, for pictures; or None.
      num_classes: Number of classes K; 0 takes one more than the highest id found.
      class_names: K names; by default "class 0", "class 1", ...
      workers: Processes that read files; 0 reads in this one. By default one per core.
      seed: Seed of the bootstrap.
      **files: How image and label files are read: fields of `FileOptions`.

    Returns:
      What was found. Files that cannot be used are in `summary["bad"]`.

    Raises:
      InputError: If an argument is wrong, no map can be read, or the output cannot be
        written.
    """
    processes.check_backend()
    workers = os.cpu_count() or 1 if workers is None else workers
    checks.integer("workers", workers, 0)
    checks.seed("seed", seed)
    folder = Path(output).expanduser()
    options = file_options.build(**files)
    inputs = _inputs(labels, reference, num_classes, options, print, workers)
    names = _class_names(class_names, inputs.num_classes)
    pictures = {}
    if images is not None:
        pictures = collect.find_partners(
            images,
            inputs.items,
            field="images",
            labels=False,
            beside=True,
            options=options,
        )
    facts = {"labels": _shown(labels), "reference": _shown(reference)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partners = sum(one is not None for one in inputs.references)
        print(
            f"{count_of(len(inputs.items), 'label map')} in {facts['labels']}, "
            f"{partners} with a reference; {inputs.num_classes} classes"
        )
        gathered = _gather(inputs, folder, facts, workers)
        if not gathered.records:
            name, reason = gathered.bad[0]
            raise InputError(
                f"labels: no map could be read; the first: {reason or name}"
            )
        facts["images"] = _shown(images)
        summary = facts | _summary(gathered, names, seed)
        rows = _rows(list(gathered.records.values()), summary)
        files_lib.write_json(folder / "audit.json", summary)
        _write_csv(folder / "audit.csv", rows, names)
        html = folder / "audit.html"
        thumbnails = _thumbnails(rows, inputs, pictures)
        report.write_audit(html, summary=summary, rows=rows, thumbnails=thumbnails)
    except OSError as error:  # errors of label maps are listed, so this is the output
        raise InputError(
            f"output: cannot write '{error.filename or output}' ({error.strerror});"
            " measured maps are kept, run again to continue"
        ) from error
    _say(summary, html)
    return Audited(html, summary, rows)


@jax_settings.same_numbers()
def audit_arrays(
    labels: Any,
    reference: Any = None,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    seed: int = 0,
    **files: Unpack[FileKeywords],
) -> dict[str, Any]:
    """Audits label maps in memory.

    Args:
      labels: Integer class ids `[N, H, W]`, or a sequence of arrays `[H, W]` of any
        sizes; 255 is void. In masks that hold 0 and 255 alone, 255 is class 1.
      reference: Label maps of the same shapes that are believed to be right, or None.
      num_classes: Number of classes K; by default one more than the highest id.
      class_names: K names; by default "class 0", "class 1", ...
      seed: Seed of the bootstrap.
      **files: What stored values mean: fields of `FileOptions`.

    Returns:
      The content of audit.json, see docs/audit.md. Maps are named by their index. The
      verdict is in `result["comparison"]["verdict"]`.

    Raises:
      InputError: If an argument is wrong.
    """
    checks.seed("seed", seed)
    options = file_options.build(**files)
    inputs = _inputs(labels, reference, num_classes or 0, options)
    names = _class_names(class_names, inputs.num_classes)
    gathered = _Gathered(inputs.num_classes)
    for item, clean in zip(inputs.items, inputs.references, strict=True):
        loaded = label_files.load(item, clean, inputs.stored, inputs.reference_stored)
        if loaded.content is None:
            raise InputError(loaded.error)
        gathered.add(_measured(item, loaded.content, inputs.num_classes))
    summary = _summary(gathered, names, seed)
    del summary["scores"]
    facts = {"labels": _shown(labels), "reference": _shown(reference), "images": None}
    return facts | summary


def _inputs(
    labels: Source,
    reference: Source | None,
    num_classes: int,
    options: FileOptions = DEFAULT,
    say: Callable[[str], object] | None = None,
    workers: int = 0,
) -> _Inputs:
    """Finds label maps and references, and how their class ids are stored."""
    if num_classes != 0:
        checks.num_classes("num_classes", num_classes)
    label_encoding.check(options)
    items = collect.find(
        labels, field="labels", labels=True, unique=True, options=options, say=say
    )
    partners = {}
    if reference is not None:
        partners = collect.find_partners(
            reference, items, field="reference", options=options, say=say
        )
    known: dict[str, Any] = {
        "options": options,
        "num_classes": num_classes,
        "workers": workers,
    }
    stored = label_files.recognise(items, **known)
    if say is not None:
        say(stored.encoding.describe())
    reference_stored = None
    if partners:
        reference_stored = label_files.recognise(list(partners.values()), **known)
        text = reference_stored.encoding.describe()
        if say is not None and text != stored.encoding.describe():
            say(f"reference: {text}")
    each = [one for one in (stored, reference_stored) if one is not None]
    most = max(one.encoding.num_classes for one in each)
    for one, maps in ((stored, items), (reference_stored, list(partners.values()))):
        if one is not None and one.encoding.kind == "masks" and most > 2:
            # 255 is void in the other maps: here it may be so too, which this refuses.
            many = {**known, "num_classes": most, "fixed_classes": True}
            label_files.recognise(maps, **many)
    return _Inputs(
        items,
        [partners.get(item.name) for item in items],
        stored,
        reference_stored,
        most,
        options,
    )


def _shown(source: Source | None) -> str | None:
    """Returns where label maps come from, for audit.json."""
    return None if source is None else collect.described(source)


def _class_names(class_names: Sequence[str], num_classes: int) -> tuple[str, ...]:
    if class_names and len(class_names) != num_classes:
        raise InputError(
            f"class_names: got {count_of(len(class_names), 'name')}, expected "
            f"{num_classes}"
        )
    if class_names:
        return tuple(class_names)
    if num_classes == 2:
        return ("background", "foreground")
    return tuple(f"class {index}" for index in range(num_classes))


def _gather(
    inputs: _Inputs, output: Path, facts: Mapping[str, Any], workers: int
) -> _Gathered:
    """Measures all maps but those of an earlier job."""
    items, references = inputs.items, inputs.references
    header = {
        "labels": facts["labels"] and os.path.abspath(facts["labels"]),
        "reference": facts["reference"] and os.path.abspath(facts["reference"]),
        "num_classes": inputs.num_classes,
        "options": repr(file_options.changed(inputs.options)),
        "encoding": _encoding(inputs.stored),
        "reference_encoding": _encoding(inputs.reference_stored),
    }
    stamps = {
        item.name: [list(item.stamp), list(clean.stamp) if clean else None]
        for item, clean in zip(items, references, strict=True)
    }
    gathered = _Gathered(inputs.num_classes)
    kept = set()
    with files_lib.Journal(output / RECORDS, header) as journal:
        for row in journal.earlier():
            if row["name"] not in kept and stamps.get(row["name"]) == row["stamp"]:
                kept.add(row["name"])
                gathered.add(row)
        if kept:
            print(f"{len(kept)} of them measured by an earlier run")
        journal.begin(journal.earlier())
        todo = [i for i, item in enumerate(items) if item.name not in kept]
        loaded = label_files.stream(
            [items[i] for i in todo],
            [references[i] for i in todo],
            inputs.stored,
            inputs.reference_stored,
            workers=min(workers, len(todo)),
        )
        bar = tqdm(
            zip(todo, loaded, strict=True),
            desc="auditing",
            total=len(items),
            initial=len(kept),
            unit="map",
            disable=None,  # no bar where stderr is not a terminal
        )
        for index, (maps, error) in bar:
            item = items[index]
            if maps is None:
                gathered.bad.append((item.name, error))
                continue
            row = _measured(item, maps, inputs.num_classes)
            row["stamp"] = stamps[item.name]
            journal.append(row)
            gathered.add(row)
    order = {item.name: index for index, item in enumerate(items)}
    gathered.records = dict(
        sorted(gathered.records.items(), key=lambda pair: order[pair[0]])
    )
    return gathered


def _encoding(stored: StoredLabels | None) -> str | None:
    """Returns what rows of the journal depend on: all but the counts in the text."""
    return None if stored is None else repr(stored.encoding._replace(text=""))


def _measured(
    item: Item, maps: label_files.LabelPair, num_classes: int
) -> dict[str, Any]:
    """Measures one map; returns a row of the journal without its stamp."""
    labels, reference = maps
    pair = None
    if reference is not None:
        pair = audit_lib.compare(labels, reference, num_classes, where=item.where)
    examined = audit_lib.examine(labels, num_classes, where=item.where)
    return {
        "name": item.name,
        "map": _plain(examined),
        "position": _position(labels, num_classes).tolist(),
        "pair": None if pair is None else _plain(pair),
    }


def _record(row: Mapping[str, Any], pair: audit_lib.Comparison | None) -> MapRecord:
    fields = dict(row["map"])
    for name, dtype in (("counts", np.int64), ("objects", np.int64)):
        fields[name] = np.asarray(fields[name], dtype)
    fields["thumb"] = np.asarray(fields["thumb"], np.uint8)
    for name in ("size", "wrong_ids"):
        fields[name] = tuple(fields[name])
    return MapRecord(
        row["name"],
        audit_lib.LabelMap(**fields),
        np.asarray(row["position"], np.int64),
        None if pair is None else pair.joint,
        None if pair is None else audit_lib.error_kinds(pair),
    )


def _pair_of(fields: Mapping[str, Any]) -> audit_lib.Comparison:
    arrays = {
        name: np.asarray(value, np.float64 if name == "spread" else np.int64)
        for name, value in fields.items()
        if isinstance(value, list)
    }
    return audit_lib.Comparison(**{**fields, **arrays})


def _plain(measured: audit_lib.LabelMap | audit_lib.Comparison) -> dict[str, Any]:
    """Returns the fields of a named tuple as types that JSON has."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in measured._asdict().items()
    }


def _position(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts pixels of each class in each cell of the image, int64 `[16, 16, K]`.

    Equals `density.position`, which would be compiled for each size of image.
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


def _summary(gathered: _Gathered, names: Sequence[str], seed: int) -> dict[str, Any]:
    """Returns the content of audit.json but for where the maps come from."""
    records = list(gathered.records.values())
    maps = [record.map for record in records]
    whole, far = audit_lib.overview(maps), audit_lib.outliers(maps)
    same = audit_lib.duplicates(maps)

    def named(indices: Sequence[int]) -> list[str]:
        return [records[i].name for i in indices]

    total = gathered.position.sum(axis=-1, keepdims=True)
    return {
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
            {"name": records[i].name, "feature": feature, "score": score}
            for i, (feature, score) in zip(far.indices, far.reasons, strict=True)
        ],
        "duplicates": {
            "exact": [named(group) for group in same.exact],
            "near": [named(group) for group in same.near],
        },
        "position": (gathered.position / np.maximum(total, 1)).tolist(),
        "comparison": _comparison(gathered, names, seed),
        "scores": np.abs(far.scores).max(axis=1).tolist(),
    }


def _comparison(
    gathered: _Gathered, names: Sequence[str], seed: int
) -> dict[str, Any] | None:
    """Returns how labels and references differ, or None without references."""
    if gathered.pair is None:
        return None
    joints = np.stack(
        [r.joint for r in gathered.records.values() if r.joint is not None]
    )
    found = audit_lib.transition(joints, class_names=names, seed=seed)
    judged = audit_lib.verdict(gathered.pair, class_names=names)
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
            "evidence": files_lib.plain(judged.evidence),
        },
        "why_null": _why_null(judged.evidence, found),
    }


def _why_null(
    evidence: Mapping[str, float], found: audit_lib.Transition
) -> dict[str, str]:
    """Returns why numbers of the comparison are None, by their names."""
    reasons = {}
    for name in ("step_contrast", "step_error"):
        if not np.isfinite(evidence[name]):
            reasons[name] = (
                "no class has a step at its boundary: far inside and far outside of "
                "each class are labelled alike"
            )
    if not np.isfinite(found.condition_number):
        reasons["condition_number"] = (
            f"infinite: the rank of the matrix is {found.rank} of {len(found.prior)}"
        )
    return reasons


def _profile(pair: audit_lib.Comparison, names: Sequence[str]) -> dict[str, Any]:
    """Returns the share labelled as each class by signed depth, negative inside.

    Outside a class, depth is the distance to the class for two classes only. With more
    classes it is the distance to the nearest boundary of any class, and the share is
    None.
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
    depths = np.arange(audit_lib.DEPTHS)
    distance = np.concatenate([-1 - depths[::-1], depths])
    return {"distance": distance.tolist(), "classes": classes}


def _rows(
    records: Sequence[MapRecord], summary: dict[str, Any]
) -> list[dict[str, Any]]:
    """Returns a row per map, worst first: most wrong, or farthest from the others."""
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
                ("duplicate", record.name in duplicates),
            )
            if set_
        ]
        row: dict[str, Any] = {
            "name": record.name,
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
    """Writes audit.csv."""
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
    files_lib.write_text(path, out.getvalue())


def _thumbnails(
    rows: Sequence[Mapping[str, Any]], inputs: _Inputs, images: Mapping[str, Item]
) -> list[report.Thumbnail]:
    """Returns pictures of the worst maps."""
    by_name = {
        item.name: (item, clean)
        for item, clean in zip(inputs.items, inputs.references, strict=True)
    }
    shown = []
    for row in rows[:SHOWN]:
        item, clean = by_name[row["name"]]
        maps = label_files.load(
            item, clean, inputs.stored, inputs.reference_stored
        ).content
        if maps is None:  # the file has changed since it was measured
            continue
        said = f"score {row['score']:.1f}"
        if "disagreement" in row:
            said = f"{100 * row['disagreement']:.1f} % wrong"
        shown.append(
            report.Thumbnail(
                name=item.name,
                labels=maps.labels,
                image=_image(images.get(item.name), maps.labels.shape, inputs.options),
                reference=maps.reference,
                caption=said,
            )
        )
    return shown


def _image(
    item: Item | None, shape: tuple[int, ...], options: FileOptions
) -> np.ndarray | None:
    """Returns the image of a label map; warns if it cannot be shown."""
    if item is None:
        return None
    try:
        image = collect.read_image(item, options)
    except InputError as error:
        print(f"warning: {with_prefixes(str(error))}", file=sys.stderr)
        return None
    if image.shape[:2] != shape:
        print(
            f"warning: {item.where}: size {image.shape[:2]}, expected {shape}, as its"
            " label map",
            file=sys.stderr,
        )
        return None
    return image


def _say(summary: Mapping[str, Any], html: Path) -> None:
    """Prints the verdict, bad files, and where the page is."""
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
        print(f"bad: {with_prefixes(bad['reason'])}", file=sys.stderr)
    if summary["bad"]:
        bad_files = count_of(len(summary["bad"]), "bad file")
        print(f"{bad_files} left out", file=sys.stderr)
    print(f"report: {escaped(str(html))}")
