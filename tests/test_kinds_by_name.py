"""No test writes a kind of event as a bare number: a number says nothing to a reader, and a shop may have other kinds."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def numbered(tree: ast.AST) -> Iterator[int]:
    """Lines that make numbers of the type of kinds, give a log a list of numbers as kinds, or compare a kind with one."""
    for node in ast.walk(tree):
        found = isinstance(node, ast.Attribute) and node.attr == "int8"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "EventLog.build":
            found = any(isinstance(part, ast.List) and any(map(is_number, part.elts)) for part in ast.walk(node.args[2]))
        if isinstance(node, ast.Compare):
            read = {part.id for part in ast.walk(node.left) if isinstance(part, ast.Name)}
            read |= {part.attr for part in ast.walk(node.left) if isinstance(part, ast.Attribute)}
            found = bool(read & {"kind", "kinds"}) and any(map(is_number, node.comparators))
        if found:
            yield node.lineno  # type: ignore[attr-defined]


def is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def test_kinds_are_written_by_name():
    found = {path.name: list(numbered(ast.parse(path.read_text()))) for path in HERE.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        "kind = draw.choice(3, n).astype(np.int8)",
        "EventLog.build(users, items, np.array([0, 2]), times)",
        "bought = log.where(log.kind == 2)",
        "[item for item, kind in rows if kind > 0]",
    ],
)
def test_a_number_is_found(code: str):
    assert set(numbered(ast.parse(code))) == {1}


@pytest.mark.parametrize("code", ["EventLog.build(users, items, ['view'] * 4, times)", "log.where(log.has_role('view'))"])
def test_a_name_is_let_through(code: str):
    assert not list(numbered(ast.parse(code)))
