"""README.md taken apart, and the project as a reader has it who wrote the files that it shows."""

import ast
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from recsys import tuning
from recsys.cli import with_new_weights

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


PRINTED = commands(README)
CHECKED = [list(words) for words in dict.fromkeys(map(tuple, PRINTED + inline_commands()))]


def train_commands() -> list[list[str]]:
    """The words of each `train.py` command that README.md, `--help`, the notebooks and the comments in `conf/` print."""
    files = [*CONF.rglob("*.yaml"), *(ROOT / "notebooks").glob("*.py")]
    lines = [line for path in files for line in re.findall(r"python (train\.py(?: [^`#\[\n&\"]*)?)[`#\[\n&]", path.read_text())]
    found = [words[1:] for words in CHECKED if words[:2] == ["python", "train.py"]] + [shlex.split(line) for line in lines]
    return [list(words) for words in dict.fromkeys(map(tuple, found)) if "--help" not in words]


KEY = "SG.a-very-secret-key.0123456789-us6"


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
    known = {"-m", "--multirun", "--help", "--hydra-help", "--cfg", "-c", "--resolve", "--package", "-p", "--info", "--dry"}
    assert set(flags) <= known
    return with_new_weights([word for word in words if "=" in word and not word.startswith("-")])


def check_out(folder: Path) -> None:
    """The project in `folder`, with the files that the README shows."""
    for name in ("recsys", "conf", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "Makefile", "README.md", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    for block in blocks(README):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.code + "\n")


def surroundings(checkout: Path) -> dict[str, str]:
    """The environment of a reader in the checkout who has a key of each mail service."""
    activated = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "RECSYS_HOME": str(checkout), "PYTHONPATH": str(checkout), "COLUMNS": "120", "PATH": activated}
    environment |= {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": f"sqlite:///{checkout}/mlflow.db"}
    return environment | {"SENDGRID_API_KEY": KEY, "MAILCHIMP_API_KEY": KEY}


def run(checkout: Path, words: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=checkout, env=surroundings(checkout), capture_output=True, text=True, timeout=1200, **more)
