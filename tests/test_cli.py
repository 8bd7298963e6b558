"""The `metaseg` command: flags, names of configs, and errors in one line."""

import inspect
import subprocess
import sys

import pytest
from absl import flags

from metaseg import cli
from metaseg.cli import parsing
from metaseg.runs import config_files

# Runs nothing: what a subcommand would get is enough.
FLAGS = flags.FlagValues()
flags.DEFINE_string("config", None, "", flag_values=FLAGS)
flags.DEFINE_string("workdir", None, "", flag_values=FLAGS)


def parsed(*arguments):
    """The config of a command line."""
    FLAGS.unparse_flags()
    return parsing._parse_with_config(FLAGS, arguments)


def metaseg(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "metaseg", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_lists_the_subcommands_without_jax():
    code = (
        "import sys; from metaseg import cli; assert cli.main(['--help']) == 0; "
        "assert cli.main(['train', '--help']) == 0; assert 'jax' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert {"train", "igtt", "predict", "audit", "prepare", "noise"} <= set(
        done.stdout.split()
    )


@pytest.mark.parametrize("command", ["train", "igtt", "predict", "audit", "prepare"])
def test_help_of_a_subcommand_lists_its_flags(command, capsys):
    assert cli.main([command, "--help"]) == 0
    said = capsys.readouterr().out
    module = sys.modules[f"metaseg.cli.{command}"]
    assert len(list(module.FLAGS)) >= 4
    assert {name for name in module.FLAGS if f"{name}\n" not in said} == set()
    assert f"metaseg {command} --" in inspect.cleandoc(module.__doc__)


def test_noise_lists_the_noises():
    done = metaseg("noise")
    assert done.returncode == 0
    assert "flip(rate" in done.stdout
    assert metaseg("noise", "flip").stdout.startswith("flip(rate")


def test_version_is_said():
    done = metaseg("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "metaseg")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "command: not given, expected one of train, igtt,"),
        (["trane"], "command: got 'trane', expected one of train, igtt,"),
        (["train"], "--config: not given, expected a file, or one of camvid, "),
        (["train", "--config"], "--config: got no value"),
        (["train", "--config="], "--config: got no value"),
        (["train", "--nonsense=1"], "Unknown command line flag 'nonsense'"),
        (["train", "--config=cell_flip", "x"], "'x': expected flags only"),
        (["train", "--config=cell_flip", "--config.nois=1"], "--config.nois: no such"),
        (["train", "--config=cell_flip", "--config.seed=x"], "--config.seed=x: inval"),
        (["train", "--config=er:big"], "--config: '"),
        (["train", "--config=cell_flip", "--profile=3"], "--profile: got '3'"),
        (
            ["train", "--config=cell_flip", "--distributed"],
            "--workdir: not given, expected a folder that all processes see",
        ),
        (
            ["train", "--config=cell_flip", "--profile=1:2", "--workdir=gs://a/b"],
            "--profile: traces go to a disk",
        ),
        (["igtt", "--config=cell_igtt", "--workdir=gs://a/b"], "--workdir: got 'gs:"),
        (
            ["predict", "--images=x"],
            "--run: not given, expected the work folder of a run",
        ),
        (["predict", "--values=x"], "--values=x: value should be one of <ids|mask|"),
        (
            ["predict", "--run=x", "--images=x", "--output=x", "--label_values=1"],
            "--label_values: got '1', expected STORED=ID",
        ),
        (["audit", "--output=x"], "--labels: not given, expected a folder"),
        (["prepare", "--path=x"], "--source: not given, expected one that --help"),
    ],
)
def test_wrong_input_gets_one_line_and_status_2(arguments, said, capsys):
    assert cli.main(arguments) == 2
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith(f"error: {said}")
    assert line.count("\n") == 1


@pytest.mark.parametrize("name", ["nuclei", "nuclei.py"])
def test_a_config_is_known_by_name_with_arguments_and_overrides(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = parsed(f"--config={name}:noise=flip,rate=0.4", "--config.training.steps=7")
    expected = config_files.load("nuclei:noise=flip,rate=0.4")
    with expected.unlocked():
        expected.training.steps = 7
    assert config.to_dict() == expected.to_dict()


def test_a_file_is_taken_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nuclei.py").write_text(
        "from metaseg.runs import defaults\nget_config = defaults.get_config\n"
    )
    assert parsed("--config=nuclei.py").data.name == "cells"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config=cell_flip", "--config.noise.rate=0.9", "--config.seed=3"),
        ("--config", "cell_flip", "--config.noise.rate", "0.9", "--config.seed", "3"),
        ("--config.noise.rate=0.9", "--config.seed", "3", "--config=cell_flip"),
        ("-config=cell_flip", "-config.noise.rate=0.9", "-config.seed=3"),
    ],
)
def test_both_forms_of_a_flag_in_any_order(arguments):
    config = parsed(*arguments, "--workdir", "w")
    assert (config.noise.rate, config.seed) == (0.9, 3)
    assert (FLAGS["config"].value, FLAGS["workdir"].value) == ("cell_flip", "w")


def test_flags_of_one_call_do_not_reach_the_next():
    assert parsed("--config=cell_flip", "--workdir=w", "--config.seed=3").seed == 3
    assert parsed("--config=cell_flip").seed == 0
    assert FLAGS["workdir"].value is None


def test_another_noise_forgets_the_parameters_of_the_file():
    noise = parsed(
        "--config=cell_flip",
        "--config.noise.name=dilate",
        "--config.noise.radius=3",
        "--config.noise.seed=5",
    ).noise
    assert (noise.name, noise.radius, noise.rate, noise.seed) == ("dilate", 3, None, 5)


def test_the_same_noise_keeps_the_parameters_of_the_file():
    assert parsed("--config=cell_flip", "--config.noise.name=flip").noise.rate == 0.4


def test_reading_is_an_alias_of_decision_rule():
    from metaseg.cli import predict

    for name in ("reading", "decision_rule"):
        predict.FLAGS.unparse_flags()
        parsing._parse(predict.FLAGS, [f"--{name}=argmax"])
        assert predict._DECISION_RULE.value == "argmax"
    predict.FLAGS.unparse_flags()
