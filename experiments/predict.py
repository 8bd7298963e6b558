"""Segments images of any size with a trained run.

    python experiments/predict.py --run=WORKDIR --images=DIR --output=DIR
    python experiments/predict.py --run=WORKDIR --images='DIR/*.tif' --output=DIR \
        --labels=DIR --scores

Writes labels/NAME.png, overlays/NAME.png, predictions.csv (a row per image) and
index.html, with --scores also scores/NAME.tif, with --labels metrics.json. A second run
with the same output goes on where the first one stopped. Exit status: 0; 1 if some
files were bad, they are listed; 2 if nothing could be done. docs/predict.md says more.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging

from metaseg import host
from metaseg.errors import InputError, prefixed

_RUN = flags.DEFINE_string("run", None, "Work folder of a finished run.")
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "Folder of images, with its sub-folders; or one file; or a pattern in quotes, as "
    "'DIR/**/*.tif'.",
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.")
_LABELS = flags.DEFINE_string(
    "labels", None, "Folder of true label maps of the same names, to measure against."
)
_LABEL_VALUES = flags.DEFINE_list(
    "label_values",
    None,
    "Class id of stored values of --labels that are not ids, 255 for void: 11=255.",
)
_DECISION_RULE = flags.DEFINE_enum(
    "decision_rule",
    "analytic",
    ["analytic", "argmax", "validation"],
    "How scores become labels: analytic is the noise-aware one.",
)
_VALUES = flags.DEFINE_enum(
    "values", "ids", ["ids", "mask"], "Write class ids, or 0 and 255 of two classes."
)
_SCORES = flags.DEFINE_bool("scores", False, "Write the scores too, 32-bit TIFF.")
_CHANNEL = flags.DEFINE_integer(
    "channel", None, "Channel of each image to look at, from 0."
)
_TILE = flags.DEFINE_integer(
    "tile", None, "Pixels a side that the network sees at once; less needs less memory."
)
_OVERLAP = flags.DEFINE_integer(
    "overlap", None, "Pixels that tiles overlap; by default what makes them exact."
)


def _given(flag: flags.FlagHolder[str | None], expected: str) -> str:
    if not flag.value:
        raise InputError(f"--{flag.name}: not given, expected {expected}")
    return flag.value


def _label_values() -> dict[int, int] | None:
    """Class ids by stored value."""
    if _LABEL_VALUES.value is None:
        return None
    try:
        pairs = [part.split("=") for part in _LABEL_VALUES.value]
        return {int(stored): int(class_id) for stored, class_id in pairs}
    except ValueError:
        raise InputError(
            f"--label_values: '{','.join(_LABEL_VALUES.value)}'; expected STORED=ID,..."
        ) from None


def main(argv: Sequence[str]) -> int:
    """Predicts; prints one line and returns 2 for bad input."""
    try:
        if len(argv) > 1:
            raise InputError(
                f"'{argv[1]}': expected flags only, and patterns in quotes; see --help"
            )
        run = Path(_given(_RUN, "the work folder of a run"))
        images = _given(_IMAGES, "a folder, file or pattern")
        output = Path(_given(_OUTPUT, "a folder"))
        logging.set_verbosity(logging.WARNING)  # jax reports on missing TPUs
        host.keep_freed_memory()
        # Late: jax starts only once the flags are known to be right.
        from metaseg.runs import predict as predict_run

        with prefixed("--", *predict_run.ARGUMENTS):
            done = predict_run.predict(
                run,
                images,
                output,
                labels=_LABELS.value,
                label_values=_label_values(),
                decision_rule=_DECISION_RULE.value,
                values=_VALUES.value,
                scores=_SCORES.value,
                channel=_CHANNEL.value,
                tile=_TILE.value,
                overlap=_OVERLAP.value,
            )
        return int(bool(done.bad))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main)
