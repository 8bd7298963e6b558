"""Checks of the arguments of jobs, before jax is imported.

Imports no jax.
"""

import os
from typing import Unpack

from metaseg import files as files_lib
from metaseg.data import collect, file_options, label_encoding
from metaseg.data.collect import Source
from metaseg.data.file_options import FileKeywords
from metaseg.errors import prefixed

__all__ = ["check_audit", "check_predict"]


def check_predict(
    run: str | os.PathLike[str],
    images: Source,
    *,
    labels: Source | None = None,
    **files: Unpack[FileKeywords],
) -> None:
    """Checks arguments of `predict.predict` before a network is loaded.

    Args:
      run: Work folder of a run.
      images: The images.
      labels: True label maps, or None.
      **files: How image and label files are read: fields of `FileOptions`.

    Raises:
      InputError: If an option is wrong, or a folder is not there.
    """
    label_encoding.check(file_options.build(**files))
    with prefixed("run: "):
        files_lib.read_run(files_lib.expanded(run), "config.json")
    collect.check(images, field="images")
    if labels is not None:
        collect.check(labels, field="labels", labels=True)


def check_audit(
    labels: Source,
    *,
    reference: Source | None = None,
    images: Source | None = None,
    **files: Unpack[FileKeywords],
) -> None:
    """Checks arguments of `audit.audit` before anything is read.

    Args:
      labels: The label maps.
      reference: Label maps that are believed to be right, or None.
      images: Images, or None.
      **files: How image and label files are read: fields of `FileOptions`.

    Raises:
      InputError: If an option is wrong, or a folder is not there.
    """
    label_encoding.check(file_options.build(**files))
    collect.check(labels, field="labels", labels=True)
    if reference is not None:
        collect.check(reference, field="reference", labels=True)
    if images is not None:
        collect.check(images, field="images")
