"""Import boundaries: contracts of pyproject.toml, and what first lines say.

A module's docstring may say in one sentence what the module imports of the package:
"May import `labels` and `ntm`." or "Imports `errors` only.". In the `__init__` of a
package the sentence holds for all modules of the package. "Imports no jax" and "neither
jax nor flax" hold for everything that an import of the module loads.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def name_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted((ROOT / "metaseg").rglob("*.py"))}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def sentences(name: str) -> list[str]:
    """The sentences of a module's docstring, and the parts that semicolons make."""
    text = " ".join((ast.get_docstring(tree(MODULES[name])) or "").split())
    return re.split(r"(?<=[.;:]) ", text)


def imports(path: Path, package: str = "metaseg") -> set[str]:
    """The modules of a package that a file imports, those of type checking left out."""
    found = set()
    waiting: list[ast.AST] = [tree(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = str(node.module)
            found |= {
                full if (full := f"{base}.{alias.name}") in MODULES else base
                for alias in node.names
            }
        waiting += ast.iter_child_nodes(node)
    return {name for name in found if name.split(".")[0] == package}


def parents(name: str) -> Iterator[str]:
    """A module and the packages that it lies in, without `metaseg` itself."""
    while "." in name:
        yield name
        name = name.rpartition(".")[0]


def stated(name: str) -> set[str] | None:
    """The modules that the docstring of a module allows, if it has such a sentence."""
    said = [
        sentence
        for sentence in sentences(name)
        if re.match(r"(May import|[Ii]mports) ", sentence)
        and not re.match(r"[Ii]mports (no|neither) |May import everything", sentence)
    ]
    if not said:
        return None
    allowed = set()
    for word in re.findall(r"`(?:metaseg\.)?([\w.]+)`", " ".join(said)):
        here = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
        near, far = f"{here}.{word}", f"metaseg.{word}"
        allowed.add(near if near in MODULES else far)
    return allowed


def rule(name: str) -> tuple[str, set[str]] | None:
    """The statement that holds for a module: its own, or that of its package."""
    for place in parents(name):
        allowed = stated(place)
        if allowed is not None:
            return place, allowed
    return None


RULED = [name for name in MODULES if rule(name) is not None]


@pytest.mark.parametrize("name", RULED)
def test_a_module_imports_no_more_of_the_package_than_its_first_lines_say(name):
    found = rule(name)
    assert found is not None
    place, allowed = found
    assert allowed <= MODULES.keys(), f"{place} names a module that does not exist"
    if MODULES[place].name == "__init__.py":
        allowed = allowed | {place}  # the modules of a package see each other
    # These import nothing of the package.
    allowed = allowed | {"metaseg.errors", "metaseg.text", "metaseg.typing"}
    beyond = {
        imported
        for imported in imports(MODULES[name])
        if not any(imported == a or imported.startswith(f"{a}.") for a in allowed)
    }
    assert beyond == set(), f"{place} allows {sorted(allowed)}"


def test_most_modules_say_what_they_import():
    core = {"labels", "ntm", "density", "information", "losses", "metrics", "training"}
    assert {f"metaseg.{name}" for name in core} <= set(RULED)


@pytest.mark.parametrize(
    ("said", "absent"),
    [
        (r"[Ii]mports no jax", {"jax"}),
        (r"neither jax nor flax", {"jax", "flax"}),
        (r"no TensorFlow", {"tensorflow"}),
    ],
)
def test_modules_that_say_so_load_no(said, absent):
    names = [
        name
        for name in MODULES
        if re.search(said, " ".join(sentences(name))) and name != "metaseg.__main__"
    ]
    assert names
    code = "\n".join(f"import {name}" for name in names)
    code += f"\nimport sys; print(sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("script", sorted((ROOT / "experiments").glob("*.py")))
def test_an_entry_point_sees_runs_the_command_line_errors_and_host_only(script):
    allowed = ("metaseg.runs", "metaseg.cli", "metaseg.errors", "metaseg.host")
    beyond = {name for name in imports(script) if not name.startswith(allowed)}
    assert beyond == set()


def test_the_contracts_of_pyproject_are_kept():
    code = (
        "import sys; from importlinter import cli; "
        "sys.exit(cli.lint_imports(no_cache=True, no_logo=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
