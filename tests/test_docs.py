"""The documentation: its code runs, its commands and links name what exists.

A Markdown file's Python blocks run in one namespace, in order, in an empty folder. What
a block needs and the reader does not is in a comment before it:
`<!-- invisible-code-block: python`. A block that cannot run here has a comment
`<!-- skip: next "REASON" -->`. A block whose first line is a comment with a file name,
`# mylab.py`, becomes that file, which later blocks can import. A comment
`<!-- in tests: steps=500 -> steps=4 -->` replaces text in all blocks of the page, so
that they run in seconds.
"""

import doctest
import importlib
import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from metaseg import cli, noise, ntm
from metaseg.runs import config_files

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


@pytest.mark.parametrize(
    "page",
    [pytest.param(PAGES[0], marks=pytest.mark.slow), *PAGES[1:]],  # README trains twice
    ids=relative,
)
def test_the_python_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    copy = tmp_path / page.name
    copy.write_text(shortened(text(page)), encoding="utf-8")
    document = Document.parse(str(copy), PythonCodeBlockParser(), SkipParser())
    for example in document.examples():
        file = re.match(r"# (\w+\.py)\n", str(example.parsed))
        if file:
            (tmp_path / file[1]).write_text(example.parsed)
        else:
            example.evaluate()


def shortened(page: str) -> str:
    """A page with the replacements that its comments ask for."""
    for before, after in re.findall(r"<!-- in tests: (.+?) -> (.+?) -->", page):
        page = re.sub(r"<!-- in tests: .+? -->", "", page)
        assert before in page, before
        page = page.replace(before, after)
    return page


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


def test_the_code_of_each_noise_takes_and_gives_label_maps():
    codes = re.findall(r"^- Code: `(.+)`$", text(ROOT / "docs/noise.md"), re.MULTILINE)
    assert len(codes) == 24
    labels = jnp.zeros((2, 16, 16), jnp.uint8)
    for code in codes:
        call = eval(f"lambda key, labels: {code}", {"noise": noise, "ntm": ntm})
        noisy = jax.eval_shape(call, jax.random.key(0), labels)
        assert (noisy.shape, noisy.dtype) == (labels.shape, labels.dtype), code


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_and_pictures_of_a_page_exist(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", text(page))
    local = [t.partition("#")[0] for t in targets if not re.match(r"https?:|#", t)]
    assert [t for t in local if not (page.parent / t).exists()] == []


def test_tests_that_a_page_mentions_exist():
    tests = "".join(text(path) for path in (ROOT / "tests").rglob("test_*.py"))
    named = {n for page in PAGES for n in re.findall(r"::(test_\w+)", text(page))}
    assert named
    assert sorted(n for n in named if f"def {n}(" not in tests) == []


def test_the_layout_in_contributing_names_every_module():
    layout = text(ROOT / "CONTRIBUTING.md").partition("## Layout")[2]
    modules = [
        path.name for path in (ROOT / "metaseg").iterdir() if path.name[0] != "_"
    ]
    names = {"py.typed", "version.py", *layout.replace("/", " ").split()}
    assert sorted(set(modules) - names) == []


def test_every_page_is_linked_from_the_readme():
    readme = text(ROOT / "README.md")
    assert [p for p in map(relative, PAGES[1:]) if f"]({p})" not in readme] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_that_a_page_mentions_exist(page):
    named = re.findall(
        r"\b(?:benchmarks|configs|docs|experiments|launch|metaseg|tests)/[\w/.-]*\w",
        re.sub(r"\S*https?://\S*", "", text(page)),
    )
    assert sorted({n for n in named if not (ROOT / n).exists()}) == []


COMMAND = re.compile(
    r"(?:python (?:-m )?[\w.][\w./]*"
    r"|metaseg (?:train|igtt|predict|audit|prepare|noise)\b"
    r"|(?:^ *|(?<=[`=]))make )[^\n`|]*",
    re.MULTILINE,
)
SOURCES = [*PAGES, *sorted((ROOT / "configs").glob("*.py"))]
SOURCES += sorted((ROOT / "experiments").glob("*.py"))
SOURCES += sorted((ROOT / "metaseg" / "cli").glob("*.py"))


def commands(page: Path) -> list[list[str]]:
    """The words of each command that a page names, in blocks, tables or sentences."""
    whole = re.sub(r" *\\\n\s*", " ", text(page))
    for variable, value in re.findall(r"^ *(\w+)=(configs/\S+)$", whole, re.MULTILINE):
        whole = whole.replace(f"${variable}", value)
    found = []
    for match in COMMAND.finditer(whole):
        line = re.split(r" +#| && | \(|  +", match[0].strip())[0]
        found.append(re.findall(r"(?:\"[^\"]*\"|'[^']*'|[^\s'\"])+", line))
    return found


def test_commands_are_found_in_blocks_tables_and_sentences():
    found = [" ".join(words) for words in commands(ROOT / "README.md")]
    assert "make run" in found
    assert any(line.startswith("python experiments/predict.py") for line in found)


def is_flag(name: str, words: list[str]) -> bool:
    """Whether a command has a flag."""
    script = ROOT / words[1]
    command = script.stem.replace("main", "train")
    if command in cli.COMMANDS and "--" not in words:
        return name in importlib.import_module(f"metaseg.cli.{command}").FLAGS
    files = [script]
    if "--" in words:  # what follows is for a command that the script calls
        files += (ROOT / "metaseg" / "cli").glob("*.py")
    return any(re.search(rf'"(--)?{name}"', text(file)) for file in files)


def config_of(words: list[str]):
    """The config that a command names; the default one if it names none."""
    given = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    spec = given[0] if given else ""
    if not re.fullmatch(r"(configs/)?\w+(\.py)?(:[\w.,=]+)?", spec):
        spec = "igtt" if any("igtt" in word for word in words) else "default"
    return config_files.load(spec)


def fault(words: list[str]) -> str | None:
    """What is wrong with a command of the documentation."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", text(ROOT / "Makefile"), re.MULTILINE)
        wanted = next(word for word in words[1:] if "=" not in word)
        return None if wanted in targets else f"no target {wanted}"
    if words[1] == "-m":
        return None if importlib.util.find_spec(words[2]) else f"no module {words[2]}"
    if words[0] == "python" and not (ROOT / words[1]).is_file():
        return f"no file {words[1]}"
    for word in words[2:]:
        name = word.removeprefix("--").partition("=")[0]
        if not word.startswith("--") or not name or name.startswith("config."):
            continue
        if not is_flag(name, words):
            return f"no flag --{name}"
    return fault_of_config(words)


def fault_of_config(words: list[str]) -> str | None:
    config = config_of(words)
    for word in words:
        if word.startswith("--config."):
            place = config
            for part in word.partition("=")[0].split(".")[1:]:
                if part not in place:
                    return f"no field {word}"
                place = place[part]
    return None


@pytest.mark.parametrize("page", SOURCES, ids=relative)
def test_commands_of_a_page_name_what_exists(page):
    faults = {" ".join(words): fault(words) for words in commands(page)}
    assert {line: said for line, said in faults.items() if said} == {}
