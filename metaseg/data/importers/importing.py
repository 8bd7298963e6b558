"""The steps of an import: find, stage, write, move into place.

Unfinished files lie in `DATA_DIR/.staging-SOURCE-CONFIG`; files elsewhere are finished.
An import that was stopped leaves its files there, and the next one continues from them.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from tqdm import tqdm

from metaseg.data import collect, file_options, label_encoding
from metaseg.data.folder import channel_names
from metaseg.data.image_files import finding, some
from metaseg.data.importers import pairs, staging, summary
from metaseg.data.importers.builder import Builder, Content, config_of, quiet
from metaseg.data.importers.encoding import StoragePlan
from metaseg.data.importers.metadata import FORMAT, read_metadata
from metaseg.data.importers.pairs import SPLITS, Found, ImportOptions
from metaseg.data.importers.sources import SOURCES
from metaseg.data.importers.staging import Staged, Stamp, Stored
from metaseg.errors import InputError, escaped, with_prefixes
from metaseg.text import count_of

__all__ = ["ImportRequest", "Prepared", "prepare"]

SHARES = (0.7, 0.1, 0.2)
SAID = 5  # bad files that a message names


class ImportRequest(NamedTuple):
    """A data set to import.

    Attributes:
      source: Key of `SOURCES`.
      path: Folder of the data set as it was published.
      data_dir: Folder of prepared data sets.
      config: Config of the source; "" for its first.
      workers: Processes that read files; 0 reads in this one.
      skip_bad: Whether bad files are left out instead of stopping the import.
      options: Further choices of the user.
    """

    source: str
    path: Path
    data_dir: Path
    config: str = ""
    workers: int = 2
    skip_bad: bool = False
    options: ImportOptions = ImportOptions()


class Prepared(NamedTuple):
    """A prepared data set.

    Attributes:
      path: Folder of the data set.
      summary: Content of its summary.json.
      new: False if the same files had been imported before.
    """

    path: Path
    summary: Mapping[str, Any]
    new: bool


class _ImportJob(NamedTuple):
    settings: ImportRequest
    builder: type[Builder]
    config: str
    found: Found
    stamp_of: Mapping[Path, Stamp]
    fingerprint: str
    target: Path
    colours: Callable[[int], Sequence[summary.Colour]]

    @property
    def label(self) -> str:
        return f"{self.settings.source}-{self.config}"


def prepare(
    settings: ImportRequest, colours: Callable[[int], Sequence[summary.Colour]]
) -> Prepared:
    """Imports a data set, unless the same files have been imported before.

    Args:
      settings: The data set to import.
      colours: Function from a number of classes to the colours of the classes and of
        void, for the contact sheet.

    Returns:
      The prepared data set.

    Raises:
      InputError: If a setting, the layout or a file is wrong, or the disk is full or
        cannot be written to. An earlier data set is not changed.
    """
    job = _job(settings, colours)
    folder = settings.data_dir / f".staging-{job.label}"
    if _fingerprint_of(job.target) == job.fingerprint:
        with contextlib.suppress(InputError, OSError):  # another import may be running
            if folder.exists():  # the last import was stopped while it cleaned up
                with _locked(folder):
                    shutil.rmtree(folder)
        text = (job.target / "summary.json").read_text(encoding="utf-8")
        return Prepared(job.target, json.loads(text), new=False)
    with _writing(settings.data_dir), _locked(folder):
        return Prepared(job.target, _import(job, folder), new=True)


def _job(
    settings: ImportRequest, colours: Callable[[int], Sequence[summary.Colour]]
) -> _ImportJob:
    if settings.source not in SOURCES:
        raise InputError(
            f"source: got '{settings.source}', expected one of {', '.join(SOURCES)}"
            " (tfds as tfds:NAME)"
        )
    builder = SOURCES[settings.source]
    options = settings.options
    given = options._asdict() | file_options.changed(options.files) | {"files": None}
    for name, value in given.items():
        if value is not None and name not in builder.TAKES:
            takes = ", ".join(builder.TAKES) or "none"
            raise InputError(
                f"{name}: not for {settings.source}; expected only {takes}"
            )
    shares = options.shares or SHARES
    if len(shares) != len(SPLITS) or min(shares) < 0 or shares[0] == 0:
        raise InputError(
            f"shares: got {', '.join(map(str, shares))}, expected three numbers for"
            " train, val and test: above 0 for train, 0 for a split that stays empty"
        )
    label_encoding.check(options.files)
    if settings.workers < 0:
        raise InputError(f"workers: got {settings.workers}, expected at least 0")
    config = _config(settings, builder)
    root = pairs.folder(settings.path.absolute(), builder.TREE)
    found = builder.find(root, config, options)
    found = found._replace(items=sorted(found.items, key=lambda x: (x.split, x.name)))
    if not found.items and not found.problems:
        raise InputError(
            f"path: no example in '{root}', which has {pairs.entries(root)};"
            f" expected {builder.TREE}"
        )
    stamp_of = staging.stamps([p for item in found.items for p in item.files])
    version = str(builder.VERSION)
    target = settings.data_dir.absolute() / settings.source / config / version
    key = _fingerprint(settings, config, root, found, stamp_of)
    return _ImportJob(settings, builder, config, found, stamp_of, key, target, colours)


def _config(settings: ImportRequest, builder: type[Builder]) -> str:
    names = list(builder.builder_configs)
    name = settings.config or (names[0] if names else "")
    if names:
        if name not in names:
            raise InputError(
                f"config: got '{name}', expected one of {', '.join(names)}"
            )
        return name
    if settings.source == "folder":
        name = settings.options.name or name or settings.path.absolute().name
        name = re.sub(r"[^\w.-]+", "_", name).strip("._")
    if not re.fullmatch(r"\w[\w.-]*", name):
        flag = "name" if settings.source == "folder" else "source"
        raise InputError(
            f"{flag}: no name for the data set; expected letters, digits, _ or -"
        )
    return name


def _fingerprint(
    settings: ImportRequest,
    config: str,
    root: Path,
    found: Found,
    stamp_of: Mapping[Path, Stamp],
) -> str:
    """Returns a hash of everything that the prepared data set follows from."""
    chosen = (config, settings.options._replace(name=None), settings.skip_bad)
    key = hashlib.sha256(repr((FORMAT, settings.source, *chosen)).encode())
    told = (found.encoding, found.num_classes, found.class_names, found.keep)
    key.update(repr((told, found.options)).encode())
    for line in sorted(found.problems):
        key.update(repr(line).encode())
    for item in found.items:
        files = [(str(p).removeprefix(str(root)), stamp_of[p]) for p in item.files]
        key.update(repr((item.name, item.split, item.page, files)).encode())
    return key.hexdigest()


def _fingerprint_of(path: Path) -> str:
    try:
        return read_metadata(path)["fingerprint"]
    except InputError:
        return ""


@contextlib.contextmanager
def _writing(data_dir: Path) -> Iterator[None]:
    """Turns errors of a full or read-only disk into `InputError`."""
    full = "; what is done is kept: run again when there is room"
    try:
        yield
    except OSError as error:
        hint = full if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        raise InputError(
            f"data_dir: cannot write in '{data_dir}': {error.strerror or error}{hint}"
        ) from error
    except RuntimeError as error:  # of ArrayRecord
        reason = re.search(r"\w+\(\) failed: ([^;]*)", str(error))
        if not reason:
            raise
        raise InputError(
            f"data_dir: cannot write in '{data_dir}': {reason[1]}{full}"
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"data_dir: another import is writing to '{folder}'; expected one at"
                " a time"
            ) from None
        yield


def _import(job: _ImportJob, folder: Path) -> Mapping[str, Any]:
    """Stages, writes and moves into place; returns the summary."""
    chunks, built = folder / "chunks", folder / "built"
    shutil.rmtree(built, ignore_errors=True)  # a killed import may have left files
    chunks.mkdir(exist_ok=True)
    for path in chunks.iterdir():
        if path.suffix not in (".bin", ".json"):
            path.unlink()
    found = _paged(job.found)
    with staging.workers(min(job.settings.workers, len(found.items))) as pool:
        with _ImportProgress("reading", len(found.items)) as progress:
            staged = staging.stage(found, job.stamp_of, chunks, pool, progress)
        good, bad = _judge(found, staged, job)
        splits = _split(good, job)
        metadata = _metadata(job, splits, staged.plan)
        with _ImportProgress("writing", len(good)) as progress:
            content = Content(splits, staged.plan, metadata, progress, pool)
            path = _build(job, content, built)
        kinds = Counter(s.record.kind for s in staged.stored if s.record.kind)
        notes = finding.describe_splits(found.notes)
        if found.encoding is None and staged.plan.encoding is not None:
            notes.append(staged.plan.encoding.describe())
        more = {"kinds": kinds, "notes": notes}
        report = summary.summarise(metadata, splits, bad, more)
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (path / "summary.json").write_text(text, encoding="utf-8")
        summary.contact_sheet(
            path / "contact_sheet.png",
            splits,
            staged.plan,
            report["classes"],
            job.colours(staged.plan.num_classes),
            pool,
        )
    _move(path, job.target, folder)
    return report


def _paged(found: Found) -> Found:
    """Makes an example of each page."""
    paged = pairs.pages(found.items, found.options.page)
    names = Counter((item.split, item.name) for item in paged.items)
    twice = [name for (_, name), count in names.items() if count > 1]
    if twice:
        raise InputError(
            f"path: two examples have one name, {some(twice)}; expected one example"
            " per name"
        )
    problems = [*found.problems, *paged.problems]
    return found._replace(items=paged.items, problems=problems)


def _judge(
    found: Found, staged: Staged, job: _ImportJob
) -> tuple[list[Stored], list[str]]:
    """Returns the examples to keep, and a line for each bad one."""
    lines = list(found.problems)
    good = []
    for one in staged.stored:
        record = one.record
        wanted = record.error or found.keep in ("", record.kind)
        error = record.error or (record.problem if wanted else "")
        if error:
            lines.append(error)
        elif wanted:
            good.append(one)
    lines = [escaped(line) for line in lines]
    listed = job.settings.data_dir / f"{job.label}-bad.txt"
    if not lines:
        listed.unlink(missing_ok=True)
        return good, lines
    listed.write_text("\n".join([*lines, ""]), encoding="utf-8")
    if not job.settings.skip_bad:
        for line in lines[1:SAID]:
            print(f"bad: {with_prefixes(line)}", file=sys.stderr)
        raise InputError(
            f"path: {count_of(len(lines), 'file')} cannot be used, all listed in"
            f" '{listed}'; `skip_bad` leaves them out. The first: {lines[0]}"
        )
    return good, lines


def _split(good: Sequence[Stored], job: _ImportJob) -> dict[str, list[Stored]]:
    """Returns the examples of each split; draws splits where the source has none."""
    splits = {s: [one for one in good if one.record.split == s] for s in SPLITS}
    loose = [one for one in good if not one.record.split]
    options = job.settings.options
    if loose:
        groups = [one.record.group for one in loose]
        shares = options.shares or SHARES
        drawn = pairs.draw(groups, shares, options.seed or 0)
        for split, indices in zip(SPLITS, drawn, strict=True):
            splits[split] += [loose[i] for i in indices]
    if not splits["train"]:
        raise InputError("path: no good example for train; expected at least one")
    if all(set(one.record.pixels) <= {pairs.VOID} for one in splits["train"]):
        raise InputError(
            "path: no label map of a training image, or all void; expected"
            f" {job.builder.TREE}"
        )
    return splits


def _metadata(
    job: _ImportJob, splits: Mapping[str, Sequence[Stored]], plan: StoragePlan
) -> dict[str, Any]:
    names = job.found.class_names
    if not names and plan.encoding is not None:
        names = plan.encoding.class_names()
    if names and len(names) != plan.num_classes:
        raise InputError(
            f"class_names: got {count_of(len(names), 'name')}, expected "
            f"{plan.num_classes}"
        )
    return {
        "metaseg": FORMAT,
        "source": job.settings.source,
        "config": job.config,
        "num_classes": plan.num_classes,
        "class_names": list(names) if names else None,
        "channels": plan.channels,
        "channel_names": _channel_names(job, plan.channels),
        "files": file_options.changed(job.found.options),
        "dtype": plan.dtype,
        "fingerprint": job.fingerprint,
        "splits": {split: summary.facts(own, plan) for split, own in splits.items()},
    }


def _channel_names(job: _ImportJob, channels: int) -> list[str] | None:
    """Names of the channels that were taken, as the first image has them."""
    first = job.found.items[0]
    try:
        item = collect.pages(first.files[0], first.name, first.page)[0]
        names = channel_names(item, job.found.options, channels)
    except InputError:  # an archive of TFDS, or a bad file
        return None
    return list(names) if names else None


def _build(job: _ImportJob, content: Content, built: Path) -> Path:
    """Writes the data set below `built`; returns its folder."""
    with quiet():
        builder = job.builder(
            data_dir=str(built),
            config=config_of(job.builder, job.config),
            file_format="array_record",
            content=content,
        )
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return Path(builder.data_dir)


def _move(path: Path, target: Path, folder: Path) -> None:
    """Moves a finished data set to its place, where it replaces an earlier one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        replaced = folder / "replaced"
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
    path.rename(target)
    shutil.rmtree(folder)


class _ImportProgress:
    """A bar on a terminal; elsewhere a line after every tenth of the examples."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._done = self._said = 0
        self._bar = tqdm(desc=what, total=total, unit="pair", leave=False, disable=None)
        self._start = time.perf_counter()

    def __enter__(self) -> "_ImportProgress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def __call__(self, count: int) -> None:
        self._done += count
        self._bar.update(count)
        tenth = 10 * (self._done - self._said) >= self._total
        if self._bar.disable and (tenth or self._done == self._total):
            self._said = self._done
            rate = self._done / max(1e-9, time.perf_counter() - self._start)
            print(
                f"{self._what}: {self._done}/{self._total}, {rate:.0f} pairs/s",
                file=sys.stderr,
                flush=True,
            )
