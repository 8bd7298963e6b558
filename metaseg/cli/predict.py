r"""Segments images of any size with a trained run.

    metaseg predict --run=WORKDIR --images=DIR --output=DIR
    metaseg predict --run=WORKDIR --images='DIR/*.tif' --output=DIR \
        --labels=DIR --scores

Writes labels/NAME.png, overlays/NAME.png, predictions.csv (a row per image) and
index.html, with --scores also scores/NAME.tif, with --labels metrics.json. A second run
with the same output resumes where the first one stopped. Exit status 1: some files were
bad, they are listed; 2: nothing could be done. docs/predict.md says more.
"""

from absl import flags

from metaseg import host
from metaseg.cli import file_flags, parsing
from metaseg.errors import InputError

FLAGS = flags.FlagValues()
_RUN = flags.DEFINE_string(
    "run", None, "Work folder of a finished run.", flag_values=FLAGS
)
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "Folder of images, with its sub-folders; or one file; or a pattern in quotes, such "
    "as 'DIR/**/*.tif'.",
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for the results.", flag_values=FLAGS
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "Folder of true label maps of the same names, to measure against.",
    flag_values=FLAGS,
)
_DECISION_RULE = flags.DEFINE_enum(
    "decision_rule",
    "analytic",
    ["analytic", "argmax", "validation"],
    "How scores become labels: analytic is the noise-aware rule.",
    flag_values=FLAGS,
)
flags.DEFINE_alias("reading", "decision_rule", flag_values=FLAGS)
_VALUES = flags.DEFINE_enum(
    "values",
    "ids",
    ["ids", "mask", "instances"],
    "Write class ids; or 0 and 255 of two classes; or a number for each object.",
    flag_values=FLAGS,
)
_SCORES = flags.DEFINE_bool(
    "scores", False, "Write the scores too, 32-bit TIFF.", flag_values=FLAGS
)
_TILE = flags.DEFINE_integer(
    "tile",
    None,
    "Side in pixels of the tiles that the network sees at once; a smaller tile needs "
    "less memory.",
    flag_values=FLAGS,
)
_OVERLAP = flags.DEFINE_integer(
    "overlap",
    None,
    "Overlap of tiles in pixels; by default the one that makes tiles exact.",
    flag_values=FLAGS,
)
file_flags.define(FLAGS, channels="channel")


def run() -> int:
    """Predicts; returns the exit status."""
    run_folder = parsing.given_folder(_RUN, "the work folder of a run")
    output = parsing.given_folder(_OUTPUT)
    if not _IMAGES.value:
        raise InputError("images: not given, expected a folder, file or pattern")
    from metaseg.runs import arguments  # late: --help needs no NumPy

    labels, files = _LABELS.value, file_flags.given(FLAGS)
    arguments.check_predict(run_folder, _IMAGES.value, labels=labels, **files)
    host.keep_freed_memory()
    host.cache_compiled_programs()
    from metaseg.runs import predict  # later: imports jax

    done = predict.predict(
        run_folder,
        _IMAGES.value,
        output,
        labels=labels,
        decision_rule=_DECISION_RULE.value,
        values=_VALUES.value,
        scores=_SCORES.value,
        tile=_TILE.value,
        overlap=_OVERLAP.value,
        **files,
    )
    return int(bool(done.bad))
