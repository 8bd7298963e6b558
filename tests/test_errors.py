import pytest

from metaseg.errors import InputError, prefixed, with_prefixes


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


def test_options_of_a_printed_line_get_the_prefixes_of_all_blocks():
    with prefixed("--", "config"), prefixed("config.", "page"):
        assert with_prefixes("3 pages; try `page=0`") == (
            "3 pages; try `--config.page=0`"
        )
    assert with_prefixes("3 pages; try `page=0`") == "3 pages; try `page=0`"


def test_without_names_every_field_gets_the_prefix():
    with pytest.raises(InputError, match=r"^--seed: got -1$"), prefixed("--"):
        raise InputError("seed: got -1")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("a.png: grey; expected `data.threshold=128`", "`config.data.threshold=128`"),
        ("data: got 1, expected `data.values='*=255'`", "`config.data.values='*=255'`"),
        ("a.png: expected it at `metaseg igtt`", "`metaseg igtt`"),
        ("a.png: expected `channels`", "`channels`"),
    ],
)
def test_an_option_in_backquotes_gets_the_prefix_of_its_field(message, expected):
    with pytest.raises(InputError) as caught, prefixed("config.", "data", "noise"):
        raise InputError(message)
    assert str(caught.value).endswith(expected)
