"""The import as a command: what it says, how it ends, and what a kill leaves."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaseg.data import importers
from metaseg.errors import InputError
from metaseg.runs import prepare

ROOT = Path(__file__).resolve().parents[2]
COUNT = 99


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder without splits; labels of 0 and 255 have to be encoded anew."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir()
    for i in range(COUNT):
        image = rng.integers(0, 256, (48, 48), dtype=np.uint8)
        Image.fromarray(image).save(root / f"images/{i}.png")
        Image.fromarray((image > 99) * np.uint8(255)).save(root / f"labels/{i}.png")
    return root


def command(*arguments):
    return [sys.executable, "experiments/prepare.py", *arguments]


def run(*arguments):
    # A process of its own: scripts define flags of the same names.
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )


def importing(pairs, data_dir):
    """The flags of an import of `pairs` as folder/cells."""
    return (
        "--source=folder",
        "--name=cells",
        f"--path={pairs}",
        f"--data_dir={data_dir}",
    )


@pytest.fixture(scope="module")
def whole(pairs, tmp_path_factory):
    """What was said by an import that nothing stopped, and the data set."""
    data_dir = tmp_path_factory.mktemp("whole")
    said = run(*importing(pairs, data_dir), "--workers=0")
    assert said.returncode == 0, said.stderr
    return said, data_dir / "folder/cells/1.0.0"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_import_goes_on_to_the_same_bytes(pairs, whole, tmp_path):
    chunks = tmp_path / ".staging-folder-cells/chunks"
    process = subprocess.Popen(command(*importing(pairs, tmp_path)), cwd=ROOT)
    limit = time.monotonic() + 60
    while not list(chunks.glob("*.json")) and time.monotonic() < limit:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < len(list(chunks.glob("*.json"))) < COUNT / 2
    assert not (tmp_path / "folder").exists()
    assert run(*importing(pairs, tmp_path)).returncode == 0
    assert contents(tmp_path / "folder/cells/1.0.0") == contents(whole[1])
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_summary_place_command_and_progress_are_printed_and_nothing_else(whole):
    said, path = whole
    assert f"data set: {path}" in said.stdout
    assert "--config.data.dataset=folder/cells --config.data.num_classes=2" in (
        said.stdout
    )
    train = next(x for x in said.stdout.splitlines() if x.startswith("train "))
    assert train.split()[:3] == ["train", str(round(0.7 * COUNT)), "48"]
    for line in said.stderr.splitlines():  # no bar, and nothing of TFDS
        assert line.startswith(("reading: ", "writing: "))
    assert f"reading: {COUNT}/{COUNT}, " in said.stderr
    assert f"writing: {COUNT}/{COUNT}, " in said.stderr


def test_a_second_run_does_nothing_and_says_so(pairs, whole):
    before = contents(whole[1])
    said = run(*importing(pairs, whole[1].parents[2]))
    assert said.stdout.startswith("nothing to do")
    assert said.stderr == ""
    assert contents(whole[1]) == before


def test_lists_given_as_flags_reach_the_import(pairs, tmp_path):
    more = ("--values=0=1,255=0", "--class_names=cell,rest", "--shares=1,1,1")
    assert run(*importing(pairs, tmp_path), *more, "--workers=0").returncode == 0
    facts = importers.read_metadata(tmp_path / "folder/cells/1.0.0")
    assert facts["class_names"] == ["cell", "rest"]
    assert {len(own["names"]) for own in facts["splits"].values()} == {COUNT // 3}
    labels = [np.asarray(Image.open(path)) for path in (pairs / "labels").iterdir()]
    cells = sum(own["class_pixels"][0] for own in facts["splits"].values())
    assert cells == sum(np.count_nonzero(label) for label in labels)


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--source=", "--source: not given"),
        ("--data_dir=", "--data_dir: not given"),
        ("--values=1", "--label_values: got '1', expected STORED=ID"),
        ("--shares=x", "--shares: got 'x', expected three numbers"),
        ("--path=/nowhere", "--path: no folder '/nowhere'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(pairs, tmp_path, flag, expected):
    name = flag.partition("=")[0] + "="
    others = [f for f in importing(pairs, tmp_path) if not f.startswith(name)]
    said = run(*others, flag)
    assert said.returncode == 2
    (line,) = said.stderr.splitlines()
    assert line.startswith(f"error: {expected}")


def test_the_function_returns_what_the_command_prints(pairs, whole):
    said, path = whole
    data_dir = path.parents[2]
    found = prepare.prepare("folder", pairs, data_dir, name="cells", workers=0)
    assert (found.path, found.new) == (path, False)
    assert (
        prepare.describe(found, data_dir).splitlines()[1:] == said.stdout.splitlines()
    )
    last = prepare.describe(found, "my data").splitlines()[-1]
    assert "--config.data.dir=my data" in shlex.split(last)  # can be pasted
    with pytest.raises(InputError, match=r"^page: not for camvid; expected only none"):
        prepare.prepare("camvid", pairs, path.parents[2], page=1)


def test_help_lists_the_sources():
    said = run("--help").stdout
    for source in importers.SOURCES:
        assert source in said
