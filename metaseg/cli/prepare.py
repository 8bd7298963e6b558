"""Prepares a data set: checks every pair, writes ArrayRecord shards that train fast.

    metaseg prepare --source=camvid --path=DIR --data_dir=DATA
    metaseg prepare --source=organelle --config=er --path=DIR ...
    metaseg prepare --source=folder --path=DIR --name=cells ...
    metaseg prepare --source=tfds:oxford_iiit_pet --path=DIR ...

DIR is what was downloaded; docs/data.md describes its layout. The data set goes to
DATA/SOURCE/CONFIG/VERSION, with summary.json and contact_sheet.png beside the shards.
An import that was stopped resumes when it is started again; if no file has changed
since the last import, nothing is done. Exit status 2: nothing was imported.
"""

from collections.abc import Callable
from typing import Any

from absl import flags

from metaseg.cli import file_flags, parsing
from metaseg.errors import InputError

FLAGS = flags.FlagValues()
_SOURCE = flags.DEFINE_string(
    "source",
    None,
    "organelle, dsb2018, camvid, cityscapes, folder, or tfds:NAME for a data set of "
    "the TFDS catalog that has been prepared as array_record.",
    flag_values=FLAGS,
)
_PATH = flags.DEFINE_string(
    "path", None, "Folder of the data set as published.", flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", flag_values=FLAGS
)
_CONFIG = flags.DEFINE_string(
    "config",
    "",
    "organelle: er, mito, nuclei; dsb2018: all, fluorescence, histology, brightfield.",
    flag_values=FLAGS,
)
_WORKERS = flags.DEFINE_integer(
    "workers", 2, "Processes that read files; 0 reads in this one.", flag_values=FLAGS
)
_SKIP_BAD = flags.DEFINE_bool(
    "skip_bad",
    False,
    "Leave bad files out and list them, instead of stopping.",
    flag_values=FLAGS,
)
_NAME = flags.DEFINE_string(
    "name",
    None,
    "folder: name of the data set; by default that of the folder.",
    flag_values=FLAGS,
)
_SHARES = flags.DEFINE_list(
    "shares",
    None,
    "folder, dsb2018: shares of train, val and test; by default 0.7,0.1,0.2; 0 leaves "
    "val or test empty.",
    flag_values=FLAGS,
)
_SEED = flags.DEFINE_integer(
    "seed", None, "Seed of the draw of splits; by default 0.", flag_values=FLAGS
)
_NUM_CLASSES = flags.DEFINE_integer(
    "num_classes",
    None,
    "Number of classes; by default one more than the highest class id found.",
    flag_values=FLAGS,
)
_CLASS_NAMES = flags.DEFINE_list(
    "class_names", None, "Names of the classes, separated by commas.", flag_values=FLAGS
)
_FEATURES = flags.DEFINE_list(
    "features",
    None,
    "tfds: names of its features: image=image,label=mask.",
    flag_values=FLAGS,
)
file_flags.define(FLAGS, label_values="values", channels="channel")


def run() -> int:
    """Imports the data set; returns the exit status."""
    if not _SOURCE.value:
        raise InputError("source: not given, expected one that --help lists")
    path, data_dir = (parsing.given_folder(flag) for flag in (_PATH, _DATA_DIR))
    features = _each(_FEATURES, _pair, "image=NAME,label=NAME")
    shares = _each(_SHARES, float, "three numbers")
    from metaseg.runs import prepare  # late: TFDS takes a second

    prepared = prepare.prepare(
        _SOURCE.value,
        path,
        data_dir,
        config=_CONFIG.value,
        workers=_WORKERS.value,
        skip_bad=_SKIP_BAD.value,
        name=_NAME.value,
        shares=shares,
        seed=_SEED.value,
        num_classes=_NUM_CLASSES.value,
        class_names=_each(_CLASS_NAMES, str, "names"),
        features=None if features is None else dict(features),
        **file_flags.given(FLAGS),
    )
    print(prepare.describe(prepared, data_dir))
    return 0


def _each(
    flag: flags.FlagHolder[Any], parse: Callable[[str], Any], expected: str
) -> tuple[Any, ...] | None:
    """The parsed parts of a list, None if it is not given."""
    if flag.value is None:
        return None
    try:
        return tuple(parse(part) for part in flag.value)
    except ValueError:
        raise InputError(
            f"{flag.name}: got '{','.join(flag.value)}', expected {expected}"
        ) from None


def _pair(text: str) -> tuple[str, str]:
    first, second = text.split("=")
    return first, second
