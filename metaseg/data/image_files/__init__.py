"""Image and label files: bytes to stored samples, samples to class ids.

`reading` knows the formats and says what is wrong with a file; `raster` (PNG, JPEG),
`tiff` and `arrays` (.npy, .npz) decode one family each, with the checks of `samples`;
`finding` lists folders. Host-side NumPy; imports no jax.
"""

from metaseg.data.image_files.arrays import is_stack
from metaseg.data.image_files.finding import walk
from metaseg.data.image_files.reading import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    array_names,
    class_ids,
    count_pages,
    read_image,
    read_label,
    read_label_values,
)
from metaseg.data.image_files.samples import MAX_PIXELS, quiet_decoders, some

__all__ = [
    "IMAGE_SUFFIXES",
    "LABEL_SUFFIXES",
    "MAX_PIXELS",
    "array_names",
    "class_ids",
    "count_pages",
    "is_stack",
    "quiet_decoders",
    "read_image",
    "read_label",
    "read_label_values",
    "some",
    "walk",
]
