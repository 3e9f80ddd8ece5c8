"""What README.md claims holds: links, files, commands, options, code, and the commands as they are printed, in order."""

import argparse
import ast
import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from esp_standin import StandIn
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from recsys import tuning
from recsys.datasets.synthetic import Synthetic
from recsys.experiment import Parts

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
README = (ROOT / "README.md").read_text()
PAGES = [page for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md") if (ROOT / page).is_file()]
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
SHELLS = {"sh", "bash", "shell", "console"}
OURS = {"python", "make", "mlflow", "pip"}
FOREIGN = {"cd", "cp", "curl", "docker", "export", "git", "kubectl", "mkdir", "open", "spark-submit", "ssh", "source"}
"""Commands of others, which are not checked."""
FILE = re.compile(r"#\s*((?:[\w.-]+/)+[\w.-]+\.\w+)\b")
"""The first line of a block that is a file to be written: a comment with its path."""


@dataclass(frozen=True)
class Block:
    """Code of a page: `sh`, `python`, another language, or `text`."""

    language: str
    code: str
    section: str

    @property
    def file(self) -> str | None:
        """The path where a reader is told to write the block."""
        found = FILE.match(self.code)
        return found.group(1) if found else None


def blocks(text: str) -> Iterator[Block]:
    """Fenced and indented code, with the heading that it stands under."""
    section, language, lines, fenced, before = "", "", [], False, ""
    for line in [*text.splitlines(), ""]:
        if fenced and not line.startswith("```"):
            lines.append(line)
        elif line.startswith("```"):
            if fenced:
                yield Block(language or "text", "\n".join(lines), section)
            fenced, language, lines = not fenced, line[3:].strip(), []
        elif line.startswith("    ") and (lines or not before.strip()):
            lines.append(line[4:])
        elif lines and line.strip():
            yield _told("\n".join(lines).strip("\n"), section)
            lines = []
        elif lines:
            lines.append("")
        if not fenced and re.match(r"#+ ", line):
            section = line.lstrip("# ")
        before = line
    if lines:
        yield _told("\n".join(lines).strip("\n"), section)


def _told(code: str, section: str) -> Block:
    """A block that does not name its language."""
    first = next((word for word in code.split() if not re.match(r"[A-Z_]+=", word)), "")
    if first in OURS | FOREIGN:
        return Block("sh", code, section)
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return Block("text", code, section)
    python = any(
        isinstance(each, (ast.Import, ast.ImportFrom, ast.ClassDef, ast.Call)) for part in body for each in ast.walk(part)
    )
    return Block("python" if python else "yaml" if FILE.match(code) else "text", code, section)


def whole_lines(code: str) -> Iterator[str]:
    """Lines, those joined that a quotation holds together."""
    part = ""
    for line in code.splitlines():
        part += line.removeprefix("$ ")
        with contextlib.suppress(ValueError):
            shlex.split(part, comments=True)
            yield part
            part = ""
            continue
        part += "\n"
    assert not part, f"a quotation does not end: {part}"


def commands(text: str) -> list[list[str]]:
    """The words of each command in the shell blocks, those joined by && apart, without variables set in front."""
    found = []
    for block in blocks(text):
        if block.language in SHELLS and not block.file:
            for line in whole_lines(block.code.replace("\\\n", " ")):
                words = shlex.split(line, comments=True)
                while words:
                    end = words.index("&&") if "&&" in words else len(words)
                    part, words = words[:end], words[end + 1 :]
                    while part and re.match(r"[A-Z_]+=", part[0]):
                        part = part[1:]
                    found += [part] if part else []
    return found


def codes(text: str) -> list[str]:
    """Inline code outside blocks."""
    prose = "\n".join(line for line in re.sub(r"```.*?```", "", text, flags=re.S).splitlines() if not line.startswith("    "))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def inline_commands() -> list[list[str]]:
    return [shlex.split(code) for code in codes(README) if code.split()[0] in ("python", "make") and " " in code]


KEY = "SG.a-very-secret-key.0123456789-us6"
PRINTED = commands(README)
CHECKED = [list(words) for words in dict.fromkeys(map(tuple, PRINTED + inline_commands()))]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a reader has it who wrote the files that the README shows."""
    folder = tmp_path_factory.mktemp("checkout") / "recsys"
    for name in ("recsys", "conf", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "Makefile", "README.md", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    for block in blocks(README):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.code + "\n")
    return folder


@pytest.fixture
def package(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout with its own modules found by `import recsys.…`, those that the README adds too."""
    for block in blocks(README):
        if block.file and block.file.endswith(".py") and block.file.startswith("recsys/"):
            name = block.file.removesuffix(".py").replace("/", ".")
            spec = importlib.util.spec_from_file_location(name, checkout / block.file)
            assert spec
            assert spec.loader
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)
            monkeypatch.setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module, raising=False)
            spec.loader.exec_module(module)
    return checkout


