"""HTML pages of results: training runs, ensembles, iGTT, predictions and label audits.

Each page is one self-contained file; its input is arrays and plain dictionaries. May
import `files` and `errors`, numpy, scipy, matplotlib, pillow and jinja2; imports
neither jax nor flax. matplotlib is imported when the first page is written.

    panels.py     test images with labels and predictions; error maps
    pictures.py   arrays -> PNG data URIs; colours of classes, scores and errors
    figures.py    curves, histograms and boundary profiles -> SVG data URIs
    tables.py     results -> rows of the tables
    wording.py    numbers and sentences
    template.py   templates -> text of a page
    pages/        one module for each page: run, ensemble, igtt, audit, predictions
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from metaseg.report.pages.audit import Thumbnail, write_audit
    from metaseg.report.pages.ensemble import Member, write_ensemble
    from metaseg.report.pages.igtt import Evolution, Shown, write_igtt
    from metaseg.report.pages.predictions import overlay, write_predictions
    from metaseg.report.pages.run import write_run
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
    "write_run",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "pages.audit": ["Thumbnail", "write_audit"],
        "pages.ensemble": ["Member", "write_ensemble"],
        "pages.igtt": ["Evolution", "Shown", "write_igtt"],
        "pages.predictions": ["overlay", "write_predictions"],
        "pages.run": ["write_run"],
        "panels": ["Panel"],
    },
)
