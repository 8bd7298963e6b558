"""Templates -> text of a page. Imports jinja2 only."""

import functools
from typing import Any

import jinja2

__all__ = ["render"]


def render(template: str, **parts: Any) -> str:
    """Fills in a template and escapes all values.

    Args:
      template: File name of a template in `metaseg/report/pages`.
      **parts: Values of the names in the template.

    Returns:
      The text of the page.
    """
    return _templates().get_template(template).render(**parts)


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metaseg.report", "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["hex"] = lambda colour: "#{:02x}{:02x}{:02x}".format(*colour)
    return environment
