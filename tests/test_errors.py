import pytest

from metaseg.errors import InputError, prefixed


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("data.dir: got nothing", "config.data.dir: got nothing"),
        ("data: got nothing", "config.data: got nothing"),
        ("database: got nothing", "database: got nothing"),
        ("/data.dir/a.png: no such file", "/data.dir/a.png: no such file"),
    ],
)
def test_only_the_named_fields_and_those_below_them_get_a_prefix(message, expected):
    with pytest.raises(InputError) as caught, prefixed("config.", "data", "noise"):
        raise InputError(message)
    assert str(caught.value) == expected


def test_without_names_every_field_gets_the_prefix():
    with pytest.raises(InputError, match=r"^--seed: got -1$"), prefixed("--"):
        raise InputError("seed: got -1")
