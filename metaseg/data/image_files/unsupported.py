"""Files that are known and not read, each with the export that makes them readable.

Imports neither jax nor NumPy.
"""

from pathlib import Path

__all__ = ["PICKLE", "UNSUPPORTED", "unsupported"]

PICKLE = (
    "an array of Python objects, a pickle, which can run programs when it is opened;"
    " expected numbers. Cellpose exports the masks of a _seg.npy file as images by"
    " File > Save masks as PNG, or its options save_png and save_tif"
)

_MEDICAL = (
    "a medical volume; expected 2-D images or a stack. Export its planes:"
    " numpy.save('NAME.npy', numpy.moveaxis(nibabel.load(FILE).get_fdata(), -1, 0))"
)
_ZARR = (
    "a Zarr array of many files; expected an image file. Export the resolution level"
    " that you need: tifffile.imwrite('NAME.ome.tif', zarr.open(FOLDER)['0'][:])"
)
_FIJI = "a microscope's own format; expected TIFF. Export it as OME-TIFF with"
_BIOFORMATS = f"{_FIJI} Fiji (Bio-Formats) or bfconvert"
_WRITE_AGAIN = "; expected PNG or TIFF. Convert it, without loss for label maps"

UNSUPPORTED = {
    ".nii": _MEDICAL,
    ".nii.gz": _MEDICAL,
    ".mha": _MEDICAL,
    ".mhd": _MEDICAL,
    ".nrrd": _MEDICAL,
    ".dcm": "a DICOM file; expected an image file. Export it as 16-bit TIFF",
    ".zarr": _ZARR,
    ".czi": _BIOFORMATS,
    ".nd2": _BIOFORMATS,
    ".lif": _BIOFORMATS,
    ".oib": _BIOFORMATS,
    ".oif": _BIOFORMATS,
    ".vsi": _BIOFORMATS,
    ".h5": "an HDF5 file; expected .npy or TIFF. Export each image of it",
    ".hdf5": "an HDF5 file; expected .npy or TIFF. Export each image of it",
    ".webp": f"a WebP image{_WRITE_AGAIN}",
    ".jp2": f"a JPEG 2000 image{_WRITE_AGAIN}",
    ".svs": "a whole slide; expected regions of it. Export them as TIFF with QuPath",
    ".ndpi": "a whole slide; expected regions of it. Export them as TIFF with QuPath",
}


def unsupported(path: Path) -> str | None:
    """Says why a file or folder of a known kind is not read, and what helps.

    The name tells the kind, except for _seg.npy: such a file of plain numbers is read.

    Args:
      path: File or folder.

    Returns:
      One line without the name of the file; None for kinds that are read or unknown.
    """
    name = path.name.lower()
    for ending, line in UNSUPPORTED.items():
        if name.endswith(ending) and len(name) > len(ending):
            return line
    if name.endswith("_seg.npy") and _is_pickle(path):
        return PICKLE
    return None


def _is_pickle(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            start = stream.read(256)
    except OSError:
        return False
    return start.startswith(b"\x93NUMPY") and b"'descr': '|O'" in start
