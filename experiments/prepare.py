"""Imports a data set: checks every pair, writes ArrayRecord shards that train fast.

    python experiments/prepare.py --source=camvid --path=DIR --data_dir=DATA
    python experiments/prepare.py --source=organelle --config=er --path=DIR ...
    python experiments/prepare.py --source=folder --path=DIR --name=cells ...
    python experiments/prepare.py --source=tfds:oxford_iiit_pet --path=DIR ...

DIR is what was downloaded; docs/data.md says how it should look. The data set goes to
DATA/SOURCE/CONFIG/VERSION, with summary.json and contact_sheet.png beside the shards.
A run that was stopped goes on when it is started again; one whose files have not
changed since does nothing. Exit status: 0; 2 if nothing was imported.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from metaseg.errors import InputError

# Configs that name their data set; any other is named on the command line.
RECIPES = {
    "camvid/full": "camvid",
    "cityscapes/fine": "cityscapes",
    "folder/nuclei": "nuclei",
    "organelle/er": "er",
    "organelle/mito": "mito",
    "tfds/oxford_iiit_pet": "pets",
}

_SOURCE = flags.DEFINE_string(
    "source",
    None,
    "organelle, dsb2018, camvid, cityscapes, folder, or tfds:NAME for a data set of "
    "the TFDS catalog that has been prepared as array_record.",
)
_PATH = flags.DEFINE_string("path", None, "Folder of the data set as published.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets.")
_CONFIG = flags.DEFINE_string(
    "config",
    "",
    "organelle: er, mito, nuclei; dsb2018: all, fluorescence, histology, brightfield.",
)
_WORKERS = flags.DEFINE_integer(
    "workers", 2, "Processes that read files; 0 reads in this one."
)
_SKIP_BAD = flags.DEFINE_bool(
    "skip_bad", False, "Leave bad files out and list them, instead of signals."
)
_NAME = flags.DEFINE_string("name", None, "folder: of the data set; default: its own.")
_SHARES = flags.DEFINE_list(
    "shares", None, "folder, dsb2018: of train, val and test; 0.7,0.1,0.2."
)
_SEED = flags.DEFINE_integer("seed", None, "Of the draw of splits; 0.")
_PAGE = flags.DEFINE_integer(
    "page", None, "Page to take of files with many, from 0; by default all of them."
)
_CHANNEL = flags.DEFINE_integer("channel", None, "Channel to take, from 0.")
_NUM_CLASSES = flags.DEFINE_integer(
    "num_classes", None, "K; by default one more than the highest class id found."
)
_CLASS_NAMES = flags.DEFINE_list("class_names", None, "K names, separated by commas.")
_VALUES = flags.DEFINE_list(
    "values", None, "Class id of each stored value, 255 for void: 1=1,2=0,3=255."
)
_FEATURES = flags.DEFINE_list(
    "features", None, "tfds: names of its features: image=image,label=mask."
)


def _folder(flag: flags.FlagHolder[str | None]) -> Path:
    if not flag.value:
        raise InputError(f"--{flag.name}: not given; expected a folder")
    return Path(flag.value).expanduser()


def _each(flag: flags.FlagHolder[Any], parse: Callable[[str], Any], what: str) -> Any:
    """The parsed parts of a list, None if it is not given."""
    if flag.value is None:
        return None
    try:
        return tuple(parse(part) for part in flag.value)
    except ValueError:
        raise InputError(
            f"--{flag.name}: '{','.join(flag.value)}'; expected {what}"
        ) from None


def _pair(text: str) -> tuple[str, str]:
    first, second = text.split("=")
    return first, second


def _whole_pair(text: str) -> tuple[int, int]:
    first, second = _pair(text)
    return int(first), int(second)


def _colours(num_classes: int) -> list[tuple[int, int, int]]:
    from metaseg.report import pictures  # late: a run that does nothing needs none

    return [*pictures.class_colours(num_classes), pictures.VOID_COLOUR]


def _run() -> None:
    if not _SOURCE.value:
        raise InputError("--source: not given; expected one of those --help lists")
    path, data_dir = _folder(_PATH), _folder(_DATA_DIR)
    from metaseg.data import importers  # late: TFDS takes a second

    source, _, name = _SOURCE.value.partition(":")
    values = _each(_VALUES, _whole_pair, "STORED=ID,STORED=ID,...")
    features = _each(_FEATURES, _pair, "image=NAME,label=NAME")
    settings = importers.Settings(
        source=source,
        path=path,
        data_dir=data_dir,
        config=name or _CONFIG.value,
        workers=_WORKERS.value,
        skip_bad=_SKIP_BAD.value,
        options=importers.Options(
            name=_NAME.value,
            shares=_each(_SHARES, float, "three numbers"),
            seed=_SEED.value,
            page=_PAGE.value,
            channel=_CHANNEL.value,
            num_classes=_NUM_CLASSES.value,
            class_names=_each(_CLASS_NAMES, str, "names"),
            values=None if values is None else dict(values),
            features=None if features is None else dict(features),
        ),
    )
    prepared = importers.prepare(settings, _colours)
    _say(prepared, data_dir)


def _say(prepared: Any, data_dir: Path) -> None:
    """The summary, where the data set is, and how to train on it."""
    from metaseg.data.importers import summary

    if not prepared.new:
        print("nothing to do: its files have not changed since this was imported")
    print("\n".join(summary.words(prepared.summary)))
    name = "/".join(prepared.path.parts[-3:-1])
    recipe = RECIPES.get(name)
    more = f" --config.data.dataset={name}"
    more += f" --config.data.num_classes={len(prepared.summary['classes'])}"
    print(f"\ndata set: {prepared.path}")
    print(f"pictures: {prepared.path / 'contact_sheet.png'}")
    print(
        "train on it: python experiments/main.py"
        f" --config=configs/{recipe or 'default'}.py --config.data.dir={data_dir}"
        + ("" if recipe else f" --config.data.name=prepared{more}")
    )


def main(argv: Sequence[str]) -> int:
    """Runs the import; prints one line and returns 2 for bad input."""
    try:
        if len(argv) > 1:
            raise InputError(f"'{argv[1]}': expected flags only; see --help")
        _run()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    app.run(main)
