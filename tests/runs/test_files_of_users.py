"""Files as people bring them: every command reads what the same plain PNG files hold.

The plain files are grey images with masks of 0 and 255, `{split}/{images,labels}`.
"""

import csv
import json
import os
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
import tiny
from PIL import Image, ImageFilter

from metaseg import cli, models, prediction
from metaseg.data import folder, normalize, prepared
from metaseg.data.file_options import FileOptions, build
from metaseg.data.importers import pairs
from metaseg.errors import InputError
from metaseg.runs import audit, predict, prepare, sources
from metaseg.runs.training.run import train

SIDE = 40
SPLITS = {"train": range(4), "val": range(4, 6), "test": range(6, 8)}


def scene(seed):
    """A uint8 image of bright disks, and their ids from 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    ids = np.zeros((SIDE, SIDE), np.uint16)
    for i, (cy, cx) in enumerate([(8, 8), (10, 28), (29, 9), (30, 30)][: 3 + seed % 2]):
        ids[(y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(4, 7) ** 2] = i + 1
    image = np.where(ids > 0, 170, 60) + rng.normal(0, 12, ids.shape)
    return image.clip(0, 255).astype(np.uint8), ids


def png(path, array, ending=".png", **options):
    Image.fromarray(array).save(path.with_name(path.name + ending), **options)


def tif(path, array, **options):
    options = {"photometric": "minisblack"} | options
    tifffile.imwrite(path.with_name(path.name + ".tif"), array, **options)


def mask(ids):
    return np.where(ids > 0, 255, 0).astype(np.uint8)


def plain_image(path, image, ids):
    png(path, image)


def plain_label(path, image, ids):
    png(path, mask(ids))


def write(root, image=plain_image, label=plain_label):
    for split, seeds in SPLITS.items():
        for part, save in (("images", image), ("labels", label)):
            (root / split / part).mkdir(parents=True)
            for seed in seeds:
                save(root / split / part / f"cell_{seed}", *scene(seed))
    return root


def big_endian_lzw(path, image, ids):
    tif(path, image.astype(np.uint16), byteorder=">", compression="lzw")


def group4(path, image, ids):
    png(path, ids > 0, ".tif", compression="group4", tiffinfo={262: 0})


def alpha(path, image, ids):
    png(path, np.dstack([np.zeros((SIDE, SIDE, 3), np.uint8), mask(ids)]))


def grey_levels(path, image, ids):
    png(path, np.choose(np.minimum(ids, 2), [0, 128, 255]).astype(np.uint8))


def soft(path, image, ids):
    wide = Image.fromarray(mask(ids)).filter(ImageFilter.GaussianBlur(2))
    values = np.where(ids > 0, 128 + np.array(wide) // 2, np.array(wide) // 3)
    png(path, values.astype(np.uint8))


def mixed(path, image, ids):
    png(path, mask(ids) // (1 if int(path.name[-1]) % 2 else 255))


def instances(path, image, ids):
    tif(path, ids)


def pyramid(path, image, ids):
    with tifffile.TiffWriter(path.with_name(path.name + ".tif")) as out:
        out.write(image, photometric="minisblack", metadata=None)
        small = {"subfiletype": 1, "metadata": None, "photometric": "minisblack"}
        out.write(image[::2, ::2], **small)


def zstd(path, image, ids):
    tif(path, image, compression="zstd")


def zstd_label(path, image, ids):
    zstd(path, mask(ids), ids)


def two_channels(path, image, ids):
    both = np.stack([255 - image, image])
    tifffile.imwrite(f"{path}.tif", both, imagej=True, metadata={"axes": "CYX"})


def suffixed(path, image, ids):
    png(path.with_name(path.name + "_cp_masks"), mask(ids))


def own_suffix(path, image, ids):
    png(path.with_name(path.name + "_foreground"), mask(ids))


def colours(path, image, ids):
    table = np.array([[0, 0, 0], [220, 20, 60]], np.uint8)
    png(path, table[(ids > 0).astype(int)])


def turned(path, image, ids):
    exif = Image.Exif()
    exif[274] = 6
    png(path, np.rot90(image), exif=exif)


def ome(path, image, ids):
    tif(path.with_name(path.name + ".ome"), image)


def bmp(path, image, ids):
    png(path, mask(ids), ".bmp")


# Writers of image and label; what the message of a refusal names; options that help.
CASES = {
    "big_endian_lzw": (big_endian_lzw, plain_label, None, {}),
    "white_is_zero": (plain_image, group4, None, {}),
    "alpha_only": (plain_image, alpha, "from_alpha=", {"from_alpha": True}),
    "grey_levels": (
        plain_image,
        grey_levels,
        "label_values='128=1,255=",
        {"label_values": "128=1,255=1"},
    ),
    "soft_edges": (plain_image, soft, "label_threshold=", {"label_threshold": 128}),
    "mixed": (plain_image, mixed, "label_values='255=1'", {"label_values": "255=1"}),
    "instances": (
        plain_image,
        instances,
        "instances=union",
        {"instances": "union"},
    ),
    "instances_by_values": (
        plain_image,
        instances,
        "instances=union",
        {"label_values": "0=0,*=1"},
    ),
    "pyramid": (pyramid, plain_label, None, {}),
    "zstd": (zstd, zstd_label, None, {}),
    "suffix": (plain_image, suffixed, None, {}),
    "own_suffix": (
        plain_image,
        own_suffix,
        "",
        {"label_suffix": "_foreground"},
    ),
    "colours": (
        plain_image,
        colours,
        "label_colors='#000000=0,#dc143c=1'",
        {"label_colors": "#000000=0,#dc143c=1"},
    ),
    "ome_and_bmp": (ome, bmp, None, {}),
}
LABELS_ALONE = {"own_suffix"}  # the name of a label map alone says nothing of images
# Images that one channel, or the orientation, makes plain: no matter of labels.
IMAGES = {
    "two_channels": (two_channels, {"channels": 1}),
    "exif_turned": (turned, {"apply_orientation": True}),
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The folder of each case, and "plain"."""
    home = tmp_path_factory.mktemp("users")
    found = {"plain": write(home / "plain")}
    for case, (image, label, *_) in CASES.items():
        found[case] = write(home / case, image, label)
    for case, (image, _) in IMAGES.items():
        found[case] = write(home / case, image)
    return found


