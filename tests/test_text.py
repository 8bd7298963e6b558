"""Words of messages: counts, suggestions, and what can be pasted into a shell."""

import shlex
import sys

import pytest

from metaseg import text


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (1, "page", "1 page"),
        (0, "page", "0 pages"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (3, "city", "3 cities"),
        (3, "array", "3 arrays"),
        (2, "label map", "2 label maps"),
        (2, "box", "2 boxes"),
        (1.0, "pixel", "1 pixel"),
        (2.5, "pixel", "2.5 pixels"),
    ],
)
def test_a_noun_agrees_with_its_number(number, noun, expected):
    assert text.count_of(number, noun) == expected


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("experiments/main.py", ["python", "experiments/main.py"]),
        ("/opt/venv/bin/metaseg", ["metaseg"]),
        ("/opt/metaseg/__main__.py", ["python", "-m", "metaseg"]),
    ],
)
def test_the_command_of_a_process_can_be_pasted(program, expected, monkeypatch):
    flags = ["train", "--workdir=my runs/a'b"]
    monkeypatch.setattr(sys, "argv", [program, *flags])
    assert shlex.split(text.command_line()) == [*expected, *flags]
