"""Says what a folder of label maps still teaches, which are worst, and what is wrong.

    metaseg audit --labels=DIR --output=DIR
    metaseg audit --labels=DIR --reference=DIR --images=DIR --output=DIR

Writes audit.json, audit.csv (a row per label map, worst first) and audit.html. A second
run with the same output resumes where the first one stopped. Exit status 1: some files
were bad, they are listed; 2: nothing could be audited.
"""

import os

from absl import flags

from metaseg import host
from metaseg.cli import file_flags, parsing

FLAGS = flags.FlagValues()
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "Folder of label maps: PNG, TIFF, BMP, GIF, .npy, .npz.",
    flag_values=FLAGS,
)
_REFERENCE = flags.DEFINE_string(
    "reference",
    None,
    "Folder of label maps believed to be right, or by a second annotator, for some or "
    "all of the same names.",
    flag_values=FLAGS,
)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder of images of the same names, to show.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for the results.", flag_values=FLAGS
)
_NUM_CLASSES = flags.DEFINE_integer(
    "num_classes",
    0,
    "Number of classes; 0: one more than the highest class id found.",
    flag_values=FLAGS,
)
_CLASS_NAMES = flags.DEFINE_list(
    "class_names", None, "Names of the classes, separated by commas.", flag_values=FLAGS
)
_WORKERS = flags.DEFINE_integer(
    "workers",
    os.cpu_count() or 1,
    "Processes that read files; 0 reads in this one.",
    flag_values=FLAGS,
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the bootstrap.", flag_values=FLAGS)
file_flags.define(FLAGS, label_values="values")


def run() -> int:
    """Runs the audit; returns the exit status."""
    labels, output = (parsing.given_folder(flag) for flag in (_LABELS, _OUTPUT))
    from metaseg.runs import arguments  # late: --help needs no NumPy

    reference, images = map(parsing.optional_path, (_REFERENCE, _IMAGES))
    files = file_flags.given(FLAGS)
    arguments.check_audit(labels, reference=reference, images=images, **files)
    host.cache_compiled_programs()
    from metaseg.runs import audit  # later: imports jax

    found = audit.audit(
        labels,
        output,
        reference=reference,
        images=images,
        num_classes=_NUM_CLASSES.value,
        class_names=tuple(_CLASS_NAMES.value or ()),
        workers=_WORKERS.value,
        seed=_SEED.value,
        **files,
    )
    return int(bool(found.summary["bad"]))