def loaded(root, **files):
    config = SimpleNamespace(dir=str(root), num_classes=2, normalize="none")
    return folder.load(config, build(**files))


def assert_same(found, expected):
    for (name, split), (_, other) in zip(
        found.splits(), expected.splits(), strict=True
    ):
        assert split.names == other.names, name
        np.testing.assert_array_equal(split.images, other.images)
        np.testing.assert_array_equal(split.labels, other.labels)


def prepared_as(root, out, **files):
    """What training reads of a prepared folder."""
    done = prepare.prepare("folder", root, out, name="users", workers=0, **files)
    config = SimpleNamespace(
        dir=str(done.path), dataset="", num_classes=2, normalize="none", memory_gb=1.0
    )
    return prepared.load(config)


# Each case in each command


@pytest.mark.parametrize("case", CASES)
def test_training_reads_the_plain_data_or_names_the_option(roots, case):
    _, _, option, files = CASES[case]
    if option is not None:
        with pytest.raises(InputError) as caught:
            loaded(roots[case])
        assert option in str(caught.value)
        assert str(roots[case]) in str(caught.value)
    assert_same(loaded(roots[case], **files), loaded(roots["plain"]))


@pytest.mark.parametrize("case", CASES)
def test_prepare_stores_the_plain_data_or_names_the_option(roots, case, tmp_path):
    _, _, option, files = CASES[case]
    if option is not None:
        with pytest.raises(InputError) as caught:
            prepared_as(roots[case], tmp_path)
        assert option in str(caught.value)
    found = prepared_as(roots[case], tmp_path, **files)
    assert_same(found, loaded(roots["plain"]))


