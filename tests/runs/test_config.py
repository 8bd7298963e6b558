"""Settings of a run: checked once, resolved with the data, frozen, written so."""

import json

import numpy as np
import pytest
import tiny

from metaseg.data.arrays import from_images
from metaseg.errors import InputError
from metaseg.runs import config as config_lib
from metaseg.runs import config_files, defaults, sources
from metaseg.runs.training.run import train


def test_warmup_may_exceed_the_default_steps_if_epochs_allow_it():
    fields = {"training.epochs": 700.0, "optimizer.warmup": 600}
    config = tiny.config(**fields, **{"training.steps": 500})
    config_lib.check(config)
    found = config_lib.resolve(config, sources.load(config))
    assert found.training.steps == 1400  # 8 examples, 4 a batch
    short = tiny.config(**fields | {"training.epochs": 299.0})
    config_lib.check(short)
    with pytest.raises(
        InputError, match=r"config\.optimizer\.warmup: got 600.* 598 steps"
    ):
        config_lib.resolve(short, sources.load(short))


def test_a_run_with_a_long_warmup_in_epochs_is_found_again(tmp_path):
    fields = {"training.epochs": 4.0, "optimizer.warmup": 7, "training.steps": 5}
    config = tiny.config(**fields)
    run = train(config, workdir=tmp_path, quiet=True)
    assert run.config.training.steps == 8
    assert train(config, workdir=tmp_path, quiet=True).results == run.results


def test_config_json_holds_resolved_lengths_and_the_run_is_found_again(tmp_path):
    fields = {"training.epochs": 1.5, "training.checkpoint_every": 0}
    config = tiny.config(**fields, **{"optimizer.step_epochs": 1.0})
    run = train(config, workdir=tmp_path, quiet=True)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["training"]["steps"] == run.config.training.steps == 3
    assert written["optimizer"]["step_every"] == 2
    assert written["training"]["checkpoint_every"] == config.training.eval_every
    assert config.training.steps != 3  # the given settings are left as they are
    again = train(config, workdir=tmp_path, resume="must", quiet=True)
    assert again.results == run.results
    shorter = tiny.config(**fields | {"training.epochs": 0.5})
    shorter.optimizer.step_epochs = 1.0
    with pytest.raises(InputError, match=r"config\.training\.epochs was 1\.5, is 0\.5"):
        train(shorter, workdir=tmp_path)


def test_resolved_settings_cannot_be_changed_at_any_depth():
    inner = {"name": "flip", "rate": [0.1, 0.2]}
    config = tiny.config(**{"noise.name": "chain", "noise.rate": None})
    config.noise.noises = (inner,)
    found = config_lib.resolve(config)
    for section, name in ((found, "seed"), (found.model, "width")):
        with pytest.raises(AttributeError):
            setattr(section, name, 1)
    with pytest.raises(TypeError):
        found.noise.noises[0]["rate"] = 0.5
    assert found.noise.noises[0]["rate"] == (0.1, 0.2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sells", r"config\.data\.name: got 'sells', expected one of cells, folder"),
        ("no_such_package:load", "config.data.name: .* cannot be imported"),
        ("json:no_such_source", "config.data.name: .* has no 'no_such_source'"),
    ],
)
def test_an_unknown_data_source_is_named_before_the_run(name, message):
    with pytest.raises(InputError, match=message):
        config_lib.check(tiny.config(**{"data.name": name}))


def test_a_data_source_of_another_package_is_trained_on():
    config = tiny.config(**{"data.name": "plugin_source:load"})
    run = train(config, quiet=True)
    assert run.results["data"]["name"] == "striped"
    assert run.results["data"]["train"] == 8


def test_data_with_other_classes_than_the_settings_are_refused():
    config = defaults.get_config()
    config.update_from_flattened_dict(tiny.FIELDS)
    data = sources.load(config)
    config.data.num_classes = 3
    expected = r"config\.data\.num_classes: got 3, expected 2"
    with pytest.raises(InputError, match=expected):
        train(config, data)


@pytest.mark.parametrize(("side", "expected"), [(20, 20), (90, 64)])
def test_small_images_decide_the_crop_of_folder_igtt(side, expected):
    config = config_files.load("folder_igtt")
    data = from_images(np.random.default_rng(0).random((3, side, 100)))
    config_lib.check_igtt(config, data)
    assert config_lib.open_fields(config) == ("augment.crop",)
    assert config_lib.resolve(config).augment.crop is None
    assert config_lib.resolve(config, data).augment.crop == expected
    config.augment.crop = 16
    assert config_lib.resolve(config, data).augment.crop == 16
    assert config_lib.open_fields(config) == ()
