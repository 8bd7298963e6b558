"""The self-contained `report.html` of a training run.

Imports numpy, matplotlib, pillow and jinja2, and neither jax nor flax: arrays and
plain dictionaries come in, one HTML file goes out.

    panels.py     one test image and its labels; which pixels are errors
    pictures.py   arrays -> PNG data URIs, and the colours of classes and errors
    figures.py    history and histograms -> SVG data URIs
    tables.py     results -> rows of the page's tables
    wording.py    numbers and sentences
    html.py       all of it -> the page
"""

from metaseg.report.html import write_report
from metaseg.report.panels import Panel

__all__ = ["Panel", "write_report"]
