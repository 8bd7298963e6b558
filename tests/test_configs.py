"""Every file of configs/ describes a run that can start, once its data are there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from metaseg import ntm
from metaseg.data.dataset import Dataset, Split
from metaseg.errors import InputError
from metaseg.runs import config as config_lib
from metaseg.runs import config_files, defaults
from metaseg.runs.training import steps

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
RUNS = sorted(p.stem for p in CONFIGS.glob("*.py"))
REAL = ["camvid", "cityscapes", "er", "mito", "nuclei", "pets"]


def documented(name):
    """Every value of --config in the docstring of a config file, with its arguments."""
    text = (CONFIGS / f"{name}.py").read_text().split('"""')[1]
    text = text.replace("$CONFIG", f"configs/{name}.py")
    return re.findall(r"--config=(configs/\S+)", text)


DOCUMENTED = [(name, spec) for name in RUNS for spec in documented(name)]


def data_of(size, num_classes):
    """A data set of `size` large blank training images."""
    blank = np.zeros((size, 256, 256), np.uint8)
    split = Split(
        images=np.broadcast_to(np.float32(0), (size, 256, 256, 1)),
        labels=np.broadcast_to(blank[:1], (size, 256, 256)),
        ids=np.arange(size, dtype=np.uint32),
        names=tuple(map(str, range(size))),
        valid_size=np.full((size, 2), 256, np.int32),
    )
    return Dataset("blank", split, split, split, num_classes)


def check(config):
    (config_lib.check_igtt if "igtt" in config else config_lib.check)(config)


def test_the_package_finds_its_configs():
    assert config_files.names() == RUNS


@pytest.mark.parametrize("name", RUNS)
def test_every_config_is_a_valid_run_named_in_its_docstring(name):
    config = config_files.load(name)
    check(config)
    steps.build(config)
    assert f"configs/{name}.py" in documented(name)


@pytest.mark.parametrize(("name", "spec"), DOCUMENTED)
def test_every_documented_command_is_a_valid_run_of_this_file(name, spec, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert shlex.split(spec) == [spec]
    assert spec.partition(":")[0] == f"configs/{name}.py"
    check(config_files.load(spec))


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("noise", ["", "noise=flip,rate=0.4,"])
def test_paper_is_the_sources_protocol(name, noise):
    config = config_files.load(f"{name}:{noise}paper")
    config_lib.check(config)
    config = config_lib.resolve(config, data_of(320, config.data.num_classes))
    assert (config.training.steps, config.optimizer.step_every) == (1_000, 200)
    assert (config.model.width, config.model.depth) == (64, 4)
    assert (config.optimizer.name, config.optimizer.weight_decay) == ("sgd", 1e-3)
    assert config.noise.name == ("flip" if noise else "none")


@pytest.mark.parametrize("name", REAL)
def test_arguments_change_the_noise_and_nothing_else(name):
    clean = config_files.load(name).to_dict()
    noisy = config_files.load(f"{name}:noise=flip,rate=0.4,online=True").to_dict()
    assert noisy["noise"] == clean["noise"] | {
        "name": "flip",
        "rate": 0.4,
        "online": True,
    }
    assert {**noisy, "noise": None} == {**clean, "noise": None}


def test_symmetric_noise_is_the_matrix_of_equally_likely_changes():
    config = config_files.load("camvid:noise=symmetric,rate=0.8")
    config_lib.check(config)
    assert config.noise.name == "transition"
    assert config.noise.rate is None
    assert config.noise.matrix[3][3] == pytest.approx(0.2)
    assert config.noise.matrix == pytest.approx(ntm.symmetric(11, 0.8))


def test_all_classes_are_those_of_the_data_set():
    config = config_files.load("camvid:noise=sample,fraction=0.1,classes=all,fill=255")
    assert config.noise.classes == tuple(range(11))


def test_values_with_commas_are_one_argument():
    arguments = defaults.parse_arg("noise=flip,rate=(0.1, 0.4),size=2", size=1)
    assert arguments.to_dict() == {"noise": "flip", "rate": (0.1, 0.4), "size": 2}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("er:big", r"'big': no such argument, expected noise=\.\.\., paper or a field"),
        ("er:rat=0.4", "'rat=0.4': no such argument"),
        ("er:noise", "noise: got 'noise', expected a name"),
        ("er:noise=3", "noise: got 'noise=3', expected a name"),
        ("er:paper=1", "paper: got 'paper=1', expected True or False"),
        ("er:rate", "rate: got no value, expected rate=VALUE"),
        ("er:rate=1,rate=2", "got argument rate twice"),
        ("er:noise=symmetric", "rate: got None, expected a number"),
        ("er:noise=symmetric,rate=2", "rate: got 2, expected a number"),
        ("cell_flip:rate=0.9", "takes no arguments, got 'rate=0.9'"),
        ("cell_flop", r"'cell_flop', expected a file, or one of camvid, .*cell_flip\?"),
        ("configs/cell_flop.py", "'configs/cell_flop.py', expected a file, or one of"),
    ],
)
def test_a_wrong_name_or_argument_is_named(spec, said):
    with pytest.raises(InputError, match=rf"^config: .*{said}") as raised:
        config_files.load(spec)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:", "line 1: invalid syntax"),
        ("\nimport nothing_of_this_name", "line 2: ModuleNotFoundError"),
        ("def get_config():\n  return 1 / 0", "line 2: ZeroDivisionError"),
        ("def get_config():\n  return {}", "returned dict, expected a ConfigDict"),
        ("", "has no function get_config"),
    ],
)
def test_a_faulty_file_is_named_in_one_line(text, said, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"^config: '.*mine\.py'.*{said}") as raised:
        config_files.load(str(path))
    assert "\n" not in str(raised.value)
