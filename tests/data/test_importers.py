"""Small data sets in each published layout, imported and read back through TFDS."""

import io
import itertools
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tifffile
from PIL import Image
from tensorflow_datasets.core import example_serializer

from metaseg import instances
from metaseg.data import file_options, importers
from metaseg.data.file_options import FileOptions
from metaseg.data.importers import catalog as catalog_lib
from metaseg.data.importers import encoding, pairs, shards, staging
from metaseg.data.importers.cityscapes import CLASSES as CITY_CLASSES
from metaseg.data.importers.dsb2018 import modality
from metaseg.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 10), dtype=np.uint8)
RGB = RNG.integers(0, 256, (8, 10, 3), dtype=np.uint8)
MASK = RNG.integers(0, 2, (8, 10), dtype=np.uint8)
SPLITS = ("train", "val", "test")


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, **options)
    else:
        Image.fromarray(array).save(path, **options)
    return path


def run(source, root, data_dir, config="", workers=0, skip_bad=False, **options):
    fields = {
        name: options.pop(name) for name in FileOptions._fields if name in options
    }
    settings = importers.ImportRequest(
        source=source,
        path=root,
        data_dir=data_dir,
        config=config,
        workers=workers,
        skip_bad=skip_bad,
        options=importers.ImportOptions(**options, files=file_options.build(**fields)),
    )
    return importers.prepare(settings, lambda K: [(9 * i, 0, 0) for i in range(K + 1)])


def read(path):
    """Each split as TFDS reads it: names, images, labels `[H, W]`."""
    builder = tfds.builder_from_directory(path)
    return {
        split: [
            (x["name"].decode(), x["image"], x["label"][..., 0])
            for x in builder.as_data_source(split)
        ]
        for split in SPLITS
    }


def names(path):
    return {split: [x[0] for x in own] for split, own in read(path).items()}


