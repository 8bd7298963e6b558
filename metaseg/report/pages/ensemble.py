"""Runs that were trained side by side -> the page that compares them."""

import os
import statistics
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from metaseg import files
from metaseg.report import figures, tables, template, wording

__all__ = ["Member", "write_ensemble"]

TEMPLATE = "ensemble.html.jinja"
LONGEST = 24  # characters of a value that a cell of the table shows


class Member(NamedTuple):
    """One run of an ensemble.

    Attributes:
      folder: Its folder, relative to the page's; holds its own report.html.
      differs: Value of each config field that members differ in.
      measures: Test IoU (mean IoU for more than two classes) per reading; None where
        it is not known.
      history: Rows of its metrics.jsonl.
      diverged: Step at which its loss was no longer finite; 0 if it always was.
    """

    folder: str
    differs: Mapping[str, Any]
    measures: Mapping[str, float | None]
    history: Sequence[Mapping[str, Any]]
    diverged: int = 0


def write_ensemble(
    path: str | os.PathLike[str],
    *,
    title: str,
    members: Sequence[Member],
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    num_classes: int,
    command: str,
    time: Mapping[str, Any],
) -> None:
    """Writes the page of an ensemble: its runs side by side, with links to theirs.

    The file appears at once and whole, needs no network, and no other file but where
    one follows a link.

    Args:
      path: File to write; its folder is created if need be.
      title: Heading of the page.
      members: The runs, in the order of their numbers.
      config: Resolved configuration of the whole, nested dictionaries.
      environment: Versions, devices and the like, likewise.
      num_classes: Number of classes K.
      command: What was run; may be empty.
      time: As "time" of results.json, for all runs together; may be empty.

    Raises:
      ValueError: If there is no member.
    """
    if not members:
        raise ValueError("members: got none, expected at least one run")
    fields = list(dict.fromkeys(field for each in members for field in each.differs))
    readings = [r for r in wording.READINGS if _known(members, r)]
    overlap = "IoU" if num_classes == 2 else "mean IoU"
    groups = _groups(members, fields)
    main = next((r for r in ("analytic", *readings) if r in readings), "")
    text = template.render(
        TEMPLATE,
        title=title,
        sentence=_sentence(members, fields),
        facts=_facts(members, groups, main, overlap, time),
        fields=fields,
        readings=readings,
        reading_names=wording.READINGS,
        # A run's own page goes on to say which reading its pictures show.
        reading_notes={
            r: wording.READING_NOTES[r].split(" The pictures")[0] for r in readings
        },
        diverged=sum(each.diverged > 0 for each in members),
        overlap=overlap,
        charts=figures.member_charts(
            [each.history for each in members],
            [each.measures.get(main) for each in members],
            diverged=[each.diverged > 0 for each in members],
            varied=_varied_number(members, fields),
            overlap=overlap,
            reading=wording.READINGS.get(main, ""),
        ),
        command=command,
        times=tables.time_rows(time),
        config=tables.flatten(config),
        environment=tables.flatten(environment),
        **_table(members, fields, readings, groups),
    )
    files.write_text(path, text)


def _known(members: Sequence[Member], reading: str) -> list[float]:
    """The measures of the members that did not diverge, where they are numbers."""
    values = [each.measures.get(reading) for each in members if not each.diverged]
    return [value for value in values if wording.is_number(value)]


def _is_seed(field: str) -> bool:
    return field.rpartition(".")[2] == "seed"


