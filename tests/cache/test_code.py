import importlib
import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from recsys.cache import code
from recsys.cache.code import code_of
from recsys.component import Component, component
from recsys.datasets import kept
from recsys.datasets.synthetic import Synthetic
from recsys.features import FeatureSet, Item
from recsys.first_stage import FirstStage
from recsys.retrieval import ALS, Hybrid, Popularity, Trending

HOME = Path(code.__file__).parents[1]
numbers = count()


def within(component, driver=FirstStage.pool):
    return set(code_of(component, driver).modules)


@pytest.fixture(scope="module")
def steps():
    program = Path(__file__).with_name("traced_steps.py")
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(HOME.parent)}
    done = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_every_module_that_a_step_runs_is_in_its_key(steps):
    escaped = {(each["step"], each["of"]): set(each["ran"]) - set(each["key"]) for each in steps}
    assert {step: modules for step, modules in escaped.items() if modules} == {}


def test_the_trace_sees_every_retriever_family_and_dataset_at_work(steps):
    ran = set().union(*(each["ran"] for each in steps))
    for folder in ("retrieval", "features"):
        files = {path.stem for path in (HOME / folder).glob("*.py")} - {"__init__"}
        assert {f"recsys.{folder}.{name}" for name in files} <= ran
    assert {f"recsys.datasets.{name}" for name in ("table", "online_retail", "retailrocket", "synthetic")} <= ran
    assert {each["step"] for each in steps} == {"dataset", "retriever", "pool", "features"}


def test_a_retriever_depends_on_its_own_module_and_no_other_retrievers():
    assert {name for name in within(Popularity()) if name.startswith("recsys.retrieval")} == {
        "recsys.retrieval.base",
        "recsys.retrieval.popularity",
    }
    assert "recsys.retrieval.popularity" not in within(ALS())
    assert "implicit" in code_of(ALS(), FirstStage.pool).libraries
    assert "implicit" not in code_of(Popularity(), FirstStage.pool).libraries


def test_a_union_depends_on_the_modules_of_its_definitions():
    union = Hybrid(sources=["one"], definitions={"one": Popularity(), "two": Trending()}, fallback=[])
    assert {"recsys.retrieval.popularity", "recsys.retrieval.trending", "recsys.retrieval.union"} <= within(union)


def test_features_depend_on_their_families_and_what_drives_them_and_on_no_retriever():
    found = within(FeatureSet(families=["item"], definitions={"item": Item()}), FirstStage.describe)
    assert {"recsys.features.item", "recsys.features.base", "recsys.first_stage", "recsys.features._kernels"} <= found
    assert not {"recsys.features.content", "recsys.retrieval.popularity"} & found


def test_a_dataset_depends_on_its_reader_and_on_no_stage():
    found = within(Synthetic(scale=0.01), kept.to_arrays)
    assert {"recsys.datasets.synthetic", "recsys.datasets.simulation", "recsys.datasets.kept", "recsys.shop.events"} <= found
    assert not {name for name in found if name.startswith(("recsys.retrieval", "recsys.features", "recsys.datasets.table"))}


def test_libraries_count_by_the_version_of_their_distribution():
    libraries = code_of(ALS(), FirstStage.pool).libraries
    for name in ("numpy", "PyYAML", "implicit"):
        assert libraries[name] == importlib.metadata.version(name)
    assert libraries["python"] == ".".join(map(str, sys.version_info[:3]))


def test_top_level_names_are_mapped_to_distributions_as_the_standard_library_maps_them():
    expected = importlib.metadata.packages_distributions()
    for top in ("numpy", "yaml", "sklearn", "scipy", "rich", "pandas", "google"):
        assert {found.name for found in code._distributions().get(top, ())} == set(expected.get(top, ()))


def component_of(module):
    """A component whose class says that it is of `module`, which nobody imports for it."""

    @component
    class Mine(Component):
        pass

    Mine.__module__ = module
    return Mine()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes a user's package from its files and returns a component of its module `mine`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**files):
        name = f"project_{next(numbers)}"
        for path, text in {"__init__": "", **files}.items():
            file = tmp_path / name / f"{path.replace('__of__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

        return component_of(f"{name}.mine")

    return write


