"""Image and label files: bytes to stored samples, samples to class ids.

`reading` knows the formats and says what is wrong with a file; `raster` (PNG, JPEG,
BMP, GIF), `tiff` and `arrays` (.npy, .npz) decode one family each, with the checks of
`samples`; `unsupported` names kinds that are not read; `finding` lists folders.
Host-side NumPy; imports no jax.
"""

from metaseg.data.image_files.arrays import is_stack
from metaseg.data.image_files.reading import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    array_names,
    channel_names,
    class_ids,
    count_pages,
    integers,
    read_image,
    read_label,
    read_label_values,
)
from metaseg.data.image_files.samples import MAX_PIXELS, quiet_decoders, some
from metaseg.data.image_files.unsupported import unsupported

__all__ = [
    "IMAGE_SUFFIXES",
    "LABEL_SUFFIXES",
    "MAX_PIXELS",
    "array_names",
    "channel_names",
    "class_ids",
    "count_pages",
    "integers",
    "is_stack",
    "quiet_decoders",
    "read_image",
    "read_label",
    "read_label_values",
    "some",
    "unsupported",
]