def _frozen(value: Any) -> Any:
    """The value as what can be compared and hashed."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return str(value) if isinstance(value, Mapping) else value


def _settings(member: Member, fields: Sequence[str], *, seeds: bool) -> tuple[Any, ...]:
    """What a member has in the fields that are seeds, or in those that are not."""
    return tuple(
        _frozen(member.differs.get(field))
        for field in fields
        if _is_seed(field) == seeds
    )


def _groups(members: Sequence[Member], fields: Sequence[str]) -> list[list[int]]:
    """Numbers of the members that differ in seeds alone, in groups of two or more.

    Only these are repetitions of one experiment, of which a mean and a standard
    deviation mean something. Runs with the same seeds too are the same run twice.
    """
    found: dict[Any, list[int]] = {}
    for i, each in enumerate(members):
        found.setdefault(_settings(each, fields, seeds=False), []).append(i)
    seeds = [_settings(each, fields, seeds=True) for each in members]
    return [
        group
        for group in found.values()
        if len({seeds[i] for i in group}) == len(group) > 1
    ]


def _varied_number(
    members: Sequence[Member], fields: Sequence[str]
) -> tuple[str, list[float]] | None:
    """The one field but seeds that members differ in, where it is a number."""
    columns = {
        field: [_frozen(each.differs.get(field)) for each in members]
        for field in fields
        if not _is_seed(field)
    }
    varied = {f: values for f, values in columns.items() if len(set(values)) > 1}
    if len(varied) != 1:
        return None
    field, values = varied.popitem()
    return (field, values) if all(map(wording.is_number, values)) else None


def _best(members: Sequence[Member], readings: Sequence[str]) -> dict[str, str]:
    """The highest measure of each reading as it is written, so that ties share it."""
    if len(members) < 2:
        return dict.fromkeys(readings, "")
    return {r: wording.number(max(_known(members, r))) for r in readings}


def _table(
    members: Sequence[Member],
    fields: Sequence[str],
    readings: Sequence[str],
    groups: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """Lays out a row for each member and one for each group of them."""
    cells = {f: _cells([each.differs.get(f) for each in members]) for f in fields}
    best = _best(members, readings)
    rows = [
        {**_row(each, best), "values": [cells[f][i] for f in fields]}
        for i, each in enumerate(members)
    ]
    means = [
        {
            **_group_row([members[i] for i in group], readings),
            "values": [("", "") if _is_seed(f) else cells[f][group[0]] for f in fields],
        }
        for group in groups
    ]
    return {"rows": rows, "groups": means}


def _row(member: Member, best: Mapping[str, str]) -> dict[str, Any]:
    scores = [(r, wording.number(member.measures.get(r))) for r in best]
    return {
        "name": member.folder,
        # Quoted, no folder's name can be taken for another kind of address.
        "link": urllib.parse.quote(f"{member.folder}/report.html"),
        "diverged": member.diverged,
        "scores": [
            (text, text == best[r] and not member.diverged) for r, text in scores
        ],
    }


def _group_row(group: Sequence[Member], readings: Sequence[str]) -> dict[str, Any]:
    left = sum(not each.diverged for each in group)
    return {
        "size": f"{left} of {len(group)}" if left < len(group) else str(left),
        "scores": [_mean(_known(group, reading)) for reading in readings],
    }


def _mean(values: Sequence[float]) -> str:
    """Mean and standard deviation, as far as so many values have them."""
    if len(values) < 2:
        return wording.number(values[0]) if values else wording.DASH
    deviation = wording.number(statistics.stdev(values))
    return f"{wording.number(statistics.fmean(values))} ± {deviation}"


def _cells(values: Sequence[Any]) -> list[tuple[str, str]]:
    """Each value of a column, short enough for a cell, and whole if it was not.

    What is cut off at the front is what all values have in common.
    """
    texts = [_text(_frozen(value)) for value in values]
    columns = enumerate(zip(*texts, strict=False))
    apart = next((i for i, letters in columns if len(set(letters)) > 1), 0)
    start = texts[0].rfind(" ", 0, apart) + 1 if apart > LONGEST // 2 else 0
    return [
        (text, "") if len(text) <= LONGEST else (_cut(text, start), text)
        for text in texts
    ]


def _cut(text: str, start: int) -> str:
    end = start + LONGEST
    return f"{'…' * (start > 0)}{text[start:end]}{'…' * (end < len(text))}"


def _text(value: Any) -> str:
    if value is None:
        return wording.DASH
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _sentence(members: Sequence[Member], fields: Sequence[str]) -> str:
    """Says what this is."""
    runs = f"{len(members)} independent run{'s' if len(members) > 1 else ''}"
    varied = [
        field
        for field in fields
        if len({_frozen(each.differs.get(field)) for each in members}) > 1
    ]
    told = sorted(varied, key=_is_seed)
    sentence = f"{runs}, trained side by side by one program"
    if told:
        listed = " and ".join(filter(None, [", ".join(told[:-1]), told[-1]]))
        alone = " alone" if all(map(_is_seed, told)) else ""
        sentence += f"; they differ in {listed}{alone}"
    return f"{sentence}."


def _facts(
    members: Sequence[Member],
    groups: Sequence[Sequence[int]],
    reading: str,
    overlap: str,
    time: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """Lists sizes, costs and how it went; what is missing is not listed."""
    diverged = sum(each.diverged > 0 for each in members)
    rows = [("Runs", str(len(members)))]
    if diverged:
        rows.append(("Diverged", str(diverged)))
    if reading:
        values = _known(members, reading)
        if len(groups) == 1 and len(groups[0]) == len(members):
            said = _mean(values)
        else:
            ends = [wording.number(end(values)) for end in (min, max)]
            said = " to ".join(dict.fromkeys(ends))
        name = wording.READINGS[reading].lower()
        rows.append((f"Test {overlap} ({name})", said))
    return rows + wording.facts({"time": time})
