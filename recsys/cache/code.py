"""Which code an entry depends on: the modules that its component and its step can run, and the libraries that these import.

Import statements are read from the source wherever they stand, in functions too, and followed from module to module; nothing is
imported for it. A module whose own functions may run counts by its text. A package such as `recsys.retrieval`, whose
`__init__` only imports, is a table of names: of its modules count those that define the names asked of it, so that one
retriever does not depend on the text of all others. What it imports besides counts only where the import itself has an effect.
Modules of the user's project are followed like those of this package; what is installed counts by its version.

Out of sight are modules whose names are put together at run time; a component that imports such a module should name its file
in `Component.files`.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Literal, NamedTuple

from recsys.component import Component

ALL = "*"
"""Asked of a module: everything that it defines or imports."""
NOTHING = ""
"""Asked of a module that is merely imported on the way to another."""

Home = Literal["project", "library", "python"]
STANDARD = {Path(os.__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))}
"""Folders of the standard library."""


@dataclass(frozen=True)
class Code:
    """The code behind an entry."""

    modules: dict[str, str]
    """Hash of the text of each module."""
    libraries: dict[str, str]
    """Version of each distribution, and of Python; empty for one that is imported and not installed."""


class _Import(NamedTuple):
    module: str
    name: str
    """What is asked of it."""
    bound: str
    """The name by which the importing module knows it."""


class _Text(NamedTuple):
    """A source file as it was read."""

    loaded: object
    """What tells one loading of the module from the next; `None` when it is not loaded."""
    stat: tuple[int, int]
    hash: str
    imports: tuple[_Import, ...]
    table: bool
    """Whether it only imports and names constants."""
    acts: bool
    """Whether importing it does more than define names."""


def code_of(component: Component, *functions: Callable[..., Any]) -> Code | None:
    """The code that `component`, all components in its settings and `functions` can run; `None` where it has no source file."""
    roots = {type(part).__module__ for part in component.components()} | {function.__module__ for function in functions}
    if any(_spec(root) is None for root in roots):
        return None
    modules: dict[str, str] = {}
    tops: dict[str, Home] = {}
    libraries = set()
    asked, seen = [(root, ALL) for root in sorted(roots)], set()
    while asked:
        module, name = question = asked.pop()
        if question in seen:
            continue
        seen.add(question)
        top = module.partition(".")[0]
        home = tops.get(top) or tops.setdefault(top, _home(top))
        if home == "library" and name != NOTHING:
            libraries.add(top)
        elif home == "project" and (spec := _spec(module)):
            asked += [(parent, NOTHING) for parent in _parents(module)]
            if submodule := _submodule(spec, name):
                asked.append((submodule, ALL))
            try:
                text = _read(spec)
            except OSError:  # such as in an archive
                return None
            counts, further = _answer(text, name, bool(submodule))
            asked += further
            if counts and text:
                modules[module] = text.hash
    versions = {found: version for top in libraries for found, version in _versions(top).items()}
    return Code(modules, {**versions, "python": platform.python_version()})


def _answer(text: _Text | None, name: str, is_submodule: bool) -> tuple[bool, list[tuple[str, str]]]:
    """Whether the text itself counts when `name` is asked of it, and what is asked of other modules therefore."""
    if text is None:
        return False, []
    everything = [(each.module, each.name) for each in text.imports]
    merely = [(each.module, NOTHING) for each in text.imports]
    if name == NOTHING:
        return (True, everything) if text.acts else (False, merely)
    if not text.table or name == ALL:
        return True, everything
    named = [(each.module, each.name) for each in text.imports if each.bound == name]
    if named or is_submodule:
        return False, merely + named
    return True, everything


def _parents(module: str) -> list[str]:
    """The packages that Python imports before `module`."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _submodule(spec: ModuleSpec, name: str) -> str | None:
    """The module of the package that is called `name`."""
    if name in (ALL, NOTHING) or not spec.submodule_search_locations:
        return None
    path = f"{spec.name}.{name}"
    return path if _spec(path) else None


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is, without importing it or a package above it."""
    loaded = sys.modules.get(module)
    if spec := getattr(loaded, "__spec__", None):
        return spec
    if file := getattr(loaded, "__file__", None):  # a script
        return importlib.util.spec_from_file_location(module, file)
    package = module.rpartition(".")[0]
    try:
        if not package:
            return importlib.util.find_spec(module)
        above = _spec(package)
    except (ImportError, ValueError):
        return None
    if above is None or above.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(module, list(above.submodule_search_locations))


def _home(top: str) -> Home:
    """What a top-level module belongs to."""
    if top == "recsys":
        return "project"
    spec = _spec(top)
    if spec is None:
        return "library"
    places = [spec.origin] if spec.has_location else spec.submodule_search_locations
    if not places:
        return "python"
    place = Path(next(iter(places)) or "")
    if not {"site-packages", "dist-packages"}.isdisjoint(place.parts):
        return "library" if top in _distributions() else "project"
    return "project" if STANDARD.isdisjoint(place.parents) else "python"


@cache
def _versions(top: str) -> dict[str, str]:
    """Versions of the distributions that a top-level module comes from."""
    return {found.name: found.version for found in _distributions().get(top, ())} or {top: ""}


@cache
def _distributions() -> dict[str, list[importlib.metadata.Distribution]]:
    """As `importlib.metadata.packages_distributions`, in a twentieth of the time."""
    found: dict[str, list[importlib.metadata.Distribution]] = {}
    for distribution in importlib.metadata.distributions():
        tops = set((distribution.read_text("top_level.txt") or "").split())
        if not tops:
            record = distribution.read_text("RECORD") or ""
            tops = {line.partition(",")[0].partition("/")[0].partition(".")[0] for line in record.splitlines()}
        for top in tops:
            found.setdefault(top, []).append(distribution)
    return found


_texts: dict[str, _Text] = {}


def _read(spec: ModuleSpec) -> _Text | None:
    """The source of a module: as it was loaded, or else as it is now. A folder without `__init__` has none."""
    if not spec.has_location or spec.origin is None:
        return None
    module = sys.modules.get(spec.name)
    loaded = getattr(module, "__spec__", None) or module
    status = os.stat(spec.origin)
    stat = (status.st_mtime_ns, status.st_size)
    known = _texts.get(spec.origin)
    if known is None or known.loaded is not loaded or (loaded is None and known.stat != stat):
        known = _texts[spec.origin] = _parse(Path(spec.origin).read_bytes(), spec.parent or "", loaded, stat)
    return known


def _parse(content: bytes, package: str, loaded: object, stat: tuple[int, int]) -> _Text:
    reader = _Reader(package)
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # not Python, such as a compiled module: it counts as it is
        tree = ast.Module([], [])
    reader.visit(tree)
    table = bool(tree.body) and all(_is_named(statement) for statement in tree.body)
    acts = any(_is_act(statement) for statement in tree.body)
    content_hash = hashlib.blake2b(content, digest_size=16).hexdigest()
    return _Text(loaded, stat, content_hash, tuple(dict.fromkeys(reader.found())), table, acts)


class _Reader(ast.NodeVisitor):
    """Collects what a module imports: by statements, and by attributes of packages that it imported (`package.module.name`)."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._imports: list[_Import] = []
        self._modules: dict[str, str] = {}
        """What a name stands for, should it be that of a module."""
        self._dotted: set[tuple[str, ...]] = set()

    def found(self) -> Iterator[_Import]:
        """All imports."""
        yield from self._imports
        for name, *attributes in self._dotted:
            module = self._modules.get(name)
            if module is None or _home(module.partition(".")[0]) != "project":
                continue
            for attribute in attributes:
                if not ((spec := _spec(module)) and _submodule(spec, attribute)):
                    break
                yield _Import(module, attribute, NOTHING)
                module = f"{module}.{attribute}"

    def visit_If(self, node: ast.If) -> None:
        for part in node.orelse if _is_for_types(node) else [node.test, *node.body, *node.orelse]:
            self.visit(part)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            self._modules[alias.asname or top] = alias.name if alias.asname else top
            within = [] if alias.asname else _parents(alias.name)
            self._imports += [_Import(module, ALL, alias.asname or top) for module in (alias.name, *within)]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self._absolute("." * node.level + (node.module or ""))
        for alias in node.names if module else ():
            self._modules[alias.asname or alias.name] = f"{module}.{alias.name}"
            self._imports.append(_Import(module, alias.name, alias.asname or alias.name))

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if called in ("import_module", "__import__") and isinstance(name, str) and (module := self._absolute(name)):
            self._imports += [_Import(each, ALL, NOTHING) for each in (module, *_parents(module))]
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes, value = [node.attr], node.value
        while isinstance(value, ast.Attribute):
            attributes.append(value.attr)
            value = value.value
        if isinstance(value, ast.Name):
            self._dotted.add((value.id, *reversed(attributes)))
        self.generic_visit(node)

    def _absolute(self, name: str) -> str:
        try:
            return importlib.util.resolve_name(name, self._package)
        except ImportError:  # above the top of the package: it cannot run
            return ""


