"""Examples -> chunk files: read, checked and encoded by worker processes.

A chunk is a file of bytes and a JSON file that is written after it. The JSON file says
what the bytes are and from which input files they were made. An import that was stopped
leaves its chunks, and the next one uses those whose inputs have not changed. Imports no
jax and no TFDS, which every worker process would have to start.
"""

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from metaseg import host
from metaseg.data.file_options import FileOptions
from metaseg.data.importers import encoding
from metaseg.data.importers.encoding import ExampleRecord, StoragePlan
from metaseg.data.importers.pairs import Found, ImportExample, ImportItem
from metaseg.data.label_encoding import Survey
from metaseg.errors import InputError, escaped

__all__ = ["Staged", "Stamp", "Stored", "stage", "stamps", "workers"]

_CODE = 2  # version of the code; another version makes other bytes of the same inputs
_MOST_ITEMS = 64  # examples in a chunk
_LEAST_CHUNKS = 64  # so that workers share small data sets evenly
_PROBED = 4  # examples from which the first plan is made

Stamp = tuple[int, int]  # bytes and time of change in ns


class Stored(NamedTuple):
    """An example that has been read and encoded.

    Attributes:
      record: What the example is.
      path: File that holds its bytes.
    """

    record: ExampleRecord
    path: Path

    def read(self) -> tuple[bytes, bytes]:
        """Bytes of image and label."""
        with self.path.open("rb") as file:
            file.seek(self.record.offset)
            return file.read(self.record.image), file.read(self.record.label)


class Staged(NamedTuple):
    """All examples, in the order of the items, and how those that are good are stored.

    Attributes:
      stored: of each item; only those that are wanted follow the plan.
      plan: how.
      kept: examples that an earlier run had staged.
    """

    stored: list[Stored]
    plan: StoragePlan
    kept: int


class _Chunk(NamedTuple):
    path: Path  # without suffix
    items: Sequence[ImportItem]
    key: str


class _Part(NamedTuple):
    """A chunk's records and the key of the plan that they were written by."""

    records: list[ExampleRecord]
    plan: str


def stamps(paths: Sequence[Path]) -> dict[Path, Stamp]:
    """Returns what tells whether files have changed.

    Args:
      paths: Files.

    Returns:
      Size in bytes and time of modification in ns of each file; zeros for a file that
      does not exist.
    """

    def stamp(path: Path) -> Stamp:
        try:
            status = path.stat()
        except OSError:
            return 0, 0
        return status.st_size, status.st_mtime_ns

    return {path: stamp(path) for path in dict.fromkeys(paths)}


def stage(
    found: Found,
    stamp_of: Mapping[Path, Stamp],
    folder: Path,
    pool: Executor | None,
    progress: Callable[[int], None],
) -> Staged:
    """Reads, checks and encodes every example.

    Args:
      found: the examples.
      stamp_of: their files.
      folder: for the chunks.
      pool: worker processes, or None to read in this one.
      progress: is told how many more examples were looked at.

    Returns:
      What was staged.

    Raises:
      OSError: if a chunk cannot be written.
      InputError: if it is not clear how class ids are stored.
    """
    chunks = _chunks(found, stamp_of, folder)
    parts = {i: part for i, chunk in enumerate(chunks) if (part := _finished(chunk))}
    kept = sum(len(part.records) for part in parts.values())
    progress(kept)
    todo = [i for i in range(len(chunks)) if i not in parts]
    if todo:
        plan = encoding.guess_plan(_wanted(_known(parts, found, pool), found), found)
        parts |= _run([(i, chunks[i]) for i in todo], found, plan, pool, progress)
    every_record = [r for part in parts.values() for r in part.records]
    plan, wrong = encoding.make_plan(_wanted(every_record, found), found)
    # The first plan was a guess from a few examples; chunks of another plan are redone.
    again = [
        (i, chunks[i])
        for i, part in parts.items()
        if part.plan != plan.key()
        or any(
            not (r.image and r.label)
            for r in _wanted(part.records, found)
            if r.where not in wrong
        )
    ]
    parts |= _run(again, found, plan, pool, lambda count: None)
    stored = [
        Stored(
            record._replace(error=record.error or wrong.get(record.where, "")),
            chunk.path.with_suffix(".bin"),
        )
        for i, chunk in enumerate(chunks)
        for record in parts[i].records
    ]
    return Staged(stored, plan, kept)


