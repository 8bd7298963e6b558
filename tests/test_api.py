"""The verbs of daily use, on small arrays."""

import subprocess
import sys

import numpy as np
import pytest

import metaseg
from metaseg.errors import InputError
from metaseg.runs import defaults

TINY = {
    "model.width": 2,
    "model.depth": 1,
    "training.batch_size": 8,
    "report.images": 1,
}


def arrays(count=10):
    """Squares of 16 x 16 pixels, brighter than their surroundings."""
    rng = np.random.default_rng(0)
    labels = np.zeros((count, 20, 20), np.uint8)
    for label, (row, column) in zip(
        labels, rng.integers(0, 12, (count, 2)), strict=True
    ):
        label[row : row + 8, column : column + 8] = 1
    return labels + rng.normal(0, 0.2, labels.shape), labels


@pytest.fixture(scope="module")
def run():
    return metaseg.train(
        *arrays(), noise="flip", rate=0.2, steps=4, fields=TINY, quiet=True
    )


def test_a_run_in_memory_has_results_and_resolved_settings(run, capsys):
    assert set(run.results["test"]["iou"]) == {
        "analytic",
        "argmax",
        "oracle",
        "validation",
    }
    assert run.results["data"]["train"] == 7
    assert (run.config.training.steps, run.config.noise.rate) == (4, 0.2)
    assert run.config.augment.crop == 20
    assert [row["step"] for row in run.history if row["split"] == "val"] == [4]
    assert capsys.readouterr().err == ""
    with pytest.raises(AttributeError):
        run.config.training.steps = 5


def test_a_run_on_instance_maps_with_borders_numbers_objects(tmp_path):
    images, labels = arrays()
    ids = labels.astype(np.uint16) * (1 + (np.arange(20) >= 8))  # cut in two
    fields = {**TINY, "files.instances": "border"}
    run = metaseg.train(images, ids, steps=2, fields=fields, quiet=True)
    assert run.results["data"]["class_names"] == ["background", "inside", "border"]
    run.save(tmp_path / "run")
    predictor = metaseg.prediction.load(tmp_path / "run")
    assert predictor.border == 2
    found = metaseg.prediction.instance_ids(predictor, np.array([[1, 2, 0, 1, 1]]))
    assert found.tolist() == [[1, 1, 0, 2, 2]]
    with pytest.raises(InputError, match=r"`files\.label_values='7=1,14=2'`"):
        metaseg.train(images, ids * 7, steps=2, fields=TINY, quiet=True)


def test_a_saved_run_predicts_as_it_did_in_memory(run, tmp_path):
    images, _ = arrays(3)
    before = run.predict(images)
    run.save(tmp_path / "run")
    again = metaseg.load(tmp_path / "run")
    assert (again.results, again.history) == (run.results, run.history)
    assert again.config.to_dict() == run.config.to_dict() | {
        "parallel": again.config.parallel.to_dict()
    }
    for one, other in zip(before, again.predict(images), strict=True):
        assert one.labels.shape == (20, 20)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.scores, other.scores)
    assert (tmp_path / "run" / "report.html").is_file()
    with pytest.raises(InputError, match=r"folder: .* expected a new or empty folder"):
        run.save(tmp_path / "run")


def test_a_work_folder_gives_the_same_run_and_resumes_only_the_same_arrays(
    run, tmp_path
):
    images, labels = arrays()
    options = {"noise": "flip", "rate": 0.2, "steps": 4, "fields": TINY}
    kept = metaseg.train(images, labels, **options, workdir=tmp_path / "a", quiet=True)
    assert kept.results["test"] == run.results["test"]
    again = metaseg.train(images, labels, **options, workdir=tmp_path / "a", quiet=True)
    assert again.results == kept.results
    with pytest.raises(InputError, match=r"config\.data\.dataset was 'arrays/"):
        metaseg.train(images + 1, labels, **options, workdir=tmp_path / "a", quiet=True)


