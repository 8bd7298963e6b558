"""The self-contained `report.html` of a training run and `audit.html` of labels.

Imports numpy, scipy, matplotlib, pillow and jinja2, and neither jax nor flax: arrays
and plain dictionaries come in, one HTML file goes out. What takes long to import
(matplotlib) is imported when a page is written, which is at the end.

    panels.py     one test image and its labels; which pixels are errors
    pictures.py   arrays -> PNG data URIs, and the colours of classes and errors
    figures.py    history, histograms and profiles -> SVG data URIs
    tables.py     results -> rows of the page's tables
    wording.py    numbers and sentences
    html.py       a run's results, history and test images -> its report
    audit.py      numbers and label maps of an audit -> its page
    ensemble.py   runs trained side by side -> the page that compares them
    igtt.py       masks found without labels, round by round -> their page
    predictions.py  predicted images -> overlays and their page
    page.py       templates -> text -> a file that appears at once
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaseg.report.audit import Thumbnail, write_audit
    from metaseg.report.ensemble import Member, write_ensemble
    from metaseg.report.html import write_report
    from metaseg.report.igtt import Evolution, Shown, write_igtt
    from metaseg.report.panels import Panel
    from metaseg.report.predictions import overlay, write_predictions

__all__ = [
    "Evolution",
    "Member",
    "Panel",
    "Shown",
    "Thumbnail",
    "overlay",
    "write_audit",
    "write_ensemble",
    "write_igtt",
    "write_predictions",
    "write_report",
]

_HOMES = {
    "Evolution": "igtt",
    "Member": "ensemble",
    "Panel": "panels",
    "Shown": "igtt",
    "Thumbnail": "audit",
    "overlay": "predictions",
    "write_audit": "audit",
    "write_ensemble": "ensemble",
    "write_igtt": "igtt",
    "write_predictions": "predictions",
    "write_report": "html",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
