"""Files of a finished run: `results.json` and `report.html`."""

import importlib

from metaseg import files, report
from metaseg.runs.run import Run
from metaseg.runs.training import results as results_lib

__all__ = ["prepare", "write"]


def prepare() -> None:
    """Imports what `write` needs, such as matplotlib."""
    importlib.import_module("metaseg.report.pages.run")


def write(run: Run) -> None:
    """Writes results and reports of a run, and of its members, into its folder.

    Args:
      run: A finished run with a folder.

    Raises:
      OSError: If a file cannot be written.
    """
    for member in run.members or (run,):
        _write_member(member)
    if run.members:
        _write_ensemble(run)


def _write_member(run: Run) -> None:
    assert run.folder is not None
    results, data = run.results, run.results["data"]
    report.write_run(
        run.folder / "report.html",
        title=f"{data['name']}, {results_lib.noise_name(run.config)}",
        config=run.config.to_dict(),
        environment=run.environment,
        history=run.history,
        results=results,
        panels=run.panels,
        num_classes=data["num_classes"],
    )
    if results["test"]["loss"] is None:  # no labels: the predictions are the result
        for panel in run.panels:
            path = run.folder / "predictions" / f"{panel.name}.png"
            files.write_png(path, panel.prediction)
    files.write_json(run.folder / "results.json", results)


def _write_ensemble(run: Run) -> None:
    assert run.folder is not None
    rows, data = run.results["members"], run.results["data"]
    measure = results_lib.main_measure(run.members[0].results)
    report.write_ensemble(
        run.folder / "report.html",
        title=f"{data['name']}, {results_lib.noise_name(run.config)}",
        members=[
            report.Member(
                folder=row["folder"],
                differs=row["differs"],
                measures=row["test"][measure],
                history=member.history,
                diverged=row.get("diverged", 0),
            )
            for row, member in zip(rows, run.members, strict=True)
        ],
        config=run.config.to_dict(),
        environment=run.environment,
        num_classes=data["num_classes"],
        command=run.results["command"],
        time=run.results["time"],
        warnings=run.results.get("warnings", ()),
    )
    files.write_json(run.folder / "results.json", run.results)