def test_fields_shape_the_data_as_a_config_does():
    fields = TINY | {"data.normalize": "percentile", "seed": 3, "augment.crop": 12}
    fields["files.label_threshold"] = 0.5
    images, labels = arrays()
    soft = images, 0.75 * labels
    config = defaults.get_config()
    config.update_from_flattened_dict(fields)
    given = metaseg.train(*soft, config=config, steps=2, quiet=True)
    found = metaseg.train(*soft, fields=fields, steps=2, quiet=True)
    assert found.results["test"] == given.results["test"]
    assert found.config.to_dict() == given.config.to_dict()
    plain = metaseg.train(*arrays(), steps=2, fields=TINY, quiet=True)
    assert plain.config.data.dataset != found.config.data.dataset


def test_an_audit_of_arrays_names_the_noise():
    _, labels = arrays(12)
    wrong = np.random.default_rng(1).random(labels.shape) < 0.3
    found = metaseg.audit(np.where(wrong, 1 - labels, labels), reference=labels)
    assert found["comparison"]["verdict"]["family"] == "randomised"
    assert found["comparison"]["matrix"][0][1] == pytest.approx(0.3, abs=0.03)


def test_images_are_segmented_without_labels(tmp_path):
    images, _ = arrays(4)
    fields = TINY | {
        "igtt.rounds": 2,
        "igtt.steps_per_round": 1,
        "igtt.sigma_coarse": 6.0,
    }
    run = metaseg.segment(list(images), fields=fields, quiet=True)
    assert list(run.masks) == ["000000", "000001", "000002", "000003"]
    assert {mask.shape for mask in run.masks.values()} == {(20, 20)}
    assert run.results["igtt"]["rounds"] == 2
    (predicted,) = run.predict(images[0])
    assert predicted.labels.shape == (20, 20)


def test_a_config_can_be_given_by_name_and_as_settings():
    with pytest.raises(InputError, match=r"config\.noise\.rate: got 2"):
        metaseg.train(config="cell_flip", rate=2.0)
    config = defaults.get_config()
    with pytest.raises(InputError, match=r"config\.model\.width: got 0"):
        metaseg.train(config=config, fields={"model.width": 0})
    assert config.model.width == defaults.get_config().model.width  # left as given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.zeros((4, 8, 8))}, "labels: not given"),
        ({"labels": np.zeros((4, 8, 8), int)}, "images: not given"),
        ({"images": "a", "labels": []}, "labels: given with a folder"),
        ({"images": "nowhere"}, "config.data.dir: .*nowhere"),
        ({"noise": "flip", "rote": 0.2}, "rote: no parameter of a noise; .*rate"),
        ({"noise": "flop"}, "config.noise.name: got 'flop'"),
        ({"noise": 3}, "noise: got 3, expected the name of a noise"),
        ({"steps": 2.5}, "steps: got 2.5, expected an integer >= 1"),
        (
            {"fields": {"data.name": "builtins:len"}},
            "config.data.name: got 'builtins:len', which returned a int",
        ),
        ({"fields": {"model.wide": 2}}, "fields: no field 'model.wide'"),
        ({"fields": {"model.width": "x"}}, "fields: got 'x' for 'model.width'"),
        ({"config": 3}, "config: got int, expected a ConfigDict"),
        ({"config": "cell_flop"}, "config: got 'cell_flop'.*cell_flip"),
    ],
)
def test_wrong_arguments_are_named_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        metaseg.train(**arguments)
    assert "\n" not in str(caught.value)


def test_the_import_is_light_and_knows_every_name():
    code = (
        "import sys, metaseg; assert 'jax' not in sys.modules; "
        "print(*(getattr(metaseg, name) is not None for name in metaseg.__all__))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {"True"}


def test_runs_are_functions_of_one_package():
    from metaseg import runs
    from metaseg.runs.igtt.run import segment
    from metaseg.runs.training.run import train

    assert (runs.train, runs.segment) == (train, segment)
    assert runs.load is metaseg.load
    assert callable(runs.predict.predict)