@pytest.mark.parametrize("case", CASES)
def test_audit_measures_the_plain_maps_or_names_the_option(roots, case, tmp_path):
    _, _, option, files = CASES[case]
    whole = partial(audit.audit, workers=0)
    labels = roots[case] / "train" / "labels"
    if option is not None and case not in LABELS_ALONE:
        with pytest.raises(InputError) as caught:
            whole(labels, tmp_path / "out")
        assert option in str(caught.value)
    found = whole(labels, tmp_path / "out", **files).summary
    plain = whole(roots["plain"] / "train" / "labels", tmp_path / "plain").summary
    assert found["overview"] == plain["overview"]
    assert [found[k] for k in ("maps", "bad", "num_classes")] == [4, [], 2]


@pytest.fixture(scope="module")
def predictor():
    """An untrained network for grey images of two classes."""
    return untrained(channels=1)


def untrained(channels, **fields):
    config = tiny.config()
    model = models.build(config.model, 2)
    blank = jnp.zeros((1, 4, 4, channels))
    variables = model.init(jax.random.key(0), blank, train=False)
    return prediction.Predictor(
        model=model,
        variables=variables,
        matrix=None,
        num_classes=2,
        class_names=("background", "cell"),
        channels=channels,
        normalizer=normalize.build("zscore"),
        name="users",
        **fields,
    )


def pooled(predictor, root, out, **files):
    """Measures of the test images by their labels."""
    images, labels = (str(root / "test" / part) for part in ("images", "labels"))
    found = predict.predict(predictor, images, out, labels=labels, **files)
    assert found.bad == []
    assert found.measures is not None
    return found.measures


@pytest.mark.parametrize("case", [*CASES, *IMAGES])
def test_predict_measures_by_the_plain_labels_or_names_the_option(
    roots, case, tmp_path, predictor
):
    if case in IMAGES:
        option, files = "", IMAGES[case][1]
    else:
        _, _, option, files = CASES[case]
    if option is not None:
        with pytest.raises(InputError) as caught:
            pooled(predictor, roots[case], tmp_path / "stopped")
        assert option in str(caught.value)
        assert "num_classes=" not in str(caught.value).partition("expected")[2]
    found = pooled(predictor, roots[case], tmp_path / "out", **files)
    plain = pooled(predictor, roots["plain"], tmp_path / "plain")
    assert plain["accuracy"] < 1
    np.testing.assert_equal({name: found[name] for name in plain}, plain)


@pytest.mark.parametrize(
    ("case", "known"),
    [
        ("grey_levels", FileOptions(label_values="128=255,255=1")),
        ("soft_edges", FileOptions(label_threshold=128)),
        ("instances", FileOptions(instances="union")),
        ("colours", FileOptions(label_colors="#000000=0,#dc143c=1")),
    ],
)
def test_predict_reads_labels_by_the_options_of_the_run(roots, case, known, tmp_path):
    with_options = untrained(channels=1, files=known)
    fields = {
        k: v for k, v in known._asdict().items() if v != FileOptions()._asdict()[k]
    }
    given = pooled(untrained(channels=1), roots[case], tmp_path / "given", **fields)
    found = pooled(with_options, roots[case], tmp_path / "found")
    np.testing.assert_equal(found, given)
    # Other label maps, which are no such ones, are read as they look.
    if not known.label_threshold and not known.label_values:
        plain = pooled(untrained(channels=1), roots["plain"], tmp_path / "a")
        others = pooled(with_options, roots["plain"], tmp_path / "b")
        np.testing.assert_equal(others, plain)


def test_predict_stops_where_the_options_of_the_run_give_other_classes(roots, tmp_path):
    inverted = FileOptions(label_values="0=1,255=0")
    predictor = untrained(channels=1, files=inverted)
    with pytest.raises(InputError) as caught:
        pooled(predictor, roots["plain"], tmp_path / "out")
    both = ["0=1,255=0", "0=0,255=1"]
    assert all(f"`label_values='{text}'`" in str(caught.value) for text in both)
    one, other = (
        pooled(predictor, roots["plain"], tmp_path / text, label_values=text)
        for text in both
    )
    assert one["accuracy"] == pytest.approx(1 - other["accuracy"])


@pytest.mark.parametrize("case", IMAGES)
def test_images_are_plain_with_their_option_in_training_and_prepare(
    roots, case, tmp_path
):
    files = IMAGES[case][1]
    expected = loaded(roots["plain"])
    assert_same(loaded(roots[case], **files), expected)
    assert_same(prepared_as(roots[case], tmp_path, **files), expected)


