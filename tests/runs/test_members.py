"""An ensemble is its members' runs, trained side by side."""

import json

import pytest
import tiny

from metaseg import checkpoint, prediction
from metaseg.errors import InputError
from metaseg.runs import signals
from metaseg.runs.training import members
from metaseg.runs.training.run import train

VARY = (
    ("seed", (3, 4)),
    ("noise.rate", (0.1, (0.3, 0.6))),
    ("optimizer.learning_rate", (0.02, 0.01)),
)


def config(**changes):
    fields = {"noise.rate": (0.1, 0.1), "training.checkpoint_every": 0}
    many = {"parallel.ensemble": 2, "parallel.vary": VARY}
    return tiny.config(**(fields | many | changes))


def test_members_differ_as_vary_says_and_in_their_seeds_if_it_says_nothing():
    one, two = members.configs(config())
    assert (one.seed, one.noise.rate, one.optimizer.learning_rate) == (3, 0.1, 0.02)
    assert (two.seed, two.noise.rate) == (4, (0.3, 0.6))
    assert one.parallel.ensemble == 1
    assert one.parallel.vary is None
    three = members.configs(tiny.config(**{"parallel.ensemble": 3, "seed": 5}))
    assert [(m.seed, m.noise.seed) for m in three] == [(5, 0), (6, 1), (7, 2)]


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    path = tmp_path_factory.mktemp("ensemble") / "run"
    train(config(), workdir=path)
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Each member's run by itself."""
    path = tmp_path_factory.mktemp("alone")
    for i, member in enumerate(members.configs(config())):
        train(member, workdir=path / str(i))
    return path


@pytest.mark.parametrize("by", ["turns", "vmap"])
def test_members_come_out_as_if_each_were_run_by_itself(ensemble, alone, tmp_path, by):
    where = ensemble
    if by == "vmap":
        where = tmp_path
        changes = {"parallel.ensemble_by": "vmap", "parallel.devices": 2}
        train(config(**changes), workdir=where)
    for i in range(2):
        folder = where / "members" / str(i)
        tiny.assert_close(tiny.history(folder), tiny.history(alone / str(i)))
        own, expected = results(folder), results(alone / str(i))
        assert own["noise"] == expected["noise"]
        assert own["test"]["iou"] == pytest.approx(expected["test"]["iou"], rel=1e-4)
        assert (folder / "report.html").is_file()


def test_the_whole_puts_the_members_side_by_side(ensemble):
    rows = results(ensemble)["members"]
    assert [row["folder"] for row in rows] == ["members/0", "members/1"]
    assert rows[1]["differs"] == {
        "seed": 4,
        "noise.rate": [0.3, 0.6],
        "optimizer.learning_rate": 0.01,
    }
    for row in rows:
        assert row["test"] == results(ensemble / row["folder"])["test"]
    page = (ensemble / "report.html").read_text()
    assert 'href="members/1/report.html"' in page


def test_a_member_can_be_predicted_with_and_the_ensemble_says_so(ensemble):
    assert prediction.load(ensemble / "members" / "1").num_classes == 2
    with pytest.raises(InputError, match=r"an ensemble; expected one of .*members/0"):
        prediction.load(ensemble)


def test_the_final_weights_of_a_member_are_its_checkpoint(ensemble):
    digests = set()
    for i in range(2):
        folder = ensemble / "members" / str(i) / "checkpoints"
        kept = checkpoint.Checkpoints(folder, read_only=True)
        assert kept.steps() == [12]
        facts = folder / "12" / "progress" / "metadata"
        digests.add(json.loads(facts.read_text())["digest"])
    assert len(digests) == 2


def test_a_stopped_ensemble_goes_on_to_the_same_end(ensemble, tmp_path):
    with pytest.raises(signals.StoppedError):
        train(config(), workdir=tmp_path, watch=tiny.StopAfter(7))
    train(config(), workdir=tmp_path)
    assert tiny.outcome(tmp_path) == tiny.outcome(ensemble)


def test_a_member_that_diverges_is_named_and_the_others_go_on(tmp_path, capsys):
    rates = ("optimizer.learning_rate", (1e38, 0.01))
    changes = {"optimizer.name": "sgd", "optimizer.ema_decay": 0.0}
    train(config(**changes, **{"parallel.vary": rates}), workdir=tmp_path)
    assert "member 0: loss or gradients are not finite at step" in (
        capsys.readouterr().err
    )
    first, second = results(tmp_path)["members"]
    assert first["diverged"] > 0
    assert "diverged" not in second
    assert second["test"]["iou"]["analytic"] is not None


def test_an_ensemble_of_which_all_diverge_ends(tmp_path):
    rates = ("optimizer.learning_rate", (1e38, 1e38))
    changes = {"optimizer.name": "sgd", "parallel.vary": rates}
    with pytest.raises(InputError, match="not finite at step"):
        train(config(**changes), workdir=tmp_path)
