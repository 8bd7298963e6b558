"""Where examples come from, and how they become batches.

    images, labels = ...  # NumPy arrays [N, H, W]
    data = metaseg.data.from_arrays(images, labels)  # a Dataset

- arrays: arrays in memory -> a data set
- folder: a folder of images and labels -> a data set
- prepared: what `experiments/prepare.py` wrote -> a data set
- synthetic: rendered images -> a data set
- families: names and classes of the rendered images
- importers: published data sets -> prepared ones
- image_files: files -> pixels
- collect: folder, file, pattern, paths or arrays -> items, read ahead
- label_encoding: stored values of label maps -> their encoding, class ids
- label_files: label maps of a folder -> class ids, read by worker processes
- normalize, augment: what happens to images
- dataset, pipeline: splits; batches of splits
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from metaseg.data.arrays import from_arrays
    from metaseg.data.dataset import Dataset, Split

__all__ = ["Dataset", "Split", "from_arrays"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submodules=(
        "arrays",
        "augment",
        "collect",
        "dataset",
        "families",
        "folder",
        "image_files",
        "importers",
        "label_encoding",
        "label_files",
        "normalize",
        "pipeline",
        "prepared",
        "synthetic",
    ),
    submod_attrs={"arrays": ["from_arrays"], "dataset": ["Dataset", "Split"]},
)
