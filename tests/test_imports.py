"""Who may import whom: the borders that CONTRIBUTING states, read from the code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "recsys"

LAYERS = (
    {"errors", "digest", "redaction"},
    {"component", "timing"},
    {"cache", "shop"},
    {"datasets", "retrieval", "features", "evaluation"},
    {"ranking", "tracking"},
    {"first_stage", "targets"},
    {"recommender"},
    {"judging", "runs"},
    {"report", "comparison"},
    {"delivery", "ablation", "audit"},
    {"serving"},
    {"experiment"},
    {"dry"},
    {"tuning"},
    {"cli"},
)
"""Rooms and root modules: each may import from rows above its own, and from itself."""

ALONE = {"evaluation": {"errors", "component", "shop"}, "shop": {"errors", "digest", "component"}}
"""Rooms that know even less than their row allows."""

LIBRARIES = {
    "mlflow": {"tracking", "serving"},
    "hydra": {"experiment", "cli", "ablation", "tuning"},
    "optuna": {"tuning"},
    "lightgbm": {"ranking"},
}
"""Libraries that only some rooms know."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "recsys"


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, at any depth; what only a type checker reads is not imported."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (name if (name := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names)


IMPORTS = [(module, other) for module, path in MODULES.items() for other in imported(path)]
OWN = [(module, other) for module, other in IMPORTS if other.split(".")[0] == "recsys" and other != "recsys"]


def test_imports_point_one_way() -> None:
    row = {name: i for i, names in enumerate(LAYERS) for name in names}
    assert {room(module) for module in MODULES} - {"recsys"} == set(row)
    wrong = {(a, b) for a, b in OWN if room(a) != room(b) and room(a) != "recsys" and row[room(b)] >= row[room(a)]}
    assert not wrong


def test_rooms_that_know_little_stay_so() -> None:
    wrong = {(a, b) for a, b in OWN if room(a) in ALONE and room(b) not in ALONE[room(a)] | {room(a)}}
    assert not wrong


def test_modules_import_in_no_circle() -> None:
    following = {module: {b for a, b in OWN if a == module and b in MODULES} for module in MODULES}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in following[module]:
                if MODULES[other].name != "__init__.py" or not module.startswith(f"{other}."):
                    walk(other, (*path, module))
            done.add(module)

    for module in MODULES:
        walk(module, ())


def test_no_module_imports_another_folders_helper() -> None:
    def helper(name: str) -> bool:
        return name.rpartition(".")[2].startswith("_")

    wrong = {(a, b) for a, b in OWN if helper(b) and a.rpartition(".")[0] != b.rpartition(".")[0]}
    assert not wrong


@pytest.mark.parametrize("library", LIBRARIES)
def test_only_some_rooms_know_a_library(library: str) -> None:
    assert {room(a) for a, b in IMPORTS if b.split(".")[0] == library} <= LIBRARIES[library]


def test_the_root_holds_few_modules() -> None:
    assert len([path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]) <= 14


def test_a_shop_is_cut_in_one_place() -> None:
    """The parts of a shop are cut by `Shop.before` alone; everything else asks the shop."""
    cuts = {
        (module, node.attr)
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "_before"
    }
    assert {module for module, _ in cuts} == {"recsys.shop.shop"}