def composed(conf: Path, config: str, overrides: list[str]) -> dict[str, Any]:
    tuning.register()
    extra = ["output_dir=somewhere"] if config == "config" else []
    with initialize_config_dir(str(conf), version_base="1.3"):
        values: Any = OmegaConf.to_container(compose(config, [*overrides, *extra]), resolve=True)
    return values


def jobs(overrides: list[str]) -> Iterator[list[str]]:
    """Overrides of each job of a multirun. Of a range to search, the key alone counts, and stays as it is."""
    choices = []
    for text, override in zip(overrides, OverridesParser.create().parse_overrides(overrides), strict=True):
        if override.is_choice_sweep() or override.is_discrete_sweep():
            choices.append([f"{override.input_line.partition('=')[0]}={value}" for value in override.sweep_string_iterator()])
        elif not override.is_sweep_override() and "tag(" not in text:
            choices.append([text])
    for chosen in product(*choices):
        yield list(chosen)


def overrides_of(words: list[str]) -> list[str]:
    """The overrides among the words of a `train.py` command, whose flags have to be Hydra's."""
    flags = [word for word in words if word.startswith("-")]
    assert set(flags) <= {"-m", "--multirun", "--help", "--hydra-help", "--cfg", "-c", "--resolve", "--package", "-p", "--info"}
    return [word for word in words if "=" in word and not word.startswith("-")]


@cache
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
        assert key in dotted(composed(CONF, path.stem, chosen)), key


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
    assert {flag for flag in flags if f'"{flag}"' not in sources} <= {"--help", "--cfg", "--multirun", "--env-manager"}


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
    assert {block.file.split("/")[1] for block in shown if block.file} == {"retrieval", "features", "ranking"}
    assert max(len(block.code.splitlines()) for block in shown) <= 30


def test_no_figure_stands_without_a_command():
    """A table of decimals has the command that made it in its own section."""
    for section in re.split(r"^## ", README, flags=re.M):
        if re.search(r"^\|.*\b0\.\d{2,}", section, flags=re.M):
            assert re.search(r"python (train\.py|scripts/)", section), section.splitlines()[0]