@contextlib.contextmanager
def workers(count: int) -> Iterator[Executor | None]:
    """Starts processes that read files.

    Args:
      count: Number of processes; 0: none.

    Raises:
      InputError: if one of them dies.
    """
    if count == 0:
        yield None
        return
    # Forking a process that has threads can hang it.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=host.start_worker)
    try:
        yield pool
    except BrokenProcessPool:
        raise InputError(
            "workers: a worker process died, perhaps for lack of memory; run again"
            " with fewer workers, what is done is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _wanted(records: Sequence[ExampleRecord], found: Found) -> list[ExampleRecord]:
    return [r for r in records if not r.error and found.keep in ("", r.kind)]


def _known(
    parts: Mapping[int, _Part], found: Found, pool: Executor | None
) -> list[ExampleRecord]:
    """Records that a first plan can be made of."""
    known = [record for part in parts.values() for record in part.records]
    if known:
        return known
    step = max(1, len(found.items) // _PROBED)
    sample = found.items[::step][:_PROBED]
    look = functools.partial(_look, read=_reader(found))
    return [*map(look, sample)] if pool is None else [*pool.map(look, sample)]


class _Reader(NamedTuple):
    """How examples are read: `Found.read`, and options if labels are surveyed."""

    read: Callable[[ImportItem], ImportExample]
    options: FileOptions | None


def _reader(found: Found) -> _Reader:
    return _Reader(found.read, found.options if found.encoding is None else None)


def _look(item: ImportItem, read: _Reader) -> ExampleRecord:
    return _examine(item, read)[0]


def _chunks(found: Found, stamp_of: Mapping[Path, Stamp], folder: Path) -> list[_Chunk]:
    size = min(_MOST_ITEMS, max(1, len(found.items) // _LEAST_CHUNKS))
    chunks = []
    for start in range(0, len(found.items), size):
        items = found.items[start : start + size]
        described = [
            (*item[:2], item.page, [(str(p), stamp_of[p]) for p in item.files])
            for item in items
        ]
        # The function that reads, what it is bound to, and what surveys depend on.
        key = hashlib.sha256(pickle.dumps(_reader(found)))
        key.update(repr((_CODE, described)).encode())
        chunks.append(_Chunk(folder / f"{start:08d}", items, key.hexdigest()))
    return chunks


def _run(
    chunks: Sequence[tuple[int, _Chunk]],
    found: Found,
    plan: StoragePlan,
    pool: Executor | None,
    progress: Callable[[int], None],
) -> dict[int, _Part]:
    parts: dict[int, _Part] = {}
    write = functools.partial(_write, read=_reader(found), plan=plan)
    if pool is None:
        for i, chunk in chunks:
            parts[i] = _Part(write(chunk), plan.key())
            progress(len(chunk.items))
        return parts
    futures: dict[Future[list[ExampleRecord]], int] = {
        pool.submit(write, chunk): i for i, chunk in chunks
    }
    for future in as_completed(futures):
        parts[futures[future]] = _Part(future.result(), plan.key())
        progress(len(parts[futures[future]].records))
    return parts


def _examine(
    item: ImportItem, read: _Reader
) -> tuple[ExampleRecord, ImportExample | None]:
    """The record of an example, and the example if it is good."""
    blank = ExampleRecord(item.name, item.split, escaped(str(item.files[0])))
    try:
        example = read.read(item)
        return encoding.check(blank, example, item.files, read.options), example
    except InputError as error:
        return blank._replace(error=escaped(str(error))), None


def _write(chunk: _Chunk, read: _Reader, plan: StoragePlan) -> list[ExampleRecord]:
    """Stages one chunk; its JSON file appears last, and whole."""
    records: list[ExampleRecord] = []
    data, facts = chunk.path.with_suffix(".bin"), chunk.path.with_suffix(".json")
    scratch = chunk.path.with_suffix(f".{os.getpid()}")
    facts.unlink(missing_ok=True)
    with scratch.open("wb") as out:
        for item in chunk.items:
            record, example = _examine(item, read)
            if example is not None:
                image = encoding.encode_image(example, plan)
                label, record = encoding.encode_label(example, record, plan)
                record = record._replace(
                    offset=out.tell(), image=len(image), label=len(label)
                )
                out.write(image)
                out.write(label)
            records.append(record)
        size = out.tell()
    scratch.replace(data)
    described = {
        "key": chunk.key,
        "size": size,
        "plan": plan.key(),
        "records": [_plain(record) for record in records],
    }
    scratch.write_text(json.dumps(described), encoding="utf-8")
    scratch.replace(facts)
    return records


def _finished(chunk: _Chunk) -> _Part | None:
    """A chunk of an earlier run, if its inputs are as they were."""
    try:
        facts = json.loads(chunk.path.with_suffix(".json").read_text(encoding="utf-8"))
        size = chunk.path.with_suffix(".bin").stat().st_size
        if facts["key"] != chunk.key or facts["size"] != size:
            return None
        return _Part([_record(fields) for fields in facts["records"]], facts["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plain(record: ExampleRecord) -> dict[str, Any]:
    """Fields for JSON, which has no numbers as keys."""
    survey = record.survey and record.survey._asdict()
    for fields in [survey] if survey else []:
        fields["counts"] = list(fields["counts"].items())
        fields["listed"] = list(fields["listed"].items())
    pixels = list(record.pixels.items())
    return {**record._asdict(), "pixels": pixels, "survey": survey}


def _record(fields: dict[str, Any]) -> ExampleRecord:
    survey = fields["survey"]
    if survey:
        counts, listed = dict(survey["counts"]), dict(survey["listed"])
        survey = Survey(**{**survey, "counts": counts, "listed": listed})
    size, pixels = tuple(fields["size"]), dict(fields["pixels"])
    return ExampleRecord(**{**fields, "size": size, "pixels": pixels, "survey": survey})