def failure(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tree(root, image=GREY, label=MASK, suffix="png", count=2):
    """A good folder: `count` pairs in each split."""
    for split in SPLITS:
        for i in range(count):
            save(root / split / "images" / f"{i}.{suffix}", image)
            save(root / split / "labels" / f"{i}.{suffix}", label)
    return root


@pytest.fixture
def good(tmp_path):
    return tree(tmp_path / "in")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


# Layouts


def test_organelle_masks_are_read_from_the_tree_whatever_their_depth(tmp_path, out):
    image = GREY.astype(np.uint16) * 256
    root = tree(tmp_path / "in/ER", image, MASK.astype(np.uint16) * 65_535, "tif")
    save(root / "train/labels/0.tif", MASK * 255)
    path = run("organelle", root.parent, out, config="er").path
    assert path == out / "organelle/er/1.0.0"
    for own in read(path).values():
        assert [x[0] for x in own] == ["0", "1"]
        for _, stored, label in own:
            assert stored.dtype == np.uint16
            np.testing.assert_array_equal(stored[..., 0], image)
            np.testing.assert_array_equal(label, MASK)


def test_organelle_lists_go_before_the_tree(tmp_path, out):
    root = tree(tmp_path / "in/mito", suffix="tif")
    save(root / "other dir/im.tif", RGB)
    save(root / "other dir/mask.tif", MASK)
    (root / "train.txt").write_text(
        "# image, label\nother dir/im.tif, other dir/mask.tif\n\n"
        "mito/train/images/1.tif mito/train/labels/1.tif\n"
    )
    path = run("organelle", root.parent, out, config="mito").path
    assert names(path) == {"train": ["1", "im"], "val": ["0", "1"], "test": ["0", "1"]}


def test_organelle_lists_name_what_is_missing_or_in_two_splits(tmp_path, out):
    root = tree(tmp_path / "in/nuclei", suffix="tif")
    line = "train/images/0.tif\ttrain/labels/0.tif\n"
    (root / "train.txt").write_text(line + "gone.tif train/labels/0.tif\n")
    (root / "val.txt").write_text(line)
    failure(run, "organelle", root.parent, out, config="nuclei")
    listed = (out / "organelle-nuclei-bad.txt").read_text()
    assert "train.txt: line 2: no file" in listed
    assert "0.tif: in train and in val" in listed
    (root / "val.txt").write_text("one two three\n")
    assert "line 1 has 3 parts" in failure(run, "organelle", root, out, "nuclei")


FLUORESCENCE = np.repeat(GREY[..., None] // 4, 3, axis=-1)
KINDS = {
    "fluorescence": FLUORESCENCE,
    "histology": np.uint8([230, 180, 210]) - RGB // 16,
    "brightfield": 255 - FLUORESCENCE,
}


@pytest.fixture(scope="module")
def bowl(tmp_path_factory):
    """Four images of each kind, in RGBA, two nuclei in each that share a corner."""
    root = tmp_path_factory.mktemp("bowl")
    for i, image in enumerate(KINDS.values()):
        for j in range(4):
            folder = root / f"stage1_train/{i}{j}"
            alpha = np.full((8, 10, 1), 255, np.uint8)
            save(folder / f"images/{i}{j}.png", np.dstack([image, alpha]))
            for k, place in enumerate((np.s_[:4, :4], np.s_[3:6, 3:6])):
                mask = np.zeros((8, 10), np.uint8)
                mask[place] = 255
                save(folder / f"masks/{k}.png", mask)
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_dsb2018_kinds_are_told_apart_and_drawn_into_splits(bowl, out, kind):
    prepared = run("dsb2018", bowl, out, config=kind, shares=(2, 1, 1))
    splits = read(prepared.path)
    assert {split: len(own) for split, own in splits.items()} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }
    every = [x for own in splits.values() for x in own]
    index = list(KINDS).index(kind)
    assert sorted(x[0] for x in every) == [f"{index}{j}" for j in range(4)]
    union = np.zeros((8, 10), np.uint8)
    union[:4, :4] = union[3:6, 3:6] = 1
    channels = 3 if kind == "histology" else 1
    for _, image, label in every:
        np.testing.assert_array_equal(image, KINDS[kind][..., :channels])
        np.testing.assert_array_equal(label, union)
    assert prepared.summary["overlapping_pixels"] == 4
    assert prepared.summary["kinds"] == dict.fromkeys(KINDS, 4)


def test_dsb2018_all_kinds_are_stored_in_colour(bowl, out):
    path = run("dsb2018", bowl, out).path
    images = {name: x for own in read(path).values() for name, x, _ in own}
    for i, image in enumerate(KINDS.values()):
        np.testing.assert_array_equal(images[f"{i}0"], image)


def test_dsb2018_names_what_an_image_lacks(bowl, tmp_path, out):
    home = tmp_path / "in/stage1_train"
    save(home / "a/masks/0.png", MASK)
    save(home / "b/images/b.png", GREY)
    save(home / "c/images/c.png", GREY)
    save(home / "c/masks/0.png", MASK[1:])
    failure(run, "dsb2018", home.parent, out)
    listed = (out / "dsb2018-all-bad.txt").read_text()
    assert "a: no image" in listed
    assert "b: no mask" in listed
    assert "0.png: 7 x 10 (height x width); expected 8 x 10" in listed


@pytest.mark.parametrize("level", [0, 127])
def test_modality_of_grey_follows_the_background(level):
    assert modality(np.full((4, 4, 1), level, np.uint8)) == "fluorescence"
    assert modality(np.full((4, 4, 1), 255 - level, np.uint8)) == "brightfield"


def test_camvid_eleven_becomes_void(tmp_path, out):
    ids = RNG.integers(0, 12, (8, 10), dtype=np.uint8)
    ids[0, 0] = 11
    for split in SPLITS:
        save(tmp_path / "in" / split / "f 0.png", RGB)
        save(tmp_path / "in" / f"{split}annot" / "f 0.png", ids)
    path = run("camvid", tmp_path / "in", out).path
    for own in read(path).values():
        ((name, image, label),) = own
        assert name == "f 0"
        np.testing.assert_array_equal(image, RGB)
        np.testing.assert_array_equal(label, np.where(ids == 11, 255, ids))
    facts = importers.read_metadata(path)
    assert facts["num_classes"] == len(facts["class_names"]) == 11
    assert facts["splits"]["val"]["class_pixels"] == np.bincount(ids.flat).tolist()
    assert facts["splits"]["val"]["sizes"] == [[8, 10]]


def city(root, split, town, count, ids):
    for i in range(count):
        stem = f"{town}/{town}_{i}"
        save(root / "leftImg8bit" / split / f"{stem}_leftImg8bit.png", RGB)
        save(root / "gtFine" / split / f"{stem}_gtFine_labelIds.png", ids)
        save(root / "gtFine" / split / f"{stem}_gtFine_color.png", RGB)


def test_cityscapes_ids_become_training_ids_and_cities_stay_together(tmp_path, out):
    ids = np.arange(40, dtype=np.uint8).reshape(4, 10) % 34
    ids = np.pad(ids, ((0, 4), (0, 0)), constant_values=255)
    for town, count in {"aachen": 4, "bonn": 1, "celle": 4, "dresden": 1}.items():
        city(tmp_path / "in", "train", town, count, ids)
    city(tmp_path / "in", "val", "essen", 2, ids)
    path = run("cityscapes", tmp_path / "in", out).path
    splits = read(path)
    assert [x[0] for x in splits["test"]] == ["essen/essen_0", "essen/essen_1"]
    towns = {s: {x[0].split("/")[0] for x in own} for s, own in splits.items()}
    assert not towns["train"] & towns["val"]
    assert towns["train"] | towns["val"] == {"aachen", "bonn", "celle", "dresden"}
    label = splits["val"][0][2]
    for index, value in enumerate(CITY_CLASSES):
        np.testing.assert_array_equal(label == index, ids == value)
    assert (label[~np.isin(ids, list(CITY_CLASSES))] == 255).all()


def test_cityscapes_classes_are_the_nineteen_of_the_benchmark():
    ids = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert list(CITY_CLASSES) == ids


def test_folder_with_splits_keeps_them_and_the_order_of_names(tmp_path, out):
    root = tree(tmp_path / "my cells", label=MASK * 255)
    odd = {"ünï côdé": GREY, "細胞/z 1": GREY[::-1], "B": GREY // 2}
    for name, image in odd.items():
        save(root / f"val/images/{name}.png", image)
        save(root / f"val/labels/{name}.tif", MASK)  # of 0 and 1, below
    for path in root.glob("*/labels/**/*.tif"):
        save(path, MASK * 255)
    prepared = run("folder", root, out, workers=2)
    assert prepared.path == out / "folder/my_cells/1.0.0"
    val = read(prepared.path)["val"]
    assert [x[0] for x in val] == sorted([*odd, "0", "1"])
    for name, image, label in val:
        np.testing.assert_array_equal(image[..., 0], odd.get(name, GREY))
        np.testing.assert_array_equal(label, MASK)


def test_folder_without_splits_draws_them_by_seed(tmp_path, out):
    for i in range(20):
        save(tmp_path / f"in/images/{i:02d}.png", GREY + np.uint8(i))
        save(tmp_path / f"in/labels/{i:02d}.png", MASK)
    drawn = [
        names(run("folder", tmp_path / "in", out, name=f"n{i}", seed=seed).path)
        for i, seed in enumerate((0, 0, 1))
    ]
    assert [len(drawn[0][split]) for split in SPLITS] == [14, 2, 4]
    every = itertools.chain(*drawn[0].values())
    assert sorted(every) == [f"{i:02d}" for i in range(20)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_each_page_is_an_example_and_pages_of_a_file_share_a_split(tmp_path, out):
    stack = RNG.integers(0, 60_000, (12, 8, 10), dtype=np.uint16)
    masks = RNG.integers(0, 3, (12, 8, 10), dtype=np.uint8)
    for name in "abc":
        save(tmp_path / f"in/images/{name}.tif", stack, photometric="minisblack")
        save(tmp_path / f"in/labels/{name}.tif", masks, photometric="minisblack")
    splits = read(run("folder", tmp_path / "in", out).path)
    for own in splits.values():
        letter = own[0][0][0]
        assert [x[0] for x in own] == [f"{letter}#{i}" for i in range(12)]
        np.testing.assert_array_equal(np.stack([x[1] for x in own])[..., 0], stack)
        np.testing.assert_array_equal(np.stack([x[2] for x in own]), masks)
    one = read(run("folder", tmp_path / "in", out, name="one", page=3).path)
    np.testing.assert_array_equal(one["test"][0][1][..., 0], stack[3])


def test_one_channel_can_be_taken(tmp_path, out):
    path = run("folder", tree(tmp_path / "in", RGB), out, channels=1).path
    np.testing.assert_array_equal(read(path)["val"][0][1], RGB[..., 1:2])


def test_mixed_depths_and_colours_get_one_form_that_keeps_the_values(good, out):
    float_image = RNG.normal(size=(8, 10)).astype(np.float32)
    save(good / "train/images/5.tif", float_image)
    save(good / "train/images/6.png", RGB)
    for name in "56":
        save(good / f"train/labels/{name}.png", MASK)
    images = {x[0]: x[1] for x in read(run("folder", good, out).path)["train"]}
    expected = {"0": np.dstack([GREY] * 3), "5": np.dstack([float_image] * 3), "6": RGB}
    for name, image in expected.items():
        assert images[name].dtype == np.float32
        np.testing.assert_array_equal(images[name], image)


@pytest.mark.parametrize(
    ("stored", "options", "expected"),
    [
        ((0, 1), {}, (0, 1)),
        ((0, 255), {}, (0, 1)),
        ((0, 2, 255), {"num_classes": 3}, (0, 2, 255)),
        ((0, 5), {"num_classes": 9}, (0, 5)),
        ((7, 300, 9), {"label_values": {7: 1, 300: 0, 9: 255}}, (1, 0, 255)),
    ],
)
def test_stored_values_become_class_ids(tmp_path, out, stored, options, expected):
    which = RNG.integers(0, len(stored), (8, 10))
    dtype = np.uint16 if max(stored) > 255 else np.uint8
    root = tree(tmp_path / "in", label=np.array(stored, dtype)[which], suffix="tif")
    label = read(run("folder", root, out, **options).path)["train"][0][2]
    np.testing.assert_array_equal(label, np.array(expected)[which])


def test_borders_of_instance_maps_become_a_class_with_a_name(tmp_path, out):
    ids = np.zeros((8, 10), np.uint16)
    ids[1:7, 1:5], ids[1:7, 5:9] = 600, 41
    root = tree(tmp_path / "in", label=ids, suffix="tif")
    path = run("folder", root, out, instances="border").path
    facts = importers.read_metadata(path)
    assert facts["class_names"] == ["background", "inside", "border"]
    expected = np.uint8(ids > 0) + instances.borders(ids)
    np.testing.assert_array_equal(read(path)["train"][0][2], expected)


def test_a_rare_value_beyond_the_first_guess_is_found(good, out, monkeypatch):
    monkeypatch.setattr(staging, "_PROBED", 1)
    save(good / "test/labels/1.png", MASK * 4)
    facts = importers.read_metadata(run("folder", good, out).path)
    assert facts["num_classes"] == 5


def catalog(data_dir, name="oxford_iiit_pet", splits=("train", "test"), count=20):
    """A prepared data set with the features of the Oxford pets, as TFDS writes it."""

    class Pets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("4.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(encoding_format="png"),
                        "label": tfds.features.ClassLabel(num_classes=37),
                        "file_name": tfds.features.Text(),
                        "segmentation_mask": tfds.features.Image(
                            shape=(None, None, 1), encoding_format="png"
                        ),
                    }
                ),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            for i in range(count):
                yield (
                    i,
                    {
                        "image": png(RGB),
                        "label": 3,
                        "file_name": f"{i}.jpg",
                        "segmentation_mask": png(MASK + 1 + (GREY > 200)),
                    },
                )

    Pets.name = name
    Pets.code_path = None
    tfds.disable_progress_bar()
    Pets(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return catalog(tmp_path_factory.mktemp("tfds"))


def test_catalog_pets_are_foreground_and_a_tenth_of_train_becomes_val(pets, out):
    path = run("tfds", pets, out, config="oxford_iiit_pet", workers=1).path
    assert path == out / "tfds/oxford_iiit_pet/1.0.0"
    splits = read(path)
    assert [len(splits[split]) for split in SPLITS] == [18, 2, 20]
    expected = np.array([9, 1, 0, 255])[MASK + 1 + (GREY > 200)]
    for _, image, label in splits["val"]:
        np.testing.assert_array_equal(image, RGB)
        np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("error", [AttributeError, TypeError])
def test_an_error_of_the_program_is_not_taken_for_a_damaged_catalog(
    tmp_path, monkeypatch, error
):
    def wrong(*arguments):
        raise error("a slip")

    monkeypatch.setattr(catalog_lib, "_source", wrong)
    item = pairs.ImportItem("train-000000", "train", (), 0)
    with pytest.raises(error, match="a slip"):
        catalog_lib.read_record(item, home=tmp_path, image="image", label="label")


def test_catalog_features_and_values_of_others_are_given(tmp_path, out):
    root = catalog(tmp_path, "cats", ("train", "validation", "test"), count=1)
    told = failure(run, "tfds", root, out, config="cats")
    assert "expected image=NAME,label=NAME of file_name, image, label, " in told
    path = run(
        "tfds",
        root,
        out,
        config="cats",
        features={"image": "image", "label": "segmentation_mask"},
        label_values={1: 0, 2: 1, 3: 2},
    ).path
    np.testing.assert_array_equal(read(path)["val"][0][2], MASK + (GREY > 200))


def test_catalog_says_how_to_prepare_what_is_not_there(tmp_path, out):
    told = failure(run, "tfds", tmp_path, out, config="oxford_iiit_pet")
    assert "tfds build oxford_iiit_pet --file_format=array_record" in told


# What a prepared data set is


def test_bytes_of_plain_png_files_are_kept(good, out):
    path = run("folder", good, out).path
    source = tfds.builder_from_directory(path).as_data_source(
        "train",
        decoders=dict.fromkeys(("image", "label"), tfds.decode.SkipDecoding()),
    )
    record = source[0]
    assert record["image"] == (good / "train/images/0.png").read_bytes()
    assert record["label"] == (good / "train/labels/0.png").read_bytes()


@pytest.mark.parametrize(
    "options", [{"gamma": 0.5}, {"transparency": 3}, {"icc_profile": b"x"}]
)
def test_png_files_with_instructions_for_viewers_are_not_kept(tmp_path, options):
    path = tmp_path / "x.png"
    info = Image.fromarray(GREY)
    if "gamma" in options:
        gamma = struct.pack(">I", 50_000)
        chunk = b"gAMA" + gamma
        data = png(GREY)
        made = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        path.write_bytes(data[:33] + made + data[33:])
    else:
        info.save(path, **options)
    assert encoding.plain_png(path, 0) == b""
    info.save(path)
    assert encoding.plain_png(path, 0) == path.read_bytes()


def test_many_shards_keep_the_order(good, out, monkeypatch):
    monkeypatch.setattr("metaseg.data.importers.builder._SHARD", 2000)
    for i in range(100):
        save(good / f"train/images/x{i}.png", GREY + np.uint8(i))
        save(good / f"train/labels/x{i}.png", MASK)
    path = run("folder", good, out).path
    own = read(path)["train"]
    assert len(list(path.glob("*train*"))) > 5
    assert [x[0] for x in own] == sorted(["0", "1", *(f"x{i}" for i in range(100))])
    for name, image, _ in own[2:]:
        np.testing.assert_array_equal(image[..., 0], GREY + np.uint8(int(name[1:])))


def test_the_number_of_workers_changes_no_byte(good, tmp_path, monkeypatch):
    monkeypatch.setattr("metaseg.data.importers.builder._SHARD", 500)
    for i in range(20):
        save(good / f"train/images/x{i}.png", GREY + np.uint8(i))
        save(good / f"train/labels/x{i}.png", MASK)
    paths = [run("folder", good, tmp_path / str(n), workers=n).path for n in (0, 2)]
    alone, together = (
        {file.name: file.read_bytes() for file in path.iterdir()} for path in paths
    )
    assert len(alone) > 10
    assert alone == together


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("size", [(1, 1), (127, 128), (16_384, 3)])
@pytest.mark.parametrize("length", [1, 100, 128, 20_000])
def test_a_record_has_the_bytes_that_tfds_gives_it(tmp_path, dtype, size, length):
    image, label = RNG.bytes(length), RNG.bytes(2 * length)
    (tmp_path / "a.bin").write_bytes(b"before" + image + label + b"after")
    found = encoding.ExampleRecord(
        "nämé", "train", "", size=size, offset=6, image=length, label=2 * length
    )
    plan = encoding.StoragePlan(3, dtype, None)
    values = {"label": label, "name": "nämé"}
    kinds = {name: tfds.features.TensorInfo((), np.object_) for name in values}
    if plan.is_png:
        values["image"], kinds["image"] = image, kinds["label"]
    else:
        values["image/value"], kinds["image/value"] = image, kinds["label"]
        values["image/shape"] = np.array([*size, 3], np.int32)
        kinds["image/shape"] = tfds.features.TensorInfo((3,), np.int32)
    expected = example_serializer.ExampleSerializer(kinds).get_tf_example(values)
    ours = shards.record(staging.Stored(found, tmp_path / "a.bin"), plan)
    assert ours == expected.SerializeToString(deterministic=True)


def test_the_network_is_left_alone(good, out, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("an import looked for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    assert run("folder", good, out).new


def test_worker_processes_start_neither_jax_nor_tfds():
    code = (
        "import sys, metaseg.data.importers.shards;"
        "sys.exit(bool({'jax', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unchanged_input_is_not_imported_again_and_changed_input_is(good, out):
    first = run("folder", good, out)
    stamp = (first.path / "metadata.json").stat().st_mtime_ns
    again = run("folder", good, out)
    assert first.new
    assert not again.new
    assert again.summary == json.loads(json.dumps(first.summary))
    assert (first.path / "metadata.json").stat().st_mtime_ns == stamp
    save(good / "val/images/0.png", GREY[::-1].copy())
    os.utime(good / "val/images/0.png", ns=(0, time.time_ns() + 10**9))
    changed = run("folder", good, out)
    assert changed.new
    np.testing.assert_array_equal(read(changed.path)["val"][0][1][..., 0], GREY[::-1])
    assert not list(out.glob(".staging*"))


def test_an_import_leaves_a_summary_and_a_contact_sheet_beside_the_shards(good, out):
    path = run("folder", good, out, class_names=("sky", "bird")).path
    summary = json.loads((path / "summary.json").read_text())
    assert summary["classes"] == ["sky", "bird"]
    share = MASK.mean()
    assert summary["splits"]["test"]["class_shares"] == pytest.approx(
        [1 - share, share]
    )
    with Image.open(path / "contact_sheet.png") as sheet:
        assert sheet.size > (500, 300)


def test_read_metadata_refuses_what_is_no_finished_data_set(good, out, tmp_path):
    assert "expected a data set" in failure(importers.read_metadata, tmp_path)
    path = run("folder", good, out).path
    (path / "dataset_info.json").unlink()
    assert "unfinished" in failure(importers.read_metadata, path)
    (path / "metadata.json").write_text('{"metaseg": 7}')
    assert "of format 7" in failure(importers.read_metadata, path)
    (path / "metadata.json").write_text("{")
    assert "no JSON" in failure(importers.read_metadata, path)


def test_every_part_of_a_draw_gets_a_group_and_each_group_one_part():
    groups = ["a", "a", "b", "c", "c", "c"]
    parts = pairs.draw(groups, (0.98, 0.01, 0.01), seed=0)
    assert sorted(itertools.chain(*parts)) == list(range(6))
    owners = [{groups[i] for i in part} for part in parts]
    assert sorted(map(len, owners)) == [1, 1, 1]
    assert "at least 3" in failure(pairs.draw, ["a", "b"], (1, 1, 1), 0)


# Bad input


def bomb(path):
    """A PNG of a few bytes whose header promises 90 000 x 90 000 pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 90_000, 90_000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(path, "JPEG", exif=exif)


def nan(path):
    tifffile.imwrite(path, np.full((8, 10), np.nan, np.float32))


def jpeg(path):
    Image.fromarray(MASK).save(path, "JPEG")


BAD_FILES = {
    "truncated": ("images/x.png", lambda p: p.write_bytes(png(GREY)[:-20])),
    "truncated label": ("labels/x.png", lambda p: p.write_bytes(png(MASK)[:50])),
    "zero bytes": ("images/x.png", lambda p: p.write_bytes(b"")),
    "wrong extension": ("images/x.png", jpeg),
    "rotated": ("images/x.jpg", rotated),
    "bomb": ("images/x.png", bomb),
    "nan": ("images/x.tif", nan),
    "jpeg label": ("labels/x.jpg", jpeg),
    "colour label": ("labels/x.png", lambda p: p.write_bytes(png(RGB))),
    "size": ("labels/x.png", lambda p: p.write_bytes(png(MASK[1:]))),
    "many values": (
        "labels/x.tif",
        lambda p: tifffile.imwrite(p, np.arange(400, dtype=np.int32).reshape(20, 20)),
    ),
    "no partner": ("labels/y.png", lambda p: p.write_bytes(png(MASK))),
    "duplicate": ("images/0.tif", lambda p: tifffile.imwrite(p, GREY)),
    "newline": ("images/a\nb.png", lambda p: p.write_bytes(png(GREY))),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_after_all_were_checked_or_left_out(good, out, case):
    where, write = BAD_FILES[case]
    path = good / "val" / where
    save(good / "val/images/x.png", GREY)
    save(good / "val/labels/x.png", MASK)
    for other in path.parent.glob("x.*") if path.stem == "x" else ():
        other.unlink()
    write(path)
    (good / "train/labels/1.png").write_bytes(b"")
    told = failure(run, "folder", good, out)
    lines = (out / "folder-in-bad.txt").read_text().splitlines()
    noun = "file" if len(lines) == 1 else "files"
    assert f"{len(lines)} {noun} cannot be used" in told
    named = repr(path.stem)[1:-1] if case == "newline" else path.name
    assert any(named in line for line in lines)
    assert any("zero bytes" in line for line in lines)
    assert not (out / "folder").exists()
    prepared = run("folder", good, out, skip_bad=True)
    assert prepared.summary["bad"] == lines
    left = {"duplicate": ["1", "x"], "no partner": ["0", "1", "x"]}
    left["newline"] = left["no partner"]
    assert names(prepared.path)["val"] == left.get(case, ["0", "1"])


FINE_LABELS = {
    "one bit": lambda p: Image.fromarray(MASK.astype(bool)).save(p),
    "colour map": lambda p: paletted(p),
    "equal channels": lambda p: Image.fromarray(np.dstack([MASK] * 3)).save(p),
}


def paletted(path):
    image = Image.fromarray(MASK).convert("P")
    image.putpalette([7, 7, 7, 200, 0, 0])
    image.frombytes(MASK.tobytes())
    image.save(path)


@pytest.mark.parametrize("case", FINE_LABELS)
def test_packed_and_colour_mapped_labels_keep_their_ids(good, out, case):
    FINE_LABELS[case](good / "train/labels/0.png")
    label = read(run("folder", good, out).path)["train"][0][2]
    np.testing.assert_array_equal(label, MASK)


def test_values_that_mean_no_class_are_counted_over_all_files(good, out):
    for split, value in (("train", 4), ("test", 4), ("val", 200)):
        label = MASK.copy()
        label[0, :3] = value
        save(good / split / "labels/1.png", label)
    told = failure(run, "folder", good, out, num_classes=3)
    assert "4 (6 pixels), 200 (3 pixels)" in told
    assert "3 of 6 label maps" in told


def test_a_number_of_classes_must_fit_the_values(good, out):
    told = failure(run, "folder", good, out, label_values={0: 5}, num_classes=2)
    assert told.startswith("num_classes: got 2, expected `num_classes=6`")


def test_255_beside_1_in_two_classes_is_not_guessed(good, out):
    save(good / "train/labels/0.png", MASK * 255)
    assert "mixed encodings: 255 (" in failure(run, "folder", good, out)
    path = run("folder", good, out, label_values={0: 0, 1: 1, 255: 255}).path
    np.testing.assert_array_equal(read(path)["train"][0][2], MASK * 255)


def test_pages_of_image_and_label_must_agree(good, out):
    save(good / "val/images/x.tif", np.stack([GREY] * 5), photometric="minisblack")
    save(good / "val/labels/x.tif", np.stack([MASK] * 6), photometric="minisblack")
    failure(run, "folder", good, out)
    assert "6 pages; expected 5" in (out / "folder-in-bad.txt").read_text()


def test_loops_of_symbolic_links_are_harmless(good, out):
    (good / "val/images/loop").symlink_to(good / "val/images")
    (good / "val/labels/self").symlink_to("self")
    assert names(run("folder", good, out).path)["val"] == ["0", "1"]


@pytest.mark.parametrize(
    ("source", "config"),
    [
        ("organelle", "er"),
        ("dsb2018", ""),
        ("camvid", ""),
        ("cityscapes", ""),
        ("folder", ""),
    ],
)
def test_another_layout_is_named_beside_the_expected_one(tmp_path, out, source, config):
    (tmp_path / "in/something").mkdir(parents=True)
    told = failure(run, source, tmp_path / "in", out, config)
    assert "has something" in told
    assert importers.SOURCES[source].TREE in told
    assert "no folder" in failure(run, source, tmp_path / "nowhere", out, config)


@pytest.mark.parametrize(
    ("source", "changes", "expected"),
    [
        ("city", {}, "source: got 'city', expected one of organelle"),
        ("camvid", {"config": "half"}, "config: got 'half', expected one of full"),
        ("camvid", {"page": 1}, "page: not for camvid; expected only none"),
        ("dsb2018", {"channels": 1}, "expected only shares, seed"),
        (
            "folder",
            {"shares": (0, 1, 1)},
            "shares: got 0, 1, 1, expected three",
        ),
        ("folder", {"workers": -1}, "workers: got -1"),
        ("folder", {"name": "..."}, "name: no name"),
        (
            "folder",
            {"num_classes": 1},
            "num_classes: got 1, expected an integer",
        ),
        ("folder", {"class_names": ("a", "b", "c"), "num_classes": 2}, "3 names"),
        ("folder", {"label_values": {0: 0, 1: 300}}, "label_values: got '1=300'"),
    ],
)
def test_a_wrong_setting_is_named(good, out, source, changes, expected):
    assert expected in failure(run, source, good, out, **changes)
    assert not out.exists()


def full_disk(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "stage",
    [
        "metaseg.data.importers.encoding._png",  # while chunks are written
        "metaseg.data.importers.staging.Stored.read",  # while shards are
        "metaseg.data.importers.summary.contact_sheet",  # just before the end
    ],
)
def test_a_full_disk_leaves_nothing_finished_and_the_next_run_goes_on(
    good, out, monkeypatch, stage
):
    for path in good.glob("*/labels/*.png"):
        save(path, MASK * 255)  # so that they are encoded
    before = run("folder", good, out, name="whole").path
    with monkeypatch.context() as patch:
        patch.setattr(stage, full_disk)
        told = failure(run, "folder", good, out)
    assert "No space left on device; what is done is kept" in told
    assert not (out / "folder/in").exists()
    after = run("folder", good, out).path
    for file in before.glob("*.array_record*"):
        assert (after / file.name).read_bytes() == file.read_bytes()


def test_a_folder_that_cannot_be_written_to_is_named(good, tmp_path):
    (tmp_path / "file").write_text("")
    told = failure(run, "folder", good, tmp_path / "file/out")
    assert told.startswith("data_dir: cannot write in")


def test_finished_chunks_are_kept_if_their_inputs_are_unchanged(good, out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("metaseg.data.importers.importing._build", full_disk)
        failure(run, "folder", good, out)
    save(good / "test/images/1.png", GREY // 2)
    os.utime(good / "test/images/1.png", ns=(0, time.time_ns() + 10**9))
    seen: list[Path] = []
    examine = staging._examine

    def spy(item, read_):
        seen.append(item.files[0])
        return examine(item, read_)

    monkeypatch.setattr(staging, "_examine", spy)
    run("folder", good, out)
    assert seen == [good / "test/images/1.png"]


def test_one_import_at_a_time_writes_to_a_place(good, out):
    from metaseg.data.importers import importing

    with importing._locked(out / ".staging-folder-in"):
        assert "another import" in failure(run, "folder", good, out)
