"""The flags that say how image and label files are read, the same in every command."""

from typing import Any

from absl import flags

from metaseg.data import file_options
from metaseg.data.file_options import FileKeywords, FileOptions

__all__ = ["define", "given"]


_HELP = {
    "channels": "Channels of images to take, by index from 0 or by name: 0,2 or DAPI; "
    "by default all.",
    "page": "Page of files with several, from 0; by default each page is an image.",
    "apply_orientation": "Turn pixels upright as the orientation tag (EXIF) says.",
    "image_suffix": "What names of images end with before the ending of the file, such "
    "as _img.",
    "label_suffix": "The same for label maps; by default nothing or a known suffix, "
    "such as _mask.",
    "label_values": "Class ids of stored values, 255 for void: 1=1,2=0,3=255; with "
    "ranges and a rest: 1-65535=1,*=255.",
    "label_colors": "Class ids of colours: a file, or '#dc143c=1,#000000=0'.",
    "label_threshold": "Values of label maps of at least this are class 1, smaller "
    "ones class 0.",
    "from_alpha": "Label maps are in the alpha channel.",
    "instances": "What becomes of instance ids: union: class 1; border: the same, and "
    "class 2 where objects touch; void: those pixels are void.",
}


def define(own: flags.FlagValues, **aliases: str) -> None:
    """Defines a flag for each field of `FileOptions`.

    Args:
      own: Flags of the command.
      **aliases: Other names by the name of a flag, such as `label_values="values"`.
    """
    for name, text in _HELP.items():
        default = getattr(file_options.DEFAULT, name)
        if name == "page":
            flags.DEFINE_integer(name, default, text, flag_values=own)
        elif name == "label_threshold":
            flags.DEFINE_float(name, default, text, flag_values=own)
        elif name == "instances":
            choices = list(file_options.INSTANCES)
            flags.DEFINE_enum(name, default, choices, text, flag_values=own)
        elif isinstance(default, bool):
            flags.DEFINE_bool(name, default, text, flag_values=own)
        else:
            flags.DEFINE_string(name, default, text, flag_values=own)
    for name, other in aliases.items():
        flags.DEFINE_alias(other, name, flag_values=own)


def given(own: flags.FlagValues) -> FileKeywords:
    """Returns the parsed flags as keyword arguments, see `file_options.build`.

    Args:
      own: Flags of the command.
    """
    fields: Any = {name: own[name].value for name in FileOptions._fields}
    return fields
