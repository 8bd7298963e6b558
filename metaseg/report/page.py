"""Templates -> the text of a page, and the text -> a file that appears whole."""

import errno
import functools
import os
from pathlib import Path
from typing import Any

import jinja2
from etils import epath

__all__ = ["in_bucket", "render", "upload", "write"]

BUCKET = "gs://"  # how an address in Google Cloud Storage begins


def render(template: str, **parts: Any) -> str:
    """Fills in a template of this folder; what is not markup is escaped.

    Args:
        template: File name.
        **parts: What the template names.
    """
    return _templates().get_template(template).render(**parts)


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file beside its place and moves it there in one step.

    In a bucket, where files cannot be moved but appear whole, it goes there directly.

    Args:
        path: File to write; its folder is created if need be.
        text: All of it.

    Raises:
        OSError: it cannot be written; there is what was there before.
    """
    if in_bucket(path):
        upload(path, text.encode())
        return
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)


def in_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address in a bucket."""
    return os.fspath(path).startswith(BUCKET)


def upload(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file in a bucket anew.

    Args:
        path: Address in the bucket.
        content: All of it.

    Raises:
        OSError: it cannot be written.
    """
    try:
        epath.Path(path).write_bytes(content)
    except Exception as error:  # network and credentials have many ways to fail
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise OSError(errno.EIO, reason, os.fspath(path)) from error


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
