"""report.html of an ensemble: a comparison of runs that were trained together."""

import os
import statistics
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from metaseg import files
from metaseg.report import figures, tables, template, wording

__all__ = ["Member", "write_ensemble"]

TEMPLATE = "ensemble.html.jinja"
LONGEST = 24  # characters of a value in a cell of the table


class Member(NamedTuple):
    """One run of an ensemble.

    Attributes:
      folder: Folder of the run, relative to that of the page. It contains the
        report.html of the run.
      differs: Values of the config fields in which members differ.
      measures: Test IoU, or mean IoU for more than two classes, of each decision rule;
        None if unknown.
      history: Rows of metrics.jsonl of the run.
      diverged: First step with a loss that was not finite; 0 if there was none.
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
    warnings: Sequence[str] = (),
) -> None:
    """Writes the page of an ensemble, with links to the pages of its runs.

    The page is one self-contained HTML file. The write is atomic: if it fails, an older
    file at `path` is kept.

    Args:
      path: File to write. Its folder is created if it does not exist.
      title: Heading of the page.
      members: Runs, in the order of their numbers.
      config: Resolved configuration of the ensemble: nested dictionaries.
      environment: Versions, devices and so on: nested dictionaries of plain values.
      num_classes: Number of classes K.
      command: Command line of the ensemble; may be empty.
      time: "time" of results.json, for all runs together; may be empty.
      warnings: What the data leave undefined, in sentences.

    Raises:
      ValueError: If there is no member.
    """
    if not members:
        raise ValueError("members: got none, expected at least one run")
    fields = list(dict.fromkeys(field for each in members for field in each.differs))
    rules = [r for r in wording.DECISION_RULES if _known(members, r)]
    overlap = "IoU" if num_classes == 2 else "mean IoU"
    groups = _groups(members, fields)
    main = next((r for r in ("analytic", *rules) if r in rules), "")
    text = template.render(
        TEMPLATE,
        title=title,
        sentence=_sentence(members, fields),
        facts=_facts(members, groups, main, overlap, time),
        warnings=warnings,
        fields=fields,
        rules=rules,
        rule_names=wording.DECISION_RULES,
        rule_notes=wording.RULE_NOTES,
        diverged=sum(each.diverged > 0 for each in members),
        overlap=overlap,
        charts=figures.member_charts(
            [each.history for each in members],
            [each.measures.get(main) for each in members],
            diverged=[each.diverged > 0 for each in members],
            varied=_varied_number(members, fields),
            overlap=overlap,
            rule=wording.DECISION_RULES.get(main, "").lower(),
        ),
        command=command,
        times=tables.time_rows(time),
        config=tables.flatten(config),
        environment=tables.flatten(environment),
        **_table(members, fields, rules, groups),
    )
    files.write_text(path, text)


def _known(members: Sequence[Member], rule: str) -> list[float]:
    """Returns the finite measures of the members that did not diverge."""
    values = [each.measures.get(rule) for each in members if not each.diverged]
    return [value for value in values if wording.is_number(value)]


def _is_seed(field: str) -> bool:
    return field.rpartition(".")[2] == "seed"


def _frozen(value: Any) -> Any:
    """Converts a value to one that can be compared and hashed."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return str(value) if isinstance(value, Mapping) else value


def _settings(member: Member, fields: Sequence[str], *, seeds: bool) -> tuple[Any, ...]:
    """Returns the values of the fields that are seeds, or of those that are not."""
    return tuple(
        _frozen(member.differs.get(field))
        for field in fields
        if _is_seed(field) == seeds
    )


def _groups(members: Sequence[Member], fields: Sequence[str]) -> list[list[int]]:
    """Groups the members that differ in seeds only; groups have two or more members.

    Only such groups repeat one experiment, and have a meaningful mean and standard
    deviation. Runs with equal seeds are copies and form no group.
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
    """Returns the only field, seeds aside, in which members differ, if numeric."""
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


def _best(members: Sequence[Member], rules: Sequence[str]) -> dict[str, str]:
    """Returns the text of the highest measure of each rule; ties have equal texts."""
    if len(members) < 2:
        return dict.fromkeys(rules, "")
    return {r: wording.number(max(_known(members, r))) for r in rules}


def _table(
    members: Sequence[Member],
    fields: Sequence[str],
    rules: Sequence[str],
    groups: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """Makes one row for each member and for each group of members."""
    cells = {f: _cells([each.differs.get(f) for each in members]) for f in fields}
    best = _best(members, rules)
    rows = [
        {**_row(each, best), "values": [cells[f][i] for f in fields]}
        for i, each in enumerate(members)
    ]
    means = [
        {
            **_group_row([members[i] for i in group], rules),
            "values": [("", "") if _is_seed(f) else cells[f][group[0]] for f in fields],
        }
        for group in groups
    ]
    return {"rows": rows, "groups": means}


def _row(member: Member, best: Mapping[str, str]) -> dict[str, Any]:
    scores = [(r, wording.number(member.measures.get(r))) for r in best]
    return {
        "name": member.folder,
        # Quoting keeps the name of a folder from becoming another kind of address.
        "link": urllib.parse.quote(f"{member.folder}/report.html"),
        "diverged": member.diverged,
        "scores": [
            (text, text == best[r] and not member.diverged) for r, text in scores
        ],
    }


def _group_row(group: Sequence[Member], rules: Sequence[str]) -> dict[str, Any]:
    left = sum(not each.diverged for each in group)
    return {
        "size": f"{left} of {len(group)}" if left < len(group) else str(left),
        "scores": [_mean(_known(group, rule)) for rule in rules],
    }


def _mean(values: Sequence[float]) -> str:
    """Formats mean and sample standard deviation; one value has no deviation."""
    if len(values) < 2:
        return wording.number(values[0]) if values else wording.DASH
    deviation = wording.number(statistics.stdev(values))
    return f"{wording.number(statistics.fmean(values))} ± {deviation}"


def _cells(values: Sequence[Any]) -> list[tuple[str, str]]:
    """Shortens the values of a column; returns short and, if cut, complete texts.

    A common beginning of all values is cut off if it is long.
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
    """Describes the ensemble: number of runs, and the fields in which they differ."""
    runs = f"{len(members)} independent run{'s' if len(members) > 1 else ''}"
    varied = [
        field
        for field in fields
        if len({_frozen(each.differs.get(field)) for each in members}) > 1
    ]
    told = sorted(varied, key=_is_seed)
    sentence = f"{runs}, trained together by one program."
    if told:
        listed = " and ".join(filter(None, [", ".join(told[:-1]), told[-1]]))
        only = " only" if all(map(_is_seed, told)) else ""
        sentence += f" The runs differ in {listed}{only}."
    return sentence


def _facts(
    members: Sequence[Member],
    groups: Sequence[Sequence[int]],
    rule: str,
    overlap: str,
    time: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """Lists number of runs, test scores and costs. Unknown values are left out."""
    diverged = sum(each.diverged > 0 for each in members)
    rows = [("Runs", str(len(members)))]
    if diverged:
        rows.append(("Diverged", str(diverged)))
    if rule:
        values = _known(members, rule)
        if len(groups) == 1 and len(groups[0]) == len(members):
            said = _mean(values)
        else:
            ends = [wording.number(end(values)) for end in (min, max)]
            said = " to ".join(dict.fromkeys(ends))
        name = wording.DECISION_RULES[rule].lower()
        rows.append((f"Test {overlap} ({name})", said))
    return rows + wording.facts({"time": time})
