"""A TIFF file of scores that is written strip by strip. Host side."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import tifffile
from jaxtyping import Float32

from metaseg import files

__all__ = ["ScoreFile"]


class ScoreFile:
    """A 32-bit TIFF that appears at its path once all strips are written.

    with ScoreFile(path, 1, height, width) as scores:
        scores.write(0, rows)
        scores.finish()
    """

    def __init__(self, path: Path, planes: int, height: int, width: int) -> None:
        """Reserves the space on the disk.

        Args:
          path: Final path of the file.
          planes: Number of planes; a single one is stored as `[height, width]`.
          height: Rows.
          width: Columns.

        Raises:
          OSError: If the file cannot be written or the disk is full.
        """
        self._path, self._draft = path, files.scratch(path)
        self._planes = planes
        tifffile.memmap(
            self._draft,
            shape=(planes, height, width) if planes > 1 else (height, width),
            dtype=np.float32,
            photometric="minisblack",
            bigtiff=4 * planes * height * width > 4_000_000_000,
        )
        if hasattr(os, "posix_fallocate"):
            # A full disk is an error here; while mapped memory is written it would end
            # the process.
            with self._draft.open("r+b") as file:
                size = os.fstat(file.fileno()).st_size
                os.posix_fallocate(file.fileno(), 0, size)

    def write(self, start: int, scores: Float32[np.ndarray, "h W planes"]) -> None:
        """Writes rows.

        Args:
          start: First row.
          scores: float32 `[h, W, planes]`.
        """
        # Mapped anew for each strip, so that written pages do not stay in memory.
        image = tifffile.memmap(self._draft, mode="r+")
        rows = slice(start, start + len(scores))
        if self._planes > 1:
            image[:, rows] = np.moveaxis(scores, -1, 0)
        else:
            image[rows] = scores[..., 0]
        image.flush()

    def finish(self) -> None:
        """Moves the file to its path."""
        self._draft.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._draft.unlink(missing_ok=True)
