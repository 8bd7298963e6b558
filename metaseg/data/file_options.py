"""The choices that say how image and label files are read: one meaning everywhere.

The fields are the flags of every command that reads files (`--label_values`), the
section `config.files` of a run, and the keyword arguments of the Python functions.
Imports neither jax nor NumPy.
"""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["DEFAULT", "INSTANCES", "FileOptions"]

INSTANCES = ("", "union", "border", "void")


class FileOptions(NamedTuple):
    """How image and label files are read.

    Attributes:
      channels: Channels of images to take, by index from 0 or by name; None: all.
      page: Page of files with several, from 0; None: each page is an image.
      apply_orientation: Whether pixels are turned upright as the orientation tag says;
        otherwise a file that is not stored upright is refused.
      image_suffix: What names of images end with before the ending of the file; None:
        nothing.
      label_suffix: The same for label maps; None: nothing or one of the known suffixes,
        such as "_mask".
      label_values: Class ids of stored values, such as "1-65535=1,*=255", or a mapping;
        None: the encoding is recognised.
      label_colors: Class ids of colours: path of a file, or "#dc143c=1,0:0:0=0", or a
        mapping; None: colours are refused.
      label_threshold: Values of at least this are class 1, smaller ones class 0; None:
        soft masks are refused.
      from_alpha: Whether label maps are in the alpha channel.
      instances: What becomes of instance ids: "union": every id is class 1; "border":
        the same, and pixels where objects touch are class 2; "void": those are void.
        "": instance ids are refused.
    """

    channels: tuple[int | str, ...] | None = None
    page: int | None = None
    apply_orientation: bool = False
    image_suffix: str | None = None
    label_suffix: str | None = None
    label_values: str | Mapping[int, int] | None = None
    label_colors: str | Mapping[tuple[int, int, int], int] | None = None
    label_threshold: float | None = None
    from_alpha: bool = False
    instances: str = ""


DEFAULT = FileOptions()
