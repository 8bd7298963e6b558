"""Templates -> the text of a page, and the text -> a file that appears whole."""

import functools
import os
from pathlib import Path
from typing import Any

import jinja2

__all__ = ["render", "write"]


def render(template: str, **parts: Any) -> str:
    """Fills in a template of this folder; what is not markup is escaped.

    Args:
        template: File name.
        **parts: What the template names.
    """
    return _templates().get_template(template).render(**parts)


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file beside its place and moves it there in one step.

    Args:
        path: File to write; its folder is created if need be.
        text: All of it.
    """
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metaseg.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["hex"] = lambda colour: "#{:02x}{:02x}{:02x}".format(*colour)
    return environment