def _is_for_types(node: ast.If) -> bool:
    return "TYPE_CHECKING" in (getattr(node.test, "id", None), getattr(node.test, "attr", None))


def _is_named(statement: ast.stmt) -> bool:
    """Whether a statement imports, documents or names a constant."""
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.Expr) and not _is_act(statement):
        plain = (ast.Constant, ast.List, ast.Tuple, ast.Load)
        return statement.value is None or all(isinstance(node, plain) for node in ast.walk(statement.value))
    return isinstance(statement, ast.Import | ast.ImportFrom) or (isinstance(statement, ast.If) and _is_for_types(statement))


def _is_act(statement: ast.stmt) -> bool:
    """Whether a statement at the top of a module does more than define names: calls for an effect, sets what is another's."""
    if isinstance(statement, ast.If) and _is_for_types(statement):
        return any(_is_act(part) for part in statement.orelse)
    if isinstance(statement, ast.If | ast.Try):
        handlers = [part for handler in getattr(statement, "handlers", ()) for part in handler.body]
        parts = [*statement.body, *statement.orelse, *handlers, *getattr(statement, "finalbody", ())]
        return any(_is_act(part) for part in parts)
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return any(isinstance(node, ast.Attribute | ast.Subscript) for target in targets for node in ast.walk(target))
    return not isinstance(
        statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Pass
    )
