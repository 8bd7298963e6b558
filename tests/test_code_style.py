"""The rules of the house that ruff and mypy do not check, on the package's source."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "metaseg").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef
LONGEST = 60  # lines of a function, about a screen


class Public(NamedTuple):
    """A function or class that its module lists in `__all__`."""

    where: str
    node: ast.AST


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def exported(tree: ast.Module) -> set[str]:
    """What a module lists in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
                assert node.value is not None
                return set(ast.literal_eval(node.value))
    return set()


def public(kind: type | tuple[type, ...]) -> Iterator[Public]:
    """What the package's modules define and list in `__all__`."""
    for path in MODULES:
        tree = parse(path)
        listed = exported(tree)
        for node in tree.body:
            if isinstance(node, kind) and node.name in listed:
                yield Public(f"{module_name(path)}.{node.name}", node)


def sections(docstring: str) -> dict[str, list[str]]:
    """The lines of each section of a docstring, by the section's title."""
    found: dict[str, list[str]] = {}
    title = None
    for line in docstring.splitlines():
        if re.fullmatch(r"[A-Z][A-Za-z]+:", line):
            title = line[:-1]
            found[title] = []
        elif title and line and not line.startswith(" "):
            title = None
        elif title:
            found[title].append(line)
    return found


def described(lines: list[str]) -> set[str]:
    """The names that an Args section describes: `  a, b: what they are`."""
    names: set[str] = set()
    for line in lines:
        match = re.match(r"  (\*{0,2}\w+(?:, \*{0,2}\w+)*): ", line + " ")
        if match:
            names.update(name.strip("* ") for name in match[1].split(","))
    return names


def parameters(node: Function) -> list[str]:
    arguments = node.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    listed += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
    return [argument.arg for argument in listed]


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes whose errors leave a function; not those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(child, ast.Try) and any(map(catches, child.handlers)):
            continue
        yield child
        yield from own_nodes(child)


def catches(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches input errors and raises none itself."""
    caught = handler.type is not None and "InputError" in ast.unparse(handler.type)
    return caught and not any(isinstance(n, ast.Raise) for n in ast.walk(handler))


def gives_something(node: Function) -> bool:
    """Whether a function returns or yields a value."""
    if isinstance(node.returns, ast.Constant) and node.returns.value is None:
        return False
    named = ast.unparse(node.returns) if node.returns else ""
    return named not in {"NoReturn", "Never"}


def raises_input_errors(node: Function) -> bool:
    return any(
        isinstance(part, ast.Raise)
        and isinstance(part.exc, ast.Call)
        and ast.unparse(part.exc.func).endswith("InputError")
        for part in own_nodes(node)
    )


def faults_of_function(node: Function) -> list[str]:
    """What a public function's docstring lacks."""
    docstring = ast.get_docstring(node)
    if not docstring:
        return ["no docstring"]
    parts = sections(docstring)
    faults = []
    missing = [n for n in parameters(node) if n not in described(parts.get("Args", []))]
    if missing:
        faults.append(f"Args lacks {', '.join(missing)}")
    if (
        parameters(node)
        and not docstring.startswith(("Returns ", "Yields "))
        and gives_something(node)
        and "contextmanager" not in " ".join(map(ast.unparse, node.decorator_list))
        and not {"Returns", "Yields"} & parts.keys()
    ):
        faults.append("no Returns")
    if raises_input_errors(node) and "Raises" not in parts:
        faults.append("no Raises")
    for title, lines in parts.items():
        first = next((line for line in lines if line), "")
        if title in {"Args", "Returns", "Yields", "Raises", "Attributes"}:
            indent = len(first) - len(first.lstrip())
            if indent != 2:
                faults.append(f"{title} is indented by {indent} spaces, not by 2")
    return faults


def fields(node: ast.ClassDef) -> list[str]:
    """The fields of a named tuple, a dataclass or a struct."""
    bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
    decorators = " ".join(ast.unparse(part) for part in node.decorator_list)
    if not ({"NamedTuple", "PyTreeNode"} & bases or "dataclass" in decorators):
        return []
    return [
        part.target.id
        for part in node.body
        if isinstance(part, ast.AnnAssign)
        and isinstance(part.target, ast.Name)
        and not part.target.id.startswith("_")
        and "ClassVar" not in ast.unparse(part.annotation)
    ]


def faults_of_class(node: ast.ClassDef) -> list[str]:
    """What a public class's docstring lacks."""
    docstring = ast.get_docstring(node)
    if not docstring:
        return ["no docstring"]
    listed = described(sections(docstring).get("Attributes", []))
    missing = [name for name in fields(node) if name not in listed]
    return [f"Attributes lacks {', '.join(missing)}"] if missing else []


def docstring_faults() -> dict[str, list[str]]:
    """Faults of every public function and class, by its name."""
    found = {}
    for where, node in public((ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        check = (
            faults_of_class if isinstance(node, ast.ClassDef) else faults_of_function
        )
        if faults := check(node):
            found[where] = faults
    return found


def test_public_docstrings_name_every_argument_the_result_and_the_errors():
    assert docstring_faults() == {}


def test_no_two_classes_of_the_package_share_a_name():
    homes = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module_name(path))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def prefixed_messages(tree: ast.Module) -> list[str]:
    """Texts of raised errors that name a config field or a flag."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            for part in ast.walk(node.exc):
                if (
                    isinstance(part, ast.Constant)
                    and isinstance(part.value, str)
                    and re.search(r"(^|[\s(,])(config\.(?!json)|--[a-z])", part.value)
                ):
                    found.append(f"line {part.lineno}: {part.value}")
    return found


def test_library_errors_name_arguments_not_config_fields_or_flags():
    found = {}
    for path in MODULES:
        name = module_name(path)
        texts = prefixed_messages(parse(path))
        if texts and not name.startswith(("metaseg.runs", "metaseg.cli")):
            found[name] = texts
    assert found == {}


def lengths() -> dict[str, int]:
    """Lines of every function, without its docstring."""
    found = {}
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, Function):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if ast.get_docstring(node):
                    first = node.body[0]
                    assert first.end_lineno is not None
                    lines -= first.end_lineno - first.lineno + 1
                found[f"{module_name(path)}.{node.name}"] = lines
    return found


def test_functions_fit_on_a_screen():
    too_long = {name: n for name, n in lengths().items() if n > LONGEST}
    too_long.pop("metaseg.runs.defaults.get_config")  # a list: one line a field
    assert too_long == {}
