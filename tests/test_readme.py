"""What README.md claims holds: links, files, commands, options and code."""

import argparse
import importlib.util
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from readme import (
    CHECKED,
    CONF,
    FOREIGN,
    GROUPS,
    PAGES,
    README,
    ROOT,
    blocks,
    codes,
    composed,
    jobs,
    overrides_of,
    run,
)

from recsys.experiment import Parts


def script(path: Path) -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location(f"readme_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[list[str]], int] = module.main
    return main


class Parsed(Exception):
    """The arguments were understood."""


def check_script(path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The script takes the arguments; it is stopped before it acts on them."""
    assert path.is_file(), path
    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)

        def stop(parser: argparse.ArgumentParser, *given: Any, parse: Any = parse, **named: Any) -> None:
            raise Parsed(parse(parser, *given, **named))

        monkeypatch.setattr(argparse.ArgumentParser, name, stop)
    with pytest.raises(Parsed):
        script(path)(arguments)
    for key in [word.partition("=")[0] for word in arguments if re.match(r"[\w.]+=", word)]:
        chosen = [word for word in arguments if word.startswith("delivery=")]
        config = path.stem if (CONF / f"{path.stem}.yaml").is_file() else "config"
        assert key in dotted(composed(CONF, config, chosen)), key


@cache
def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))


def check_mlflow(words: list[str]) -> None:
    import click
    from mlflow.cli import cli

    group: Any = cli
    while words and isinstance(group, click.Group):
        found = group.get_command(click.Context(group), words[0])
        assert found, f"mlflow has no command {words[0]}"
        group, words = found, words[1:]
    known = {option for parameter in group.params for option in [*parameter.opts, *parameter.secondary_opts]}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("words", CHECKED, ids=lambda words: " ".join(words)[:70])
def test_a_printed_command_exists_with_its_options(words: list[str], package: Path, monkeypatch: pytest.MonkeyPatch):
    program, *rest = words
    if program == "make":
        assert {word for word in rest if "=" not in word} <= make_targets()
    elif program == "mlflow":
        check_mlflow(rest)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert {name for word in rest for name in re.findall(r"\[(.+)\]", word) for name in name.split(",")} <= set(extras)
    elif program == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1])
    elif program == "python" and rest[0] == "train.py":
        for job in jobs(overrides_of(rest[1:])):
            values = composed(package / "conf", "config", job)
            assert Parts.of({**values, "tracking": {"_target_": "recsys.tracking.NoTracking"}})
    elif program == "python":
        check_script(package / rest[0], rest[1:], monkeypatch)
    else:
        assert program in FOREIGN, f"{program}: what is it?"


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_internal_link_leads_somewhere(page: str):
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, flags=re.M)
    for target in targets:
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = ROOT / path if path else ROOT / page
        assert there.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), flags=re.M)
            assert anchor in map(slug, headings), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_the_project_that_is_named_is_there(page: str, checkout: Path):
    text = (ROOT / page).read_text()
    named = set(re.findall(r"(?<![\w/.-])((?:recsys|conf|scripts|tests|notebooks)/[\w/.-]*\w)", text)) - {"recsys/recsys"}
    missing = [path for path in named if "NAME" not in path and not ((ROOT / path).exists() or (checkout / path).exists())]
    assert not missing


@pytest.mark.parametrize("text", [code for code in codes(README) if re.match(r"[\w./@]+=", code)])
def test_an_override_in_the_text_composes(text: str, package: Path):
    words = shlex.split(text)
    first = words[0].partition("=")[0].partition(".")[0]
    names = [name for name in ("config", "emails", "recommend") if first in composed(CONF, name, []) or (name == "config")]
    failures = []
    for name in names:
        try:
            for job in jobs(words):
                composed(package / "conf", name, job)
            return
        except Exception as error:
            failures.append(error)
    raise failures[0]


def dotted(values: Any, prefix: str = "") -> Iterator[str]:
    for name, value in values.items() if isinstance(values, dict) else ():
        yield f"{prefix}{name}"
        yield from dotted(value, f"{prefix}{name}.")


@cache
def known_keys() -> set[str]:
    keys = {key for name in ("config", "emails", "recommend") for key in dotted(composed(CONF, name, []))}
    for group in set(GROUPS) & {
        "dataset",
        "split",
        "retriever",
        "features",
        "ranker",
        "evaluation",
        "tracking",
        "cache",
        "sweep",
    }:
        for path in (CONF / group).glob("[!_]*.yaml"):
            keys |= set(dotted(OmegaConf.to_container(OmegaConf.load(path), resolve=False), f"{group}."))
            keys |= set(dotted(composed(CONF, "config", [f"{group}={path.stem}"])))
    for path in (CONF / "delivery").glob("*.yaml"):
        keys |= set(dotted(OmegaConf.to_container(OmegaConf.load(path), resolve=False), "delivery."))
    return keys


def test_every_option_that_is_mentioned_exists():
    options = {code for code in codes(README) if re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", code)}
    of_ours = {code for code in options if code.partition(".")[0] in {key.partition(".")[0] for key in known_keys()}}
    of_ours = {code for code in of_ours if not re.search(r"\.(py|json|html|yaml|parquet|csv|db)$", code)}
    assert of_ours <= known_keys() | {f"{group}.{path.stem}" for group in GROUPS for path in (CONF / group).glob("*.yaml")}


def test_every_flag_that_is_mentioned_exists():
    flags = {code.split()[0] for code in codes(README) if re.match(r"--[a-z]", code)}
    sources = "".join(path.read_text() for path in (ROOT / "scripts").glob("*.py"))
    assert {flag for flag in flags if f'"{flag}"' not in sources} <= {"--help", "--cfg", "--multirun", "--env-manager", "--dry"}


def test_the_table_of_groups_names_what_there_is():
    rows = re.findall(r"^\| `([\w/]+)` \|[^|]*\|([^|]*)\|$", README, flags=re.M)
    tables = {group: members for group, members in rows if group in GROUPS}
    assert set(tables) == set(GROUPS)
    for group, text in tables.items():
        named = re.findall(r"`([^`]+)`", text)
        private = ("base",) if group == "sweep" else ()
        assert sorted(named) == sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml") if path.stem not in private), (
            group
        )


def test_a_part_of_ones_own_takes_thirty_lines_at_most():
    shown = [block for block in blocks(README) if block.language == "python" and block.file]
    assert {block.file.split("/")[1] for block in shown if block.file} == {"retrieval", "features", "ranking", "evaluation"}
    assert max(len(block.code.splitlines()) for block in shown) <= 30


def test_no_figure_stands_without_a_command():
    """A table of decimals has the command that made it in its own section."""
    for section in re.split(r"^## ", README, flags=re.M):
        if re.search(r"^\|.*\b0\.\d{2,}", section, flags=re.M):
            assert re.search(r"python (train\.py|scripts/)", section), section.splitlines()[0]


@pytest.fixture(scope="session")
def first_run(checkout: Path) -> Path:
    """A small run in the checkout."""
    done = run(
        checkout,
        [sys.executable, "train.py", "dataset.scale=0.01", "debug=quick", "cache=off", "retriever=als", "features=base"],
    )
    assert done.returncode == 0, done.stderr
    return checkout / "outputs" / "latest"


def test_code_in_python_runs(checkout: Path, first_run: Path):
    """All blocks one after the other, as a reader would type them."""
    code = "\n\n".join(block.code for block in blocks(README) if block.language == "python" and not block.file)
    done = run(checkout, [sys.executable, "-"], input=code)
    assert done.returncode == 0, done.stderr


def test_every_metric_and_file_of_a_run_that_is_named_is_there(first_run: Path):
    metrics = json.loads((first_run / "metrics.json").read_text())
    systems = {name.partition("/")[0] for name in metrics}
    named = {code for code in codes(README) if re.fullmatch(r"[a-z_]+(/[\w]+)+", code) and code.partition("/")[0] in systems}
    assert named <= set(metrics)
    files = {code for code in codes(README) if re.fullmatch(r"\w+\.(json|html|parquet)", code)}
    elsewhere = {"ablation.json", "audit.json", "comparison.json", "comparison.html", "recs.parquet", "index.html"}
    assert files - elsewhere <= {path.name for path in first_run.iterdir()}
