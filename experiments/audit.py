"""Says what a folder of label maps still teaches, which are worst, and what is wrong.

    python experiments/audit.py --labels=DIR --output=DIR
    python experiments/audit.py --labels=DIR --reference=DIR --images=DIR --output=DIR

Writes audit.json, audit.csv (a row per label map, worst first) and audit.html. A second
run with the same output goes on where the first one stopped. Exit status: 0; 1 if some
files were bad, they are listed; 2 if nothing could be audited.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging

from metaseg.errors import InputError, prefixed

_LABELS = flags.DEFINE_string(
    "labels", None, "Folder of label maps: .png, .tif, .tiff, .npy, .npz."
)
_REFERENCE = flags.DEFINE_string(
    "reference",
    None,
    "Folder of label maps believed to be right, or by a second annotator, for some or "
    "all of the same names.",
)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder of images of the same names, for thumbnails."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.")
_NUM_CLASSES = flags.DEFINE_integer(
    "num_classes", 0, "K; by default one more than the highest class id found."
)
_CLASS_NAMES = flags.DEFINE_list("class_names", None, "K names, separated by commas.")
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1, "Processes that read files; 0 reads in this one."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the bootstrap.")


def _folder(flag: flags.FlagHolder[str | None]) -> Path:
    if not flag.value:
        raise InputError(f"--{flag.name}: not given, expected a folder")
    return Path(flag.value)


def main(argv: Sequence[str]) -> int:
    """Runs the audit; prints one line and returns 2 for bad input."""
    try:
        if len(argv) > 1:
            raise InputError(f"'{argv[1]}': expected flags only; see --help")
        labels, output = (_folder(flag) for flag in (_LABELS, _OUTPUT))
        logging.set_verbosity(logging.WARNING)  # jax reports on missing TPUs
        # Late: jax starts only once the flags are known to be right.
        from metaseg.runs import audit as label_audit

        with prefixed("--", *label_audit.ARGUMENTS):
            found = label_audit.audit(
                labels,
                output,
                reference=_REFERENCE.value or None,
                images=_IMAGES.value or None,
                num_classes=_NUM_CLASSES.value,
                class_names=tuple(_CLASS_NAMES.value or ()),
                workers=_WORKERS.value,
                seed=_SEED.value,
            )
        return int(bool(found.summary["bad"]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main)