def test_images_alone_are_read_with_the_options_of_a_run(roots, tmp_path):
    shutil.copytree(roots["two_channels"] / "train" / "images", tmp_path / "in")
    (tmp_path / "in" / "notes.txt").touch()
    config = tiny.config(**{"data.name": "images", "data.dir": str(tmp_path / "in")})
    config.data.normalize = "none"
    both = sources.load_images(config)
    assert both.channels == 2
    assert any("1 file of other endings (.txt)" in note for note in both.notes)
    config.files.channels = "1"
    one = sources.load_images(config)
    plain = loaded(roots["plain"]).train
    np.testing.assert_array_equal(one.train.images, plain.images)
    assert one.train.names == plain.names


# Which files


def test_sub_folders_and_other_endings_are_found_in_every_command(
    tmp_path, roots, predictor
):
    root = shutil.copytree(roots["plain"], tmp_path / "in")
    for part, index in (("images", 0), ("labels", 1)):
        deeper = root / "test" / part / "slide2"
        deeper.mkdir()
        for seed in (20, 21):
            array = scene(seed)[index] if index == 0 else mask(scene(seed)[index])
            png(deeper / f"c{seed}", array, ".bmp")
        (root / "test" / part / "notes.txt").touch()
    names = ["cell_6", "cell_7", "slide2/c20", "slide2/c21"]
    data = loaded(root)
    assert list(data.test.names) == names
    assert "test: left out: 2 files of other endings (.txt)" in data.notes
    assert list(prepared_as(root, tmp_path / "prepared").test.names) == names
    found = audit.audit(root / "test" / "labels", tmp_path / "audit", workers=0)
    assert sorted(row["name"] for row in found.rows) == names
    images = str(root / "test" / "images")
    made = predict.predict(predictor, images, tmp_path / "predicted")
    assert [row["name"] for row in made.rows] == names


def test_names_that_are_not_utf_8_work_in_every_command(
    tmp_path, roots, predictor, capsys
):
    root = shutil.copytree(roots["plain"], tmp_path / "in")
    for part in ("images", "labels"):
        old = os.fsencode(root / "test" / part / "cell_6.png")
        os.rename(old, old.replace(b"cell_6", b"Zelle_\xfc"))
    name = "Zelle_\\xfc"
    assert name in loaded(root).test.names
    data = prepared_as(root, tmp_path / "prepared")
    assert name in data.test.names
    labels, images = root / "test" / "labels", root / "test" / "images"
    audit.audit(labels, tmp_path / "audit", images=images, reference=labels, workers=0)
    out = tmp_path / "predicted"
    predict.predict(predictor, str(images), out, labels=labels, scores=True)
    for table in (tmp_path / "audit" / "audit.csv", out / "predictions.csv"):
        with table.open(newline="", encoding="utf-8") as lines:
            assert name in [row["name"] for row in csv.DictReader(lines)]
    for page in (tmp_path / "audit" / "audit.html", out / "index.html"):
        assert "Zelle_\\" in page.read_text(encoding="utf-8")
    assert name in json.loads((out / "metrics.json").read_text())["per_image"]
    assert (out / "labels" / f"{name}.png").is_file()
    os.fsencode(out / "scores" / f"{name}.tif")
    capsys.readouterr().out.encode()  # whatever was said can be shown
    bad = os.fsencode(images / "bad") + b"\xff.png"
    with open(bad, "wb"):
        pass
    with pytest.raises(InputError, match=r"bad\\xff") as caught:
        loaded(root)
    str(caught.value).encode()


def test_one_folder_with_suffixes_is_read_by_every_command(tmp_path, predictor):
    for split, seeds in SPLITS.items():
        (tmp_path / "in" / split).mkdir(parents=True)
        for seed in seeds:
            plain_image(tmp_path / "in" / split / f"cell_{seed}", *scene(seed))
            suffixed(tmp_path / "in" / split / f"cell_{seed}", *scene(seed))
    plain = loaded(write(tmp_path / "plain"))
    assert_same(loaded(tmp_path / "in"), plain)
    assert_same(prepared_as(tmp_path / "in", tmp_path / "prepared"), plain)
    test = tmp_path / "in" / "test"
    found = audit.audit(test, tmp_path / "audit", images=test, workers=0)
    assert found.summary["maps"] == 2
    made = predict.predict(predictor, str(test), tmp_path / "out", labels=test)
    assert [row["name"] for row in made.rows] == ["cell_6", "cell_7"]
    assert made.measures is not None


