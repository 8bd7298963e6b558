"""Stored label maps are read as what they are, or refused with the cure."""

import itertools
import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from metaseg.data import image_files, label_files
from metaseg.data.file_options import FileOptions
from metaseg.data.label_encoding import (
    ValueTable,
    check,
    decode,
    fits,
    instance_ids,
    parse_colors,
    parse_values,
    recognise,
    survey,
)
from metaseg.errors import InputError, prefixed

VOID = 255


def encoding_of(maps, num_classes=0, **options):
    chosen = FileOptions(**options)
    surveys = [
        (f"/d/{i}.png", survey(values, options=chosen)) for i, values in enumerate(maps)
    ]
    return recognise(surveys, options=chosen, num_classes=num_classes)


def decoded(maps, num_classes=0, **options):
    encoding = encoding_of(maps, num_classes, **options)
    found = [decode(values, encoding, where="map") for values in maps]
    for labels, values in zip(found, maps, strict=True):
        assert labels.dtype == np.uint8
        assert labels.shape == values.shape[:2]
        assert set(np.unique(labels)) <= {*range(encoding.num_classes), VOID}
    return found


def refusal(maps, num_classes=0, **options):
    with pytest.raises(InputError) as caught:
        encoding_of(maps, num_classes, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outcome(surveys, **options):
    """The encoding, or the message of the refusal."""
    try:
        return recognise(surveys, **options)
    except InputError as error:
        return str(error)


def disks(seed, number=5, side=64):
    """Ids of disks, the later ones over the earlier ones."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    ids = np.zeros((side, side), np.uint16)
    for i in range(number):
        cy, cx, r = *rng.uniform(8, side - 8, 2), rng.uniform(5, 9)
        ids[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = i + 1
    return ids


IDS = [disks(i) for i in range(8)]
MASKS = [(ids > 0).astype(np.uint8) for ids in IDS]
NOISE = [np.random.default_rng(i).integers(0, 4, (16, 16)) for i in range(4)]


# Values that mean one thing.


@pytest.mark.parametrize(
    "stored",
    [np.uint8, np.uint16, np.int8, np.int32, np.int64, np.uint64, bool, np.float32],
)
def test_0_and_1_are_class_ids_in_every_dtype(stored):
    maps = [mask.astype(stored) for mask in MASKS]
    for labels, mask in zip(decoded(maps), MASKS, strict=True):
        np.testing.assert_array_equal(labels, mask)
    assert encoding_of(maps).kind == "ids"


@pytest.mark.parametrize("told", [0, 2])
@pytest.mark.parametrize("white", [np.uint8(255), np.uint16(65535), 255.0])
def test_0_and_255_are_masks(white, told):
    maps = [mask * white for mask in MASKS]
    for labels, mask in zip(decoded(maps, told), MASKS, strict=True):
        np.testing.assert_array_equal(labels, mask)
    assert f"{white:g} is class 1" in encoding_of(maps, told).describe()


def test_masks_of_8_and_16_bit_are_read_together():
    maps = [m * (np.uint8(255) if i % 2 else np.uint16(65535))
            for i, m in enumerate(MASKS)]  # fmt: skip
    for labels, mask in zip(decoded(maps), MASKS, strict=True):
        np.testing.assert_array_equal(labels, mask)


@pytest.mark.parametrize("told", [0, 4, 7])
def test_more_class_ids_and_void_are_read_as_stored(told):
    maps = [np.where(np.eye(16) > 0, VOID, ids) for ids in NOISE]
    for labels, values in zip(decoded(maps, told), maps, strict=True):
        np.testing.assert_array_equal(labels, values)
    encoding = encoding_of(maps, told)
    assert encoding.num_classes == (told or 4)
    assert "255 is void in 4 of 4 label maps (6.25 % of the pixels)" in encoding.text


def test_void_beside_two_classes_is_said():
    maps = [np.where(ids == 1, VOID, ids > 0) for ids in IDS]
    for labels, values in zip(decoded(maps), maps, strict=True):
        np.testing.assert_array_equal(labels, values)
    assert "255 is void in 8 of 8" in encoding_of(maps).describe()


def test_points_are_labels_with_much_void():
    rng = np.random.default_rng(0)
    maps = [np.where(rng.random((64, 64)) < 0.004, mask, VOID) for mask in MASKS]
    for labels, values in zip(decoded(maps), maps, strict=True):
        np.testing.assert_array_equal(labels, values)
    assert "255 is void in 8 of 8" in encoding_of(maps).describe()


@pytest.mark.parametrize("others", [[0], [1], [0, 1], [0, 255], [255]])
def test_a_map_of_zeros_fits_every_encoding(others):
    zero = np.zeros((4, 4), np.uint8)
    other = np.resize(np.uint8(others), (4, 4))
    assert not decoded([zero, other])[0].any()
    assert not decoded([zero])[0].any()
    assert encoding_of([zero, other]).num_classes == 2


def test_a_map_of_255_is_foreground_beside_masks_and_void_beside_many_classes():
    white = np.full((16, 16), VOID, np.uint8)
    masks = [white, np.uint8(NOISE[0] > 1) * white]
    assert (decoded(masks)[0] == 1).all()
    assert (decoded([white, white * 0])[0] == 1).all()
    assert "no label map holds both" in encoding_of([white, white * 0]).describe()
    assert (decoded([white, *NOISE])[0] == VOID).all()
    assert "mixed" in refusal([white, MASKS[0]])


def test_told_classes_are_believed():
    for labels, values in zip(decoded(IDS, 6), IDS, strict=True):
        np.testing.assert_array_equal(labels, values)
    sparse = [np.where(ids > 3, 200, ids) for ids in IDS]
    np.testing.assert_array_equal(decoded(sparse, 255)[3], sparse[3])


def test_an_empty_folder_has_two_classes():
    assert recognise([]).num_classes == 2
    assert recognise([], num_classes=5).num_classes == 5


# Values that could mean two things are refused, with the cure.

LEVELS = [np.where(ids == 1, 128, np.where(ids > 0, 255, 0)) for ids in IDS]
SOFT = [ndimage.gaussian_filter(255.0 * mask, 1).astype(np.uint8) for mask in MASKS]
TABLE = np.uint8([[0, 0, 0], [220, 20, 60]])
MIXED = [m * 255 if i % 2 else m for i, m in enumerate(MASKS)]
TRACED = [m * 255 for m in MASKS]
TRACED[3] = TRACED[3].copy()
TRACED[3][0, :3] = 1
REFUSED = {
    "grey levels": (LEVELS, {"label_threshold": 128}),
    "soft": (SOFT, {"label_threshold": 128}),
    "fractions": ([soft / 255 for soft in SOFT], {"label_threshold": 0.5}),
    "colours": ([TABLE[mask] for mask in MASKS],
                {"label_colors": "#000000=0,#dc143c=1"}),
    "mixed": (MIXED, {"label_values": "255=1"}),
    "instances": (IDS, {"instances": "union"}),
    "many instances": ([disks(i, 40 + i) for i in range(4)], {"instances": "union"}),
    "instances of 8 bit": ([disks(i, 3 + i).astype(np.uint8) for i in range(4)],
                           {"instances": "union"}),
    "trace": (TRACED, {"label_values": "255=1"}),
    "one level": ([m * 7 for m in MASKS], {"label_values": "7=1"}),
    "negative": ([m.astype(int) - 1 for m in MASKS], {"label_values": "-1=255"}),
    "from 1": ([1 + noise for noise in NOISE],
               {"label_values": "1=0,2=1,3=2,4=3"}),
}  # fmt: skip


@pytest.mark.parametrize("told", [0, 2])
@pytest.mark.parametrize("name", REFUSED)
def test_ambiguous_maps_are_refused_with_an_option_that_settles_it(name, told):
    maps, cure = REFUSED[name]
    message = refusal(maps, told)
    assert message.startswith("/d/")
    assert "in " in message
    assert "label maps (" in message
    for option, value in cure.items():
        assert f"`{option}={value}`".replace("'", "") in message.replace("'", "")
    decoded(maps, **cure)  # no other stop follows


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_do_not_depend_on_the_order_of_files(name):
    maps, _ = REFUSED[name]
    surveys = [(f"/d/{i}.png", survey(values)) for i, values in enumerate(maps)]
    orders = [surveys, surveys[::-1], surveys[1::2] + surveys[::2]]
    said = []
    for order in orders:
        with pytest.raises(InputError) as caught:
            recognise(order)
        said.append(str(caught.value))
    assert len(set(said)) == 1


def test_messages_have_values_pixels_and_names():
    pixels = [sum((m == v).sum() for m in LEVELS) for v in (0, 128, 255)]
    message = refusal(LEVELS)
    assert message.startswith(
        f"/d/0.png: 0 ({pixels[0]} pixels), 128 ({pixels[1]} pixels), 255"
        f" ({pixels[2]} pixels) in 8 of 8 label maps (0.png, 1.png, 2.png, ...)"
    )
    assert "`label_values='128=1,255=2'`" in message
    assert "the usual mark of pixels to ignore" in refusal(REFUSED["negative"][0])


def test_class_ids_beyond_those_told_name_both_cures():
    maps = [np.random.default_rng(i).integers(0, 11, (9, 9)) for i in range(3)]
    message = refusal(maps, 2)
    assert "`num_classes=11`" in message
    assert "`label_values='1-10=1'`" in message
    with pytest.raises(InputError, match="`--num_classes=11`"), prefixed("--"):
        encoding_of(maps, 2)
    assert encoding_of(maps, 11).num_classes == 11


@pytest.mark.parametrize("told", [0, 2, 3])
def test_every_cure_of_instance_maps_is_one(told):
    message = refusal(IDS, told).partition("; expected ")[2]
    offered = re.findall(r"`instances=(\w+)`(?: with `num_classes=(\d)`)?", message)
    assert [choice for choice, _ in offered] == ["union", "border"]
    for choice, classes in offered:
        decoded(IDS, int(classes or told), instances=choice)


def test_masks_are_refused_where_three_classes_are_told():
    message = refusal([m * 255 for m in MASKS], 3)
    assert "`num_classes=2`" in message
    assert "`label_values='255=255'`" in message
    decoded([m * 255 for m in MASKS], 3, label_values="255=255")


@pytest.mark.parametrize("told", [2, 3])
@pytest.mark.parametrize("name", [*REFUSED, "ids", "masks"])
def test_classes_that_are_fixed_are_not_offered_to_be_changed(name, told):
    others = {"ids": [noise * 2 for noise in NOISE], "masks": [m * 255 for m in MASKS]}
    maps = others[name] if name in others else REFUSED[name][0]
    surveys = [(f"{i}", survey(values)) for i, values in enumerate(maps)]
    said = outcome(surveys, num_classes=told, fixed_classes=True)
    assert isinstance(said, str) or (name, told) == ("masks", 2)
    if isinstance(said, str):
        assert "`num_classes" not in said
        assert "`label_" in said or "`instances=" in said
    options = FileOptions(label_values="1=4")
    message = f"^label_values: gives class ids up to 4, .* below {told},"
    with pytest.raises(InputError, match=message):
        recognise([], num_classes=told, fixed_classes=True, options=options)


def test_objects_of_equal_number_in_8_bit_are_at_least_mentioned():
    maps = [ids.astype(np.uint8) for ids in IDS if len(np.unique(ids)) == 6]
    assert "`instances=union`" in encoding_of(maps).describe()


def test_16_bit_void_is_named():
    maps = [np.where(np.eye(16) > 0, 65535, ids).astype(np.uint16) for ids in NOISE]
    assert "`label_values='65535=255'`" in refusal(maps)
    found = decoded(maps, label_values="65535=255")[0]
    np.testing.assert_array_equal(found, np.where(np.eye(16) > 0, VOID, NOISE[0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_whatever_is_chosen(bad):
    values = np.where(np.eye(4) > 0, bad, 0.0)
    assert "NaN or infinite values (4 pixels)" in refusal([values])
    assert "NaN or infinite" in refusal([values], label_threshold=0.5)


# Options.


def test_a_threshold_that_no_value_reaches_is_named():
    zeros = np.zeros((4, 4), np.uint8)
    ones = np.eye(4, dtype=np.uint8)
    message = refusal([zeros, ones], label_threshold=128)
    assert message.startswith("label_threshold: got 128, but no value in 1 of 2 label")
    assert "`label_threshold=0.5`" in message
    for maps in ([zeros], [zeros, 100 * ones, 255 * ones]):
        decoded(maps, label_threshold=128)


def test_a_threshold_above_maps_of_0_and_1_beside_others_is_named():
    ids = np.array([[0, 1]], np.uint8)
    message = refusal([ids, 255 * ids], label_threshold=128)
    assert "0 and 1 in 1 of 2 label maps" in message
    assert "`label_threshold=128`" in message


@pytest.mark.parametrize("threshold", [0.5, 128, 1])
def test_a_threshold_makes_values_from_it_on_class_1(threshold):
    scale = 1 if threshold < 1 else 255
    maps = [ndimage.gaussian_filter(scale * m.astype(float), 1) for m in MASKS]
    for labels, values in zip(
        decoded(maps, label_threshold=threshold), maps, strict=True
    ):
        np.testing.assert_array_equal(labels, values >= threshold)


def test_listed_values_ranges_and_a_rest_have_their_class():
    values = np.array([[-5, -1, 0, 1, 300, 65535, 70000, 7]])
    for text, expected in {
        "1-65535=1,*=255,0=0": [255, 255, 0, 1, 1, 1, 255, 1],
        "-5--1=255,1-70000=2": [255, 255, 0, 2, 2, 2, 2, 2],
        "*=1,-1=0": [1, 0, 1, 1, 1, 1, 1, 1],
    }.items():
        found = decoded([values], label_values=text)[0]
        np.testing.assert_array_equal(found, [expected])


def test_values_that_are_not_listed_are_class_ids_or_refused():
    maps = [noise * 1 for noise in NOISE]
    found = decoded(maps, label_values="3=1,2=2")[0]
    np.testing.assert_array_equal(found, np.array([0, 1, 2, 1])[NOISE[0]])
    message = refusal(maps, label_values="1=1,3=0")
    assert "2 (" in message
    assert "`label_values='1=1,3=0,2=255'`" in message
    listed = decoded([np.where(n == 3, -1, n) for n in maps], label_values="-1=255")
    np.testing.assert_array_equal(listed[0], np.where(NOISE[0] == 3, VOID, NOISE[0]))
    assert encoding_of(maps, label_values={3: VOID}).num_classes == 3


def test_listed_class_ids_beyond_those_told_are_refused():
    message = refusal(MASKS, 2, label_values="1=4")
    assert message.startswith("num_classes: got 2, expected `num_classes=5`")
    assert encoding_of(MASKS, 9, label_values="1=4").num_classes == 9


def test_colours_have_their_class_and_others_are_refused_in_hex():
    table = np.uint8([[0, 0, 0], [220, 20, 60], [10, 10, 10], [1, 2, 3]])
    maps = [table[noise] for noise in NOISE] + [np.zeros((4, 4), np.uint8)]
    given = "#000000=0,220:20:60=1,10:10:10=255,#010203=2"
    found = decoded(maps, label_colors=given)
    np.testing.assert_array_equal(found[1], np.array([0, 1, VOID, 2])[NOISE[1]])
    assert not found[-1].any()
    message = refusal(maps, label_colors="#000000=0,220:20:60=1,10:10:10=255")
    pixels = sum((noise == 3).sum() for noise in NOISE)
    assert f"#010203 ({pixels} pixels)" in message
    deep = [table[noise].astype(np.uint16) * 257 for noise in NOISE]
    np.testing.assert_array_equal(decoded(deep, label_colors=given)[1], found[1])
    assert "colours of 8 bit" in refusal([deep[0] + 1], label_colors=given)


@pytest.mark.parametrize("ending", ["png", "tif", "gif"])
def test_a_palette_is_read_by_index_and_by_colour_if_colours_are_given(
    tmp_path, ending
):
    ids = NOISE[0].astype(np.uint8)
    table = np.uint8([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]])
    image = Image.fromarray(ids)
    image.putpalette(table.ravel().tolist())
    path = tmp_path / f"map.{ending}"
    image.save(path)
    read = image_files.read_label_values
    stored = table[ids] if ending == "gif" else ids
    np.testing.assert_array_equal(read(path), stored)
    given = FileOptions(label_colors="#800000=2,#000000=0,#008000=1,#808000=255")
    values = read(path, options=given)
    encoding = recognise([("map", survey(values, options=given))], options=given)
    expected = np.array([0, 2, 1, VOID])[ids]
    np.testing.assert_array_equal(decode(values, encoding, where="map"), expected)


def test_instances_are_one_class_with_borders_on_request():
    ids = np.array([[1, 1, 2, 2, 0, 3]], np.uint16).repeat(4, 0)
    ids[3] = 900
    np.testing.assert_array_equal(
        decoded([ids], instances="union")[0], (ids > 0).astype(int)
    )
    for choice, mark in (("border", 2), ("void", VOID)):
        found = decoded([ids], instances=choice)[0]
        assert set(np.unique(found)) == {0, 1, mark}
        np.testing.assert_array_equal(found == 0, ids == 0)
        # Objects no longer touch: pieces of class 1 hold one id each.
        pieces, count = ndimage.label(found == 1, np.ones((3, 3)))
        assert count == 4
        for piece in range(1, count + 1):
            assert len(np.unique(ids[pieces == piece])) == 1
    assert encoding_of([ids], instances="border").num_classes == 3
    assert "`num_classes=3`" in refusal([ids], 2, instances="border")


def test_instance_ids_are_kept_and_void_is_no_object():
    ids = IDS[0].astype(np.int64)
    ids[0] = 2**40
    ids[-1] = -1
    encoding = encoding_of([ids], instances="union", label_values="-1=255")
    found = instance_ids(ids, encoding)
    assert found.dtype == np.int32
    assert (found[-1] == -1).all()
    np.testing.assert_array_equal(found == 0, ids == 0)
    pairs = set(zip(found.ravel().tolist(), ids.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(found)) == len(np.unique(ids))
    np.testing.assert_array_equal(decode(ids, encoding, where="map") == VOID, ids == -1)
    np.testing.assert_array_equal(
        instance_ids(IDS[1], encoding_of(IDS, instances="void")), IDS[1]
    )
    assert instance_ids(MASKS[0], encoding_of(MASKS)) is None


@pytest.mark.parametrize("mark", [255, 65535])
def test_a_lone_high_instance_id_may_be_void_and_is_asked_for(mark):
    maps = [ids.copy() for ids in IDS]
    maps[2][:9] = mark
    message = refusal(maps, instances="union")
    assert f"{mark} ({maps[2].shape[1] * 9} pixels) in 1 of 8" in message
    void = decoded(maps, instances="union", label_values=f"{mark}=255")[2]
    np.testing.assert_array_equal(void == VOID, maps[2] == mark)
    objects = decoded(maps, instances="union", label_values=f"{mark}=1")[2]
    np.testing.assert_array_equal(objects, maps[2] > 0)


# Properties.


def shape_and_ids(classes):
    return st.integers(1, 9).flatmap(
        lambda side: st.lists(
            st.lists(st.integers(0, classes - 1), min_size=side, max_size=side),
            min_size=1,
            max_size=4,
        )
    )


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    classes=st.integers(2, 9),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16, np.int64, np.float64]),
)
def test_what_is_stored_by_a_table_is_read_back(data, classes, dtype):
    ids = np.array(data.draw(shape_and_ids(classes)))
    stored = np.array(
        data.draw(
            st.lists(
                st.integers(0, 127), min_size=classes, max_size=classes, unique=True
            )
        )
    )
    values = stored[ids].astype(dtype)
    table = {int(value): class_id for class_id, value in enumerate(stored)}
    np.testing.assert_array_equal(decoded([values], label_values=table)[0], ids)
    colors = {(value, 255 - value, 3): i for value, i in table.items()}
    painted = np.uint8(list(colors))[ids]
    np.testing.assert_array_equal(decoded([painted], label_colors=colors)[0], ids)
    np.testing.assert_array_equal(
        decoded([ids.astype(dtype)], num_classes=classes)[0], ids
    )


@settings(max_examples=60, deadline=None)
@given(
    maps=st.lists(
        st.lists(st.sampled_from([0, 1, 2, 128, 255]), min_size=4, max_size=12),
        min_size=1,
        max_size=5,
    ),
    told=st.sampled_from([0, 2, 3]),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_files_changes_nothing(maps, told, order):
    surveys = [(f"{i}", survey(np.uint8([row]))) for i, row in enumerate(maps)]
    shuffled = order.sample(surveys, len(surveys))
    results = []
    for one in (surveys, shuffled):
        results.append(outcome(one, num_classes=told))
    assert results[0] == results[1]
    if not isinstance(results[0], str):
        for row in maps:
            found = decode(np.uint8([row]), results[0], where="map")
            masks = results[0].kind == "masks"
            expected = np.greater(row, 0) if masks else np.array(row)
            np.testing.assert_array_equal(found[0], expected)
    if not isinstance(results[0], str):
        assert results[0].num_classes in ({told} if told else {2, 3})
        used = set(itertools.chain.from_iterable(maps))
        assert 128 not in used  # a grey level is never a class
        with_255 = {0 in m or 1 in m or 2 in m for m in map(set, maps) if 255 in m}
        both = any(255 in m and {1, 2} & set(m) for m in maps)
        if results[0].kind == "ids" and with_255 == {True}:
            assert both  # 255 is void only where a map proves it


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.integers(-(2**40), 2**40) | st.integers(-300, 300), min_size=1, max_size=80
    )
)
def test_a_survey_counts_every_value(values):
    stored = np.array([values])
    found = survey(stored)
    own, counts = np.unique(stored, return_counts=True)
    assert found.counts == dict(zip(own.tolist(), counts.tolist(), strict=True))
    assert (found.lowest, found.highest) == (own[0], own[-1])
    assert found.distinct == own.size
    assert found.pixels == stored.size


def test_a_survey_is_bounded_and_travels_between_processes():
    many = np.arange(600 * 600, dtype=np.int32).reshape(600, 600)
    found = survey(many)
    assert found.distinct == 360_000
    assert len(pickle.dumps(found)) < 20_000
    assert pickle.loads(pickle.dumps(found)) == found
    encoding = encoding_of(MASKS)
    assert pickle.loads(pickle.dumps(encoding)) == encoding
    json.dumps(encoding)
    assert survey(np.random.default_rng(0).random((600, 600))).distinct > 512


def test_recognition_imports_no_jax():
    code = (
        "import sys, numpy as np; from metaseg.data import label_encoding as e;"
        "e.survey(np.arange(64).reshape(8, 8) // 8); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_value_that_the_encoding_lacks_is_refused_with_its_pixels():
    values = np.uint8([[0, 1, 9, 9]])
    with pytest.raises(InputError, match=r"^late\.png: got value 9 \(2 pixels\)"):
        decode(values, encoding_of(MASKS), where="late.png")
    encoding = encoding_of([TABLE[MASKS[0]]], label_colors="#000000=0,#dc143c=1")
    with pytest.raises(InputError, match=r"got colour #090909 \(2 pixels\)"):
        decode(np.uint8([[0, 9, 9]]), encoding, where="late.png")
    with pytest.raises(InputError, match=r"^late\.png: colours, expected class ids"):
        decode(TABLE[MASKS[0]], encoding_of(MASKS), where="late.png")


def test_few_maps_that_are_wrong_by_themselves_are_told_apart():
    maps = [*NOISE, NOISE[0] * 2 // 3, np.where(NOISE[0] == 3, -1, NOISE[0])]
    surveys = [(f"{i}", survey(values)) for i, values in enumerate(maps)]
    encoding, wrong = label_files.settle(surveys, options=FileOptions(), num_classes=0)
    assert list(wrong) == ["5"]
    assert "negative" in wrong["5"]
    assert encoding.num_classes == 4


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - {"trace"}))
def test_maps_that_are_ambiguous_together_are_not_told_apart(name):
    surveys = [(f"{i}", survey(values)) for i, values in enumerate(REFUSED[name][0])]
    with pytest.raises(InputError):
        label_files.settle(surveys, options=FileOptions(), num_classes=0)


@settings(max_examples=60, deadline=None)
@given(
    row=st.lists(
        st.sampled_from([-1, 0, 1, 2, 7, 255, 0.5, 2.0**40]), min_size=1, max_size=6
    ),
    kind=st.sampled_from(["ids", "threshold", "instances", "values"]),
)
def test_a_map_fits_an_encoding_that_decodes_it(row, kind):
    chosen = {
        "ids": {},
        "threshold": {"label_threshold": 1},
        "instances": {"instances": "union"},
        "values": {"label_values": "7-9=1"},
    }[kind]
    options = FileOptions(**chosen)
    encoding = encoding_of([np.array([[0, 1]])], **chosen)
    values = np.array([row])
    try:
        decode(values, encoding, where="map")
        right = True
    except InputError:
        right = False
    assert fits(survey(values, options=options), encoding) == right


# Texts and files.


def test_values_are_parsed():
    assert parse_values("1-65535=1,*=255,0=0") == ValueTable(
        ((0, 0, 0), (1, 65535, 1)), 255
    )
    assert parse_values(" -3 - -1 = 255 , 4=0").ranges == ((-3, -1, 255), (4, 4, 0))
    assert parse_values({5: 1, -1: 255}).ranges == ((-1, -1, 255), (5, 5, 1))
    assert parse_values(None) == ValueTable()
    assert parse_values(str(parse_values("-3--1=255,*=2"))).rest == 2


@pytest.mark.parametrize(
    "wrong",
    ["", "1", "1=", "=1", "1=1,", "1=256", "1=-1", "5-3=1", "1=1,1=1", "1-5=1,3=2",
     "*=1,*=1", "a=1", "1.5=1", "0x1=1", "1=1;2=2", "--1=1", "1=1=1", "1=9999999999",
     {}, {1: 256}, {"1": 1}, {1: True}, {1.0: 1}, [1], 7, "99999999999999999999=1"],
)  # fmt: skip
def test_wrong_values_are_refused_in_one_line(wrong):
    with pytest.raises(InputError, match=r"^label_values: got .*expected") as caught:
        parse_values(wrong)
    assert "\n" not in str(caught.value)


COLORS = {(0, 0, 0): 0, (220, 20, 60): 1, (1, 2, 3): 255}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "# colours\n0 0 0 0 background\n220 20 60 1 cell\n\n1 2 3 255\n"),
        ("b.txt", "#000000 0\n#DC143C 1 a cell\n#010203 255\n"),
        ("c.txt", "0,0,0,0\n220,20,60,1\n1,2,3,255"),
        ("d.csv", "name,r,g,b,id\nx,0,0,0,0\ny,220,20,60,1\nz,1,2,3,255\n"),
        ("e.csv", "id;color\n0;#000000\n1;#dc143c\n255;1:2:3\n"),
        ("f.json", '{"#000000": 0, "220,20,60": 1, "1:2:3": 255}'),
        ("g=1.txt", "\ufeff0 0 0 0\n220 20 60 1\n1 2 3 255\n"),
    ],
)
def test_colours_are_read_from_files(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert parse_colors(path) == parse_colors(str(path)) == COLORS


@pytest.mark.parametrize(
    "text",
    [
        "name,r,g,b\nx,0,0,0\ny,220,20,60\n",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncell:220,20,60::\n",
    ],
)
def test_lines_without_ids_count_from_0(tmp_path, text):
    path = tmp_path / "classes.csv"
    path.write_text(text)
    assert parse_colors(path) == {(0, 0, 0): 0, (220, 20, 60): 1}


def test_colours_are_read_from_text_and_mappings():
    assert parse_colors("#dc143c=1,0:0:0=0, 1:2:3 = 255") == COLORS
    assert parse_colors(COLORS) == COLORS
    assert parse_colors(None) == {}


@pytest.mark.parametrize(
    "wrong",
    ["#dc143c=1,#dc143c=1", "#dc143=1", "1:2=1", "1:2:300=1", "#dc143c=256", "red=1",
     "#dc143c=1,", "/nowhere/colours.txt", {}, {(1, 2): 1}, {(1, 2, 3): 256}, 7, [1]],
)  # fmt: skip
def test_wrong_colours_are_refused_in_one_line(wrong):
    with pytest.raises(InputError, match=r"^label_colors: .*expected") as caught:
        parse_colors(wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "hello world", "1 2 3", "1 2 3 x", '{"#dc143c": "x"}', '{"#dc143c": 1',
     '{"#dc143c": 1, "#dc143c": 2}', "r,g,b,id\n1,2\n", "1 2 3 4\n1 2 3 5\n"],
)  # fmt: skip
def test_a_wrong_file_of_colours_is_named(tmp_path, text):
    path = tmp_path / "colours.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"^label_colors: '.*colours.txt': ") as caught:
        parse_colors(path)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instances": "all"}, "instances: got 'all', expected one of"),
        ({"label_threshold": "x"}, "label_threshold: got 'x', expected a number"),
        ({"label_threshold": float("nan")}, "label_threshold: got nan"),
        ({"label_values": "x"}, "label_values: got 'x'"),
        ({"label_colors": "x"}, "label_colors: 'x': No such file"),
        ({"label_threshold": 1, "label_values": "1=1"}, "label_threshold: got `label"),
        ({"label_colors": COLORS, "instances": "void"}, "label_colors: got `inst"),
        ({"label_colors": COLORS, "from_alpha": True}, "from_alpha: got `label"),
        ({"label_values": "3=2", "instances": "void"}, "label_values: got '3=2'"),
        ({"label_values": "*=1", "instances": "void"}, r"label_values: got '\*=1'"),
    ],
)  # fmt: skip
def test_contradictory_options_are_refused_before_a_file_is_read(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        check(FileOptions(**options))
    with pytest.raises(InputError, match=f"^{message}"):
        recognise([], options=FileOptions(**options))


@pytest.mark.parametrize("wrong", [1, -1, 256])
def test_a_wrong_number_of_classes_is_refused(wrong):
    with pytest.raises(InputError, match=f"^num_classes: got {wrong}"):
        recognise([], num_classes=wrong)