def surroundings(checkout: Path) -> dict[str, str]:
    """The environment of a reader in the checkout who has a key of each mail service."""
    activated = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "RECSYS_HOME": str(checkout), "PYTHONPATH": str(checkout), "COLUMNS": "120", "PATH": activated}
    environment |= {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": f"sqlite:///{checkout}/mlflow.db"}
    return environment | {"SENDGRID_API_KEY": KEY, "MAILCHIMP_API_KEY": KEY}


def run(checkout: Path, words: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=checkout, env=surroundings(checkout), capture_output=True, text=True, timeout=1200, **more)


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


SMALL = {
    "synthetic": ["dataset.scale=0.01"],
    "sweep": ["sweep.trials=2", "sweep.folds=1"],
}
"""Overrides that make a printed command small."""


def shrunk(words: list[str], values: dict[str, Any]) -> list[str]:
    """A `train.py` command with what makes it small."""
    small = [word for word in words if not word.startswith(("dataset.scale=", "sweep.trials=", "sweep.folds="))]
    if values["dataset"]["_target_"].endswith("Synthetic"):
        small += SMALL["synthetic"]
    return small + (SMALL["sweep"] if values.get("sweep") else [])


def lay_out(folder: Path, values: dict[str, Any]) -> None:
    """Where a command reads a reader's own events, a small simulated shop in that form and at that place."""
    settings = values["dataset"]
    if not settings.get("path") or (folder / settings["path"]).exists():
        return
    there = folder / settings["path"]
    if settings["_target_"].endswith("RetailRocket"):
        done = run(folder, [sys.executable, "scripts/make_synthetic.py", "--scale", "0.01", "--out", str(there)])
        assert done.returncode == 0, done.stderr
        return
    log = Synthetic(scale=0.01, seed=0).load().log
    time = log.time
    if isinstance(values["split"]["cutoff"], str):  # the test window is the last fifth of the log, as it is for a quantile
        cutoff = int(pd.Timestamp(values["split"]["cutoff"]).timestamp() * 1000)
        time = time - time[int(0.8 * len(time))] + cutoff
    user, item = (ids.ids[code].astype(str) for ids, code in ((log.users, log.user), (log.items, log.item)))
    if settings["_target_"].endswith("OnlineRetail"):
        table = pd.DataFrame({"InvoiceNo": 500000 + np.arange(len(log)), "StockCode": np.char.add("2", item)})
        table = table.assign(Description=np.char.add("THING ", item), Quantity=1, UnitPrice=2.5, Country="Nowhere")
        table = table.assign(CustomerID=user, InvoiceDate=pd.to_datetime(time, unit="ms").strftime("%Y-%m-%d %H:%M:%S"))
    else:
        names, kinds = settings["columns"], np.array(["view", "addtocart", "transaction"])
        told = {kind: name for name, kind in (settings["events"] or {}).items() if kind}
        unit = {"s": 1000, "ms": 1}[settings["time_unit"]]
        table = pd.DataFrame({names["user"]: user, names["item"]: item, names["time"]: time // unit})
        table[names["event"] or "event"] = [told.get(kind, kind) for kind in kinds[log.kind]]
    there.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(there, index=False)


def serving(words: list[str]) -> str | None:
    """Where a command serves until it is stopped answers that it is up."""
    if words[:3] == ["mlflow", "models", "serve"]:
        return "/ping"
    return "/health" if words in (["make", "ui"], ["mlflow", "ui"]) else None


@contextlib.contextmanager
def served(folder: Path, words: list[str], health: str) -> Iterator[str]:
    """The address of a server that the command started, on a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    if words[0] == "make":
        command = [sys.executable, "-m", "recsys.tracking"]
    else:
        kept = [word for i, word in enumerate(words) if word != "--port" and words[i - 1] != "--port"]
        command = [sys.executable, "-m", *kept]
    log = folder / "server.log"
    with log.open("w") as told:
        process = subprocess.Popen(
            [*command, "--port", port], cwd=folder, env=surroundings(folder), stdout=told, stderr=told, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(address + health, timeout=5) as answer:
                assert answer.status == 200
                break
            assert process.poll() is None, log.read_text()[-600:]
            time.sleep(0.2)
        else:
            raise AssertionError(f"{shlex.join(words)} does not answer: {log.read_text()[-600:]}")
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def with_stand_ins(words: list[str], service: StandIn) -> list[str]:
    """A command whose mail service, cluster and environment file are stand-ins on this machine."""
    words = ["spark.master=local[2]" if word.startswith("spark.master=") else word for word in words]
    words = [word for word in words if not word.startswith("spark.conf=")]
    if "--send" in words:
        words = ["delivery.audience=list1" if word.startswith("delivery.audience=") else word for word in words]
        words = [*words, f"delivery.base_url={service.url}/3.0", "delivery.poll=0.01"]
    return words


def post(address: str, words: list[str]) -> None:
    """What `curl` is told to ask, asked of the stand-in for its host."""
    url = next(word for word in words if "/" in word and word.startswith("localhost"))
    body = words[words.index("-d") + 1]
    headers = dict(word.split(": ", 1) for word in words if re.match(r"[\w-]+: ", word))
    request = urllib.request.Request(address + "/" + url.partition("/")[2], body.encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        lists = json.loads(answer.read())["predictions"]
    assert len(lists) == len(json.loads(body)["dataframe_records"])
    assert all(row["items"] for row in lists)


@pytest.mark.slow
def test_the_commands_work_in_order_as_printed(checkout: Path, tmp_path: Path):
    """In a clean checkout, small; all that fail are told. What installs, makes or tests the project itself is left to CI."""
    folder = tmp_path / "recsys"
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns("outputs", ".cache", "mlflow.db*", "mlartifacts"))
    (folder / "products.csv").write_text("id,name,price,currency\n1,A thing,9.90,EUR\n")
    log = Synthetic(scale=0.01, seed=0).load().log
    own = np.unique(log.users.ids[log.user])[:200]
    pd.DataFrame({"user": own, "email": [f"c{user}@customers.test" for user in own]}).to_csv(
        folder / "contacts.csv", index=False
    )
    failed: list[str] = []
    with contextlib.ExitStack() as servers:
        service = servers.enter_context(StandIn(KEY))
        address = ""
        for words in PRINTED:
            try:
                if words[0] in ("pip", "make") and not serving(words):
                    continue
                if health := serving(words):
                    address = servers.enter_context(served(folder, words, health))
                elif words[0] == "curl":
                    post(address, words)
                else:
                    assert words[0] == "python", "it is not known how to try it"
                    reader_types(folder, words, service)
            except AssertionError as error:
                failed.append(f"{shlex.join(words)}\n{error}")
        assert not failed, "\n\n".join(failed)
        assert service.members


def reader_types(folder: Path, words: list[str], service: StandIn) -> None:
    small = [sys.executable, *with_stand_ins(words[1:], service)]
    if words[1] == "train.py" and "--help" not in words:
        values = composed(folder / "conf", "config", next(jobs(overrides_of(words[2:]))))
        lay_out(folder, values)
        small = shrunk(small, values)
    if words[1] == "scripts/benchmark.py":
        small += ["--scale", "0.02"]
    done = run(folder, small)
    assert done.returncode == 0, (done.stderr or done.stdout)[-600:]