def test_splits_may_be_missing_or_without_labels_but_not_the_training_split(
    tmp_path, roots
):
    root = shutil.copytree(roots["plain"], tmp_path / "in")
    shutil.rmtree(root / "val")
    shutil.rmtree(root / "test" / "labels")
    for data in (loaded(root), prepared_as(root, tmp_path / "prepared")):
        assert [len(split) for _, split in data.splits()] == [4, 0, 2]
        assert (data.test.labels == 255).all()
        assert data.train.labels.max() == 1
    shutil.rmtree(root / "train" / "labels")
    with pytest.raises(InputError, match="labels"):
        prepared_as(root, tmp_path / "again")


def test_a_share_of_zero_leaves_a_split_empty(tmp_path, roots):
    train_alone = roots["plain"] / "train"
    data = prepared_as(train_alone, tmp_path, shares=(0.5, 0, 0.5))
    assert [len(split) for _, split in data.splits()] == [2, 0, 2]
    assert [len(p) for p in pairs.draw("abcd", (1, 0, 0), 0)] == [4, 0, 0]


def test_each_page_is_an_image_or_one_is_taken_in_every_command(tmp_path, predictor):
    def stack(path, image, ids, which):
        seed = int(path.name[-1])
        every = [scene(seed), scene(seed + 50)]
        tif(path, np.stack([(one[0], mask(one[1]))[which] for one in every]))

    root = write(tmp_path / "in", partial(stack, which=0), partial(stack, which=1))
    test = root / "test"
    for page, names in (
        (None, ["cell_6#0", "cell_6#1", "cell_7#0", "cell_7#1"]),
        (1, ["cell_6", "cell_7"]),
    ):
        data = loaded(root, page=page)
        assert list(data.test.names) == names
        np.testing.assert_array_equal(data.test.labels[-1], mask(scene(57)[1]) > 0)
        assert_same(prepared_as(root, tmp_path / f"out{page}", page=page), data)
        out = tmp_path / f"audit{page}"
        found = audit.audit(test / "labels", out, workers=0, page=page)
        assert sorted(row["name"] for row in found.rows) == names
        out = tmp_path / f"predicted{page}"
        given = partial(predict.predict, predictor, str(test / "images"), out)
        made = given(labels=test / "labels", page=page)
        assert [row["name"] for row in made.rows] == names
        assert made.bad == []
    with pytest.raises(InputError, match=r"cell_6\.tif: page 7 of 2"):
        given(page=7)


def test_options_for_files_are_refused_where_the_data_are_prepared(tmp_path, roots):
    prepared_as(roots["plain"], tmp_path)
    fields = {"data.dir": str(tmp_path), "data.dataset": "folder/users"}
    for name, refuse in (("folder", sources.load), ("prepared", sources.check_files)):
        config = tiny.config(**fields, **{"data.name": name, "files.channels": 1})
        with pytest.raises(InputError, match=r"files\.channels: got \(1,\) for"):
            refuse(config)


