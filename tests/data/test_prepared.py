"""What was written as a prepared data set is read back; what is wrong is named."""

import json
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import stored
from PIL import Image

from metaseg.data import folder, prepared
from metaseg.errors import InputError

COUNTS = {"train": 5, "val": 2, "test": 3}


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    return {s: stored.random_examples(rng, n) for s, n in COUNTS.items()}


@pytest.fixture(scope="module")
def root(tmp_path_factory, examples):
    path = tmp_path_factory.mktemp("prepared")
    stored.write(path, examples, class_names=["out", "in"])
    return path


def config(root, **changes):
    fields = {
        "dir": str(root),
        "dataset": "tiny/plain",
        "num_classes": 2,
        "normalize": "none",
        "memory_gb": 1.0,
    }
    return SimpleNamespace(**fields | changes)


def failure(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_examples_come_back_padded_and_in_order(root, examples, memory_gb):
    data = prepared.load(config(root, memory_gb=memory_gb))
    assert (data.num_classes, data.class_names) == (2, ("out", "in"))
    assert data.name == "tiny/plain"
    for name, split in data.splits():
        assert isinstance(split, prepared.StoredSplit) == (memory_gb == 0)
        taken = split.take(range(len(split)))
        assert taken.names == tuple(f"{name}-{i}" for i in range(COUNTS[name]))
        for i, (image, label) in enumerate(examples[name]):
            height, width = taken.valid_size[i]
            assert (height, width) == label.shape
            np.testing.assert_array_equal(taken.images[i, :height, :width], image)
            np.testing.assert_array_equal(taken.labels[i, :height, :width], label)
            assert (taken.images[i, height:] == 0).all()
            assert (taken.labels[i, :, width:] == 255).all()


def test_rows_are_taken_in_the_order_asked_for_also_after_pickling(root):
    split = prepared.load(config(root, memory_gb=0, normalize="zscore")).train
    whole = split.take(range(len(split)))
    rows = [3, 0, 3]
    for some in (split.take(rows), pickle.loads(pickle.dumps(split)).take(rows)):
        np.testing.assert_array_equal(some.images, whole.images[rows])
        np.testing.assert_array_equal(some.labels, whole.labels[rows])
        np.testing.assert_array_equal(some.ids, whole.ids[rows])


def test_a_prepared_folder_is_what_reading_the_folder_gives(tmp_path):
    rng = np.random.default_rng(1)
    examples = {s: stored.random_examples(rng, 3) for s in COUNTS}
    for split, pairs in examples.items():
        for i, (image, label) in enumerate(pairs):
            pairs[i] = image, (label == 1).astype(np.uint8)
            for kind, array in (("images", image[..., 0]), ("labels", pairs[i][1])):
                path = tmp_path / "tree" / split / kind / f"{split}-{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    stored.write(tmp_path / "data", examples)
    direct = folder.load(SimpleNamespace(dir=str(tmp_path / "tree")))
    through = prepared.load(config(tmp_path / "data", normalize="zscore"))
    for (_, a), (_, b) in zip(direct.splits(), through.splits(), strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.valid_size, b.valid_size)


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint16, 1), (np.float32, 3)])
def test_deep_and_colour_images_keep_their_values(tmp_path, dtype, channels):
    rng = np.random.default_rng(2)
    make = {"dtype": dtype, "channels": channels, "num_classes": 3}
    examples = {s: stored.random_examples(rng, 2, **make) for s in COUNTS}
    stored.write(tmp_path, examples, num_classes=3)
    data = prepared.load(config(tmp_path, num_classes=3))
    image, _ = examples["val"][1]
    height, width, _ = image.shape
    np.testing.assert_array_equal(data.val.take([1]).images[0, :height, :width], image)


def test_a_data_set_is_found_with_and_without_version_and_by_its_own_path(root):
    path = root / "tiny" / "plain" / "1.0.0"
    assert prepared.find(root, "tiny/plain") == path
    assert prepared.find(root, "tiny/plain/1.0.0") == path
    assert prepared.find(path, "") == path
    assert prepared.find(root, "tiny/none") is None


def test_the_newest_version_is_found(tmp_path):
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        folder_ = tmp_path / "a" / "b" / version
        folder_.mkdir(parents=True)
        for name in ("metadata.json", "features.json"):
            (folder_ / name).write_text("{}")
    assert prepared.find(tmp_path, "a/b").name == "1.10.0"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"dir": ""}, ["data.dir", "metaseg prepare"]),
        ({"dataset": "tiny/none"}, ["data.dataset", "tiny/none", "tiny/plain"]),
        ({"num_classes": 3}, ["data.num_classes", "3", "2 classes"]),
        ({"normalize": "max"}, ["data.normalize", "max", "zscore"]),
    ],
)
def test_a_wrong_field_is_named(root, changes, parts):
    message = failure(prepared.load, config(root, **changes))
    assert all(part in message for part in parts), message


def test_a_folder_without_any_data_set_is_named(tmp_path):
    message = failure(prepared.load, config(tmp_path))
    assert str(tmp_path) in message
    assert "prepare wrote" in message


def test_a_damaged_example_is_named(tmp_path, examples):
    stored.write(tmp_path, examples, broken=("train", 2))
    message = failure(prepared.load, config(tmp_path))
    assert "example 2 of train ('train-2') is unreadable" in message


@pytest.mark.parametrize("error", [AttributeError, TypeError])
def test_an_error_of_the_program_is_not_taken_for_damage(
    tmp_path, examples, monkeypatch, error
):
    def wrong(content):
        raise error("a slip")

    stored.write(tmp_path, examples)
    monkeypatch.setattr(prepared, "_pixels", wrong)
    with pytest.raises(error, match="a slip"):
        prepared.load(config(tmp_path))


def test_metadata_that_do_not_fit_the_records_are_named(tmp_path, examples):
    path = stored.write(tmp_path, examples)
    facts = json.loads((path / "metadata.json").read_text())
    facts["splits"]["val"]["names"][1] = "other"
    (path / "metadata.json").write_text(json.dumps(facts))
    message = failure(prepared.load, config(tmp_path))
    assert "'val-1'" in message
    assert "'other'" in message


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_a_data_set_that_is_prepared_again_is_read_anew(tmp_path, examples, memory_gb):
    stored.write(tmp_path, examples)
    first = prepared.load(config(tmp_path, memory_gb=memory_gb)).train
    before = first.take(range(len(first))).labels

    def inverted(label):
        return np.where(label == 255, 255, 1 - label)

    others = {
        split: [(image, inverted(label)) for image, label in pairs]
        for split, pairs in examples.items()
    }
    shutil.rmtree(tmp_path / "tiny")
    stored.write(tmp_path, others)
    second = prepared.load(config(tmp_path, memory_gb=memory_gb)).train
    after = second.take(range(len(second))).labels
    np.testing.assert_array_equal(after, inverted(before))
