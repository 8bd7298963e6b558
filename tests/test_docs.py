"""The documentation: its code runs, its commands and links name what exists.

A Markdown file's Python blocks run in one namespace, in order, in an empty folder. What
a block needs and the reader does not is in a comment before it:
`<!-- invisible-code-block: python`. A block that cannot run here has a comment
`<!-- skip: next "REASON" -->`.
"""

import doctest
import importlib
import importlib.util
import re
from pathlib import Path

import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [page for page in [ROOT / "CONTRIBUTING.md"] if page.exists()]
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "metaseg").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_the_python_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = Document.parse(str(page), PythonCodeBlockParser(), SkipParser())
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_docstring_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def generator(name: str):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_noises_is_what_its_script_writes():
    assert text(ROOT / "docs" / "noise.md") == generator("noise_pages").text()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_and_pictures_of_a_page_exist(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", text(page))
    local = [t.partition("#")[0] for t in targets if not re.match(r"https?:|#", t)]
    assert [t for t in local if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_that_a_page_mentions_exist(page):
    named = re.findall(
        r"\b(?:benchmarks|configs|docs|experiments|launch|metaseg|tests)/[\w/.-]*\w",
        re.sub(r"\S*https?://\S*", "", text(page)),
    )
    assert sorted({n for n in named if not (ROOT / n).exists()}) == []
