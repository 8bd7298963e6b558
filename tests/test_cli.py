"""The `metaseg` command: flags, names of configs, and errors in one line."""

import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from PIL import Image

from metaseg import cli, host, version
from metaseg.cli import parsing
from metaseg.runs import config_files, progress

CELLS = str(Path(__file__).parents[1] / "configs" / "cell_flip.py")

# Runs nothing: what a subcommand would get is enough.
FLAGS = flags.FlagValues()
flags.DEFINE_string("config", None, "", flag_values=FLAGS)
flags.DEFINE_string("workdir", None, "", flag_values=FLAGS)


def parsed(*arguments):
    """The config of a command line."""
    FLAGS.unparse_flags()
    return parsing._parse_with_config(FLAGS, arguments)


def metaseg(*arguments, env=None):
    return subprocess.run(
        [sys.executable, "-m", "metaseg", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_lists_the_subcommands():
    done = metaseg("--help")
    assert {*cli.COMMANDS} <= set(done.stdout.split())


# What a process loads before it answers. Each takes 0.1 to 1 s of a processor.
SLOW = (
    "flax",
    "grain",
    "matplotlib",
    "optax",
    "orbax",
    "scipy.ndimage",
    "skimage",
    "tensorboardX",
    "tensorflow_datasets",
    "torch",
)
FIELD = ("train", "--config=cell_flip", "--config.training.steps=-1")
RATE = ("train", "--config=cell_flip", "--config.noise.rate=2")
FOLDERS = (
    ("train", "--config=cell_flip", "--workdir=/dev/null"),
    ("train", "--config=nuclei", "--config.data.dir=/dev/null/no"),
    ("train", "--config=nuclei", "--config.data.name=prepared"),
    ("igtt", "--config=folder_igtt", "--config.data.dir=/dev/null/no"),
    ("igtt", "--config=cell_igtt", "--config.training.batch_size=0"),
    ("predict", "--run=/dev/null/no", "--images=/dev/null/no", "--output=no"),
    ("audit", "--labels=/dev/null/no", "--output=no"),
    ("audit", "--labels=/", "--reference=/dev/null/no", "--output=no"),
)
PREPARE = ("prepare", "--source=folder", "--path=/dev/null/no", "--data_dir=no")


@pytest.mark.parametrize(
    ("calls", "status", "absent"),
    [
        ([("--help",)], 0, {*SLOW, "jax", "numpy", "ml_collections", "absl"}),
        ([(name, "--help") for name in cli.COMMANDS], 0, {*SLOW, "jax", "numpy"}),
        ([FIELD, *FOLDERS], 2, {*SLOW, "jax"}),
        ([RATE], 2, {*SLOW}),
        ([PREPARE], 2, {*SLOW, "jax"} - {"tensorflow_datasets"}),
    ],
    ids=["help", "help of a command", "a wrong field or folder", "noise", "prepare"],
)
def test_an_answer_does_not_wait_for_imports_that_it_does_not_need(
    calls, status, absent
):
    code = f"""
import sys
from metaseg import cli
for call in {calls!r}:
    assert cli.main(call) == {status}, call
    print()
print(sorted({absent!r} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    if status:
        assert done.stderr.count("error: --") == len(calls)


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


def test_version_is_said(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"metaseg {version.__version__}\n"


@pytest.mark.parametrize("command", [*cli.COMMANDS, ""])
def test_output_that_nobody_reads_is_dropped(command, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert cli.main([*filter(None, [command]), "--help"]) == 0


@pytest.mark.parametrize("module", ["metaseg", "metaseg.noise"])
def test_a_list_can_be_piped_into_head(module):
    script = f"{sys.executable} -m {module} {'noise' * (module == 'metaseg')}"
    done = subprocess.run(
        ["bash", "-c", f"{script} | head -n 1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "none()\n", "")


def test_names_that_a_terminal_cannot_show_are_printed_with_escapes(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with host.unread_output_is_dropped():
        print(os.fsdecode(b"Zelle_\xfc"), "\u00fc")
    assert written.getvalue() == b"Zelle_\\udcfc \\xfc\n"


def test_a_progress_line_that_nobody_reads_does_not_end_a_job(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        with host.unread_output_is_dropped():
            progress.say("one")
            progress.say("two")
        print("three", file=closed, flush=True)  # libraries may have kept the stream


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
        (["noise", "--foo"], "Unknown command line flag 'foo'"),
        (["noise", "flap"], "NAME: got 'flap', expected one of none, flip,"),
        (["train", "--flagfile=gone"], "--flagfile: No such file or directory: 'gone'"),
        (["audit", "--flagfile", "gone"], "--flagfile: No such file or directory: "),
        (["igtt", "--config=gone.py"], "--config: got 'gone.py', expected a file, or"),
        (["train", "--config=cell_flop"], "--config: got 'cell_flop', expected a file"),
        (
            ["train", "--config=cell_flip", "--config.training=3"],
            "--config.training: is a section, expected one of config.training.batch",
        ),
    ],
)
def test_wrong_input_gets_one_line_and_status_2(arguments, said, capsys):
    assert cli.main(arguments) == 2
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith(f"error: {said}")
    assert line.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "igtt"])
def test_a_wrong_field_is_named_in_both_forms_of_flags(command, capsys):
    for arguments in (
        [f"--config={CELLS}", "--config.training.stepz=20"],
        ["--config", CELLS, "--config.training.stepz", "20"],
        ["--config", CELLS, "--config.training.stepz=20"],
    ):
        assert cli.main([command, *arguments]) == 2
        line = capsys.readouterr().err
        assert line.startswith("error: --config.training.stepz: no such field, expec")
        assert line.endswith("(did you mean config.training.steps?)\n")


@pytest.mark.parametrize(("word", "meant"), [("trane", "train"), ("Audit", "audit")])
def test_an_unknown_command_gets_a_suggestion(word, meant, capsys):
    assert cli.main([word]) == 2
    assert capsys.readouterr().err.endswith(f"(did you mean {meant}?)\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x = (\n\ndef get_config(:\n", "line 3: invalid syntax"),
        ("import nothing_here\n", "line 1: ModuleNotFoundError: No module named"),
        ("x = 1\n", "has no function get_config"),
        ("get_config = 1\n", "has no function get_config"),
        ("def get_config():\n  return 1 / 0\n", "line 2: ZeroDivisionError: division"),
        ("def f():\n  return {}['a']\n\n\nget_config = f\n", "line 2: KeyError: 'a'"),
        ("import sys\nsys.exit('no data')\n", "line 2: SystemExit: no data"),
        ("x = 1\0\n", "source code string cannot contain null bytes"),
        ("import broken\n", "line 1: 'broken.py', line 2: invalid syntax"),
        ("def get_config():\n  return 3\n", "get_config returned int, expected a Conf"),
        ("def get_config(size):\n  return 3\n", "without arguments, expected"),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n  return ConfigDict({'seed': 0})\n",
            "config: has no field 'augment', expected the fields of metaseg.runs",
        ),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(
    content, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(".")
    (tmp_path / "mine.py").write_text(content)
    (tmp_path / "broken.py").write_text("x = 1\ndef f(:\n")
    assert cli.main(["train", "--config=mine.py", "--workdir=w"]) == 2
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("error: --config: ")
    assert said in line.replace(f"{tmp_path}/", "").replace("./", "")
    assert line.count("\n") == 1
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("command", "field", "value"),
    [
        ("train", "config.seed", -1),
        ("train", "config.seed", 1 << 32),
        ("train", "config.noise.seed", -1),
        ("train", "config.data.seed", 1 << 40),
        ("igtt", "config.seed", -3),
        ("train", "config.report.images", -1),
        ("train", "config.data.height", 0),
        ("train", "config.data.train_size", -1),
        ("train", "config.model.width", -1),
        ("train", "config.parallel.devices", -1),
        ("train", "config.optimizer.step_every", -1),
        ("train", "config.training.steps", -1),
    ],
)
def test_numbers_out_of_range_are_named(command, field, value, tmp_path, capsys):
    config = "--config=cell_igtt" if command == "igtt" else "--config=cell_flip"
    flags = [config, f"--{field}={value}", f"--workdir={tmp_path / 'w'}"]
    assert cli.main([command, *flags]) == 2
    assert capsys.readouterr().err.startswith(f"error: --{field}: got {value}, expec")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "--labels=.", "--output=out"],
        ["prepare", "--source=folder", "--path=.", "--data_dir=out"],
    ],
)
def test_seeds_of_other_commands_are_checked(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--seed=-1"]) == 2
    assert capsys.readouterr().err.startswith("error: --seed: got -1, expected an int")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config=cell_flip", "--workdir=out"],
        ["igtt", "--config=cell_igtt", "--workdir=out"],
        ["predict", "--run=run", "--images=images", "--output=out"],
        ["audit", "--labels=labels", "--output=out"],
    ],
)
def test_a_backend_that_is_not_there_is_one_line(
    arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "run" / "config.json").write_text("{}", encoding="utf-8")

    def devices():  # as jax does, by one or the other
        raise RuntimeError("Unable to initialize backend 'cuda': not found")

    monkeypatch.setattr(jax, "devices", devices)
    wanted = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cuda")
    try:
        assert cli.main(arguments) == 2
    finally:
        jax.config.update("jax_platforms", wanted)
    assert capsys.readouterr().err == (
        "error: JAX_PLATFORMS: got 'cuda', but the backend cuda is not available on "
        "this machine; expected cpu, or no such variable for the best backend\n"
    )
    assert not (tmp_path / "out").exists()


def test_jax_itself_names_a_backend_that_is_not_there(tmp_path):
    done = metaseg(
        "train",
        "--config=cell_flip",
        f"--workdir={tmp_path / 'w'}",
        env=os.environ | {"JAX_PLATFORMS": "nonsense"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_PLATFORMS: got 'nonsense', but the back")


def test_a_file_of_flags_takes_its_place(tmp_path, capsys):
    (tmp_path / "flags").write_text("--config=cell_flip\n--config.data.heigth=3\n")
    assert cli.main(["train", f"--flagfile={tmp_path / 'flags'}"]) == 2
    assert "--config.data.heigth: no such field" in capsys.readouterr().err


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
        predict.FLAGS(["metaseg", f"--{name}=argmax"])
        assert predict._DECISION_RULE.value == "argmax"
    predict.FLAGS.unparse_flags()


@pytest.fixture
def files(tmp_path):
    """Writes a folder of images and labels; returns it."""

    def write(image, label, orientation=1):
        for split in ("train", "val", "test"):
            for name, pixels in (("images", image), ("labels", label)):
                folder = tmp_path / "my files" / split / name
                folder.mkdir(parents=True)
                picture = Image.fromarray(pixels)
                exif = picture.getexif()
                exif[274] = orientation
                picture.save(folder / "a b.png", exif=exif)
        return tmp_path / "my files"

    return write


GREY = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
FAULTS = {
    "grey levels": (GREY, GREY // 100 * 100, 1),
    "colours": (GREY, np.stack([GREY, GREY // 2, GREY], -1) // 100 * 50, 1),
    "turned": (GREY, GREY // 128, 6),
}


def fields(config, prefix="config"):
    """The names of all fields of a config, as flags have them."""
    for name, value in config.items():
        yield f"{prefix}.{name}"
        if hasattr(value, "items"):
            yield from fields(value, f"{prefix}.{name}")


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("igtt", "turned"),  # it reads no labels
        *((c, f) for c in ("train", "audit", "prepare") for f in FAULTS),
    ],
)
def test_a_bad_file_is_named_with_an_option_of_the_command(
    command, fault, files, tmp_path, capsys
):
    folder = files(*FAULTS[fault])
    own = [f"--labels={folder}/train/labels", f"--images={folder}/train/images"]
    flags = {
        "train": ["--config=nuclei", f"--config.data.dir={folder}"],
        "igtt": ["--config=folder_igtt", f"--config.data.dir={folder}/train/images"],
        "audit": [*own, f"--output={tmp_path / 'out'}"],
        "prepare": [
            "--source=folder",
            f"--path={folder}",
            f"--data_dir={tmp_path / 'data'}",
            "--workers=0",
        ],
    }[command]
    if command in ("train", "igtt"):
        flags.append(f"--workdir={tmp_path / 'run'}")
    assert cli.main([command, *flags]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert re.search(r"my files/\w+/(images|labels)/a b\.png", line)
    known = {*sys.modules[f"metaseg.cli.{command}"].FLAGS}
    if command in ("train", "igtt"):
        known |= {*fields(config_files.load("folder_igtt"))}
    named = {name.rstrip(".") for name in re.findall(r"--([a-z_.]+)", line)}
    assert named
    assert named <= known
    assert "`files." not in line
    assert not re.search(r"`[a-z_]+=", line)