# Channels


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Images of four channels with names, and a run on two of them."""
    home = tmp_path_factory.mktemp("channels")

    def four(path, image, ids):
        planes = np.stack([255 - image, image, image // 2, image // 3])
        names = ["DAPI", "actin", "tubulin", "empty"]
        tifffile.imwrite(
            f"{path}.ome.tif",
            planes,
            metadata={"axes": "CYX", "Channel": {"Name": names}},
        )

    root = write(home / "in", four)
    config = tiny.config(**{"data.name": "folder", "data.dir": str(root)})
    config.training.steps = 1
    config.noise.name = "none"
    config.noise.rate = None
    config.files.channels = ("actin", 0)
    return root, train(config, workdir=home / "run", quiet=True)


def test_any_number_of_channels_is_kept_in_training_and_prepare(many, tmp_path):
    root, _ = many
    data = loaded(root)
    assert data.channels == 4
    assert data.channel_names == ("DAPI", "actin", "tubulin", "empty")
    stored = prepared_as(root, tmp_path)
    assert_same(stored, data)
    assert stored.channel_names == data.channel_names
    both = loaded(root, channels="actin,0")
    np.testing.assert_array_equal(both.val.images, data.val.images[..., [1, 0]])
    assert both.channel_names == ("actin", "DAPI")


def test_a_run_tells_its_channels_and_prediction_takes_and_checks_them(many, tmp_path):
    root, run = many
    data = run.results["data"]
    assert data["channels"] == 2
    assert data["channel_names"] == ["actin", "DAPI"]
    assert (run.folder / "report.html").is_file()
    images = root / "test" / "images"
    made = predict.predict(run.folder, str(images), tmp_path / "out")
    assert [row["name"] for row in made.rows] == ["cell_6", "cell_7"]
    arrays = [tifffile.imread(p)[[1, 0]] for p in sorted(images.iterdir())]
    expected = run.predict([np.moveaxis(planes, 0, -1) for planes in arrays])
    for row, one in zip(made.rows, expected, strict=True):
        with Image.open(tmp_path / "out" / "labels" / f"{row['name']}.png") as file:
            np.testing.assert_array_equal(np.asarray(file), one.labels)
    with pytest.raises(InputError) as caught:
        predict.predict(run.folder, str(images), tmp_path / "three", channels="0,1,2")
    said = str(caught.value)
    assert "cell_6.ome.tif: 3 channels; expected 2" in said


def test_images_of_different_channels_are_named_with_both_numbers(roots, tmp_path):
    root = shutil.copytree(roots["plain"], tmp_path / "in")
    tif(root / "val" / "images" / "cell_4", np.zeros((SIDE, SIDE, 2), np.uint8))
    os.remove(root / "val" / "images" / "cell_4.png")
    tif(root / "val" / "images" / "cell_4", np.zeros((SIDE, SIDE), np.uint8))
    two_channels(root / "val" / "images" / "cell_4", *scene(4))
    for read in (loaded, partial(prepared_as, out=tmp_path / "out")):
        with pytest.raises(InputError, match=r"1 channel, but .* has 2; .*channels=0"):
            read(root)


# Words


def test_flags_of_files_are_the_same_in_prepare_predict_and_audit(capsys):
    for command in ("prepare", "predict", "audit"):
        assert cli.main([command, "--help"]) == 0
        said = capsys.readouterr().out
        for field in FileOptions._fields:
            assert f"--{field}" in said or f"--[no]{field}" in said


@pytest.mark.parametrize("flag", ["--label_values", "--values"])
def test_prepare_takes_the_values_by_both_names(roots, tmp_path, capsys, flag):
    arguments = ["--source=folder", f"--path={roots['mixed']}", "--workers=0"]
    out = tmp_path / "a folder"
    assert cli.main(["prepare", *arguments, f"--data_dir={out}", f"{flag}=255=1"]) == 0
    said = capsys.readouterr().out
    assert f"'--config.data.dir={out}'" in said  # can be pasted into a shell
    assert cli.main(["prepare", *arguments, f"--data_dir={tmp_path / 'b'}"]) == 2
    assert "`--label_values='255=1'`" in capsys.readouterr().err


def test_the_fields_of_a_run_are_named_as_they_are_given(roots, tmp_path, capsys):
    given = [f"--config.{name}={value}" for name, value in tiny.FIELDS.items()]
    start = ["train", "--config=default", f"--workdir={tmp_path / 'run'}", *given]
    folder_ = ["--config.data.name=folder", f"--config.data.dir={roots['instances']}"]
    arguments = [*start, *folder_]
    assert cli.main(arguments) == 2
    assert "`--config.files.instances=union`" in capsys.readouterr().err
    assert cli.main([*arguments, "--config.files.label_values=1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --config.files.label_values: got 1, expected")
    assert cli.main([*start, "--config.files.page=1"]) == 2
    assert "--config.files.page: got 1 for 'cells'" in capsys.readouterr().err
