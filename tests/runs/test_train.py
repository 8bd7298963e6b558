"""Bad input stops a run before training, in one line that names the culprit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaseg import files
from metaseg.errors import InputError
from metaseg.runs import defaults
from metaseg.runs.training.run import train


def _config(**changes):
    config = defaults.get_config()
    config.data.update(
        height=32, width=32, train_size=2, val_size=1, test_size=1, seed=1
    )
    config.augment.crop = 32
    config.update_from_flattened_dict(changes)
    return config


def _message(config, workdir):
    with pytest.raises(InputError) as caught:
        train(config, workdir=workdir)
    assert not workdir.exists() or not any(workdir.iterdir())
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data.name": "sells"}, ["config.data.name", "sells", "cells", "folder"]),
        ({"data.num_classes": 3}, ["config.data.num_classes", "3"]),
        ({"noise.name": "flop"}, ["config.noise.name", "flop", "flip", "sample"]),
        ({"noise.name": "flip"}, ["config.noise.rate"]),
        ({"noise.name": "flip", "noise.rate": -0.1}, ["config.noise.rate", "-0.1"]),
        ({"noise.name": "sample", "noise.fraction": 2}, ["config.noise.fraction"]),
        (
            {"noise.name": "transition", "noise.matrix": [[0.5, 0.5]]},
            ["config.noise.matrix", "2"],
        ),
        (
            {"noise.name": "transition", "noise.matrix": [[0.5, 0.4], [0, 1]]},
            ["config.noise.matrix", "0.9"],
        ),
        ({"noise.rate": 0.1}, ["config.noise.rate"]),
        ({"model.name": "unett"}, ["config.model.name", "unett", "unet"]),
        ({"model.norm": "instance"}, ["config.model.norm", "instance", "batch"]),
        ({"optimizer.name": "sdg"}, ["config.optimizer.name", "sdg", "sgd"]),
        ({"optimizer.schedule": "cos"}, ["config.optimizer.schedule", "cosine"]),
        ({"optimizer.momentum": 1.0}, ["config.optimizer.momentum", "1.0"]),
        ({"optimizer.ema_decay": 1.0}, ["config.optimizer.ema_decay", "1.0"]),
        ({"loss": "dise"}, ["config.loss", "dise", "cross_entropy"]),
        ({"training.steps": 0}, ["config.training.steps", "0"]),
        ({"training.batch_size": 12}, ["config.training.batch_size", "12", "8 dev"]),
        ({"training.grad_accum_steps": 4}, ["config.training.batch_size", "16", "32"]),
        (
            {"parallel.partitioner": "xmap"},
            ["config.parallel.partitioner", "xmap", "pmap"],
        ),
        ({"parallel.devices": 9}, ["config.parallel.devices", "9", "there are 8"]),
        ({"parallel.ensemble_by": "x"}, ["config.parallel.ensemble_by", "turns"]),
        ({"parallel.ensemble": 0}, ["config.parallel.ensemble", "0"]),
        (
            {"parallel.vary": (("seed", (0, 1)),)},
            ["config.parallel.vary", "parallel.ensemble is 1"],
        ),
        (
            {"parallel.ensemble": 2, "parallel.vary": (("seed", (0,)),)},
            ["config.parallel.vary", "seed", "2 values"],
        ),
        (
            {"parallel.ensemble": 2, "parallel.vary": ("model.width", (2, 4))},
            ["config.parallel.vary", "model.width", "noise.rate"],
        ),
        (
            {
                "parallel.ensemble": 2,
                "noise.name": "flip",
                "parallel.vary": ("noise.rate", (0.1, 1.4)),
            },
            ["config.noise.rate", "1.4"],
        ),
        ({"augment.crop": 40}, ["config.augment.crop", "cells-00000", "32 x 32"]),
        ({"augment.crop": -1}, ["config.augment.crop", "-1"]),
        ({"augment.crop": 0, "data.width": 48}, ["config.augment.rot90", "32 x 48"]),
        ({"data.name": "folder"}, ["config.data.dir"]),
        (
            {"data.name": "folder", "data.dir": "nowhere"},
            ["config.data.dir", "nowhere"],
        ),
    ],
)
def test_a_bad_field_is_named(changes, parts, tmp_path):
    message = _message(_config(**changes), tmp_path / "run")
    for part in parts:
        assert part in message


def test_a_class_id_out_of_range_names_the_file(tmp_path):
    for split in ("train", "val", "test"):
        for kind in ("images", "labels"):
            folder = tmp_path / "data" / split / kind
            folder.mkdir(parents=True)
            value = 7 if (split, kind) == ("val", "labels") else 1
            Image.fromarray(np.full((32, 32), value, np.uint8)).save(folder / "a.png")
    config = _config(**{"data.name": "folder", "data.dir": str(tmp_path / "data")})
    message = _message(config, tmp_path / "run")
    assert "val" in message
    assert "a.png" in message
    assert "7" in message


def test_a_workdir_that_holds_something_is_refused(tmp_path):
    (tmp_path / "results.json").write_text("precious")
    with pytest.raises(InputError, match=r"workdir: .*not empty"):
        train(defaults.get_config(), workdir=tmp_path)
    assert (tmp_path / "results.json").read_text() == "precious"


def test_a_workdir_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="workdir"):
        train(defaults.get_config(), workdir=tmp_path / "file" / "run")
    with pytest.raises(InputError, match="workdir"):
        train(defaults.get_config(), workdir=tmp_path / "file")


def test_an_unwritable_workdir_is_refused():
    with pytest.raises(InputError, match="workdir"):
        train(defaults.get_config(), workdir=Path("/proc/run"))


def test_json_is_written_whole_or_not_at_all(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": np.float32(1), "y": float("nan")})
    before = (tmp_path / "a.json").read_text()
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"x": object()})
    assert (tmp_path / "a.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
