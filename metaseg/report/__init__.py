"""The self-contained `report.html` of a training run and `audit.html` of labels.

May import `files` and `errors`, numpy, scipy, matplotlib, pillow and jinja2; imports
neither jax nor flax. Arrays and plain dictionaries come in, one HTML file goes out.
matplotlib takes long to import and is imported when a page is written.

    panels.py     one test image and its labels; which pixels are errors
    pictures.py   arrays -> PNG data URIs, and the colours of classes and errors
    figures.py    history, histograms and profiles -> SVG data URIs
    tables.py     results -> rows of the page's tables
    wording.py    numbers and sentences
    template.py   templates -> the text of a page
    pages/        one module a page: run, ensemble, igtt, audit, predictions
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaseg.report.pages.audit import Thumbnail, write_audit
    from metaseg.report.pages.ensemble import Member, write_ensemble
    from metaseg.report.pages.igtt import Evolution, Shown, write_igtt
    from metaseg.report.pages.predictions import overlay, write_predictions
    from metaseg.report.pages.run import write_report
    from metaseg.report.panels import Panel

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
    "Evolution": "pages.igtt",
    "Member": "pages.ensemble",
    "Panel": "panels",
    "Shown": "pages.igtt",
    "Thumbnail": "pages.audit",
    "overlay": "pages.predictions",
    "write_audit": "pages.audit",
    "write_ensemble": "pages.ensemble",
    "write_igtt": "pages.igtt",
    "write_predictions": "pages.predictions",
    "write_report": "pages.run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