def own(mine):
    """Modules of the user's package that count, without its name."""
    top = type(mine).__module__.partition(".")[0]
    return {name.partition(".")[2] for name in code_of(mine).modules if name.startswith(f"{top}.")}


@pytest.mark.parametrize(
    ("statement", "counted"),
    [
        ("from .a import f", {"a"}),
        ("from . import a", {"a"}),
        ("def late():\n    from .a import f", {"a"}),
        ("try:\n    from .a import f\nexcept ImportError:\n    from .b import f", {"a", "b"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import f\nelse:\n    from .b import f", {"b"}),
        ("import importlib\nx = importlib.import_module('.a', __package__)", {"a"}),
        ("from .names import f", {"a"}),
        ("from .names import g as other", {"b"}),
        ("from .names import *", {"names", "a", "b"}),
        ("from . import names\nnames.f()", {"names", "a", "b"}),
        ("from .names import sub", {"names.sub"}),
        ("from . import names\nnames.sub.h()", {"names", "names.sub", "a", "b"}),
        ("from .names import MANY", {"names", "a", "b"}),
        ("from .acting import f", {"a", "acts"}),
        ("from .wide import f", {"wide", "a", "b"}),
        ("import missing_library", set()),
    ],
)
def test_imports_are_followed_to_the_modules_that_can_run(project, statement, counted):
    mine = project(
        mine=statement,
        a="def f(): pass",
        b="def g(): pass",
        acts="import os\nos.environ['PROJECT'] = 'on'",
        names__of____init__="'''Names.'''\nfrom ..a import f\nfrom ..b import g\nMANY = 3\n__all__ = ['f', 'g']",
        names__of__sub="def h(): pass",
        acting__of____init__="from ..a import f\nfrom ..acts import os\n",
        wide__of____init__="from ..a import f\nfrom ..b import g\ndef h(): return f() + g()",
    )
    assert own(mine) == {"mine", *counted}
    assert type(mine).__module__ not in sys.modules


def test_plain_imports_of_packages_are_followed_through_attributes(project):
    mine = project(mine="", names__of____init__="", names__of__a="", names__of__b="", c="")
    module = type(mine).__module__
    top, file = module.partition(".")[0], Path(code._spec(module).origin)
    file.write_text(f"import {top}.names.a\nimport {top} as p\nx = lambda: ({top}.names.b.f(), p.c)")
    assert own(mine) == {"mine", "names", "names.a", "names.b", "c"}


def test_a_change_in_a_users_module_is_another_key(project):
    mine = project(mine="from . import a", a="x = 1")
    module = type(mine).__module__
    before = code_of(mine)
    assert code_of(mine) == before
    file = Path(code._spec(module).origin).with_name("a.py")
    file.write_text("x = 20")
    assert code_of(mine) != before


def test_a_loaded_module_counts_as_it_was_loaded_until_it_is_loaded_again(project):
    mine = project(mine="x = 1")
    module = importlib.import_module(type(mine).__module__)
    before = code_of(mine)
    Path(module.__file__).write_text("x = 234")
    assert code_of(mine) == before
    importlib.reload(module)
    assert code_of(mine) != before


def test_what_is_installed_counts_by_version_and_what_lies_there_loose_by_its_text(tmp_path, monkeypatch):
    place = tmp_path / "site-packages"
    place.mkdir()
    (place / "loose_module.py").write_text("import pydantic")
    monkeypatch.syspath_prepend(str(place))

    found = code_of(component_of("loose_module"))
    assert "loose_module" in found.modules
    assert found.libraries["pydantic"] == importlib.metadata.version("pydantic")


def test_what_has_no_source_file_is_not_known():
    assert code_of(component_of("nowhere_to_be_found")) is None  # as a cell of a notebook
