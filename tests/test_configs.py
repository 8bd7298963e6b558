"""Every file of configs/ describes a run that can start, once its data are there."""

import importlib
from pathlib import Path

import pytest

from metaseg.errors import InputError
from metaseg.runs.igtt import run as igtt_run
from metaseg.runs.train import run as train

CONFIGS = Path(__file__).parents[1] / "configs"
RUNS = sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem != "protocol")
REAL = [n for n in RUNS if "variant" in (CONFIGS / f"{n}.py").read_text()]


@pytest.mark.parametrize("name", RUNS)
def test_every_config_is_a_valid_run_named_in_its_docstring(name):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    (igtt_run.check if "igtt" in config else train.check)(config)
    train.build_step(config)
    if "_" in name:
        assert f"--config=configs/{name}.py" in module.__doc__


@pytest.mark.parametrize("name", REAL)
def test_the_paper_variant_is_the_sources_protocol(name):
    config = importlib.import_module(f"configs.{name}").get_config("paper")
    train.check(config)
    train.count_epochs(config, 320)
    assert (config.training.steps, config.optimizer.step_every) == (1_000, 200)
    assert (config.model.width, config.model.depth) == (64, 4)
    assert (config.optimizer.name, config.optimizer.weight_decay) == ("sgd", 1e-3)


def test_an_unknown_variant_is_named():
    module = importlib.import_module("configs.er_flip")
    with pytest.raises(InputError, match=r"--config: no variant 'big'.*small, paper"):
        module.get_config("big")
