"""The command line's manners: a mistake told in one line that names the nearest valid name, a parent run for a multirun."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recsys.component import construct
from recsys.errors import ConfigError, UserError, nearest
from recsys.tracking import PARENT_RUN, Tracker

FLAGS = {"--dry": "dry=true"}
"""Flags of ours, which Hydra does not know, and the overrides that they stand for."""
WEIGHT = re.compile(r"(([\w.]*(?:weights|grades))\.[\w-]+)=")
"""An override of one entry of a mapping by kinds, sources or columns, and the key of the mapping."""

CONFIGS = Path(__file__).resolve().parent.parent / "conf"


@contextmanager
def plain_errors(in_job: bool = False) -> Iterator[None]:
    """Tell the mistakes that a user can mend in one line on stderr, with exit code 2; anything else keeps its traceback.

    Inside a job of a multirun errors and interrupts pass, so that whoever runs the jobs can tell what became of them.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, KeyboardInterrupt) as error:
        if in_job and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        if isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        ParentRun.fail()
        print("error:", " ".join(explain(error, sys.argv[1:]).split()), file=sys.stderr)
        sys.exit(2)
    except Exception:
        ParentRun.fail()
        raise


def with_keys(arguments: list[str]) -> list[str]:
    """Arguments as Hydra understands them: each of `FLAGS` as the override that it stands for, once."""
    keys = [FLAGS.get(each, each) for each in arguments]
    return [each for i, each in enumerate(keys) if each not in FLAGS.values() or each not in keys[:i]]


def explain(error: Exception, arguments: list[str]) -> str:
    """What is wrong with the command line, in one line."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}: there is no config called {name!r}.{nearest(name, error.options or [])}"
    text = str(error)
    if isinstance(error, ConfigCompositionException) and (
        found := re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", text)
    ):
        key = found.group(1).partition("@")[0]
        if "is at least" in text or "Multiple values" in text:
            return text.splitlines()[0]
        known = known_keys(arguments)
        if key in known:
            return f"{key}: an entry is not there to be set; + in front of {key} adds what is new"
        return f"{key}: there is no such key or group.{nearest(key, known)}"
    if isinstance(error, UserError):
        return text
    return text.splitlines()[0] if text else type(error).__name__


def with_new_weights(arguments: list[str]) -> list[str]:
    """The arguments, where `retriever.weights.wishlist=2` may name an entry that the mapping in the config does not have.

    Hydra would want `+` in front. Which names an entry may have, the component that is given the mapping checks.
    """
    if not any(WEIGHT.match(argument) for argument in arguments):
        return arguments
    known = set(known_keys(arguments))
    return [
        f"+{argument}" if (key := WEIGHT.match(argument)) and key.group(2) in known and key.group(1) not in known else argument
        for argument in arguments
    ]


def known_keys(arguments: list[str]) -> list[str]:
    """Groups and dotted keys that may be overridden, given the groups that the arguments choose."""
    groups = [path.name for path in CONFIGS.iterdir() if path.is_dir()]
    chosen = []
    for argument in arguments:
        group, _, name = argument.partition("=")
        if group in groups and (CONFIGS / group / f"{name}.yaml").is_file():
            chosen.append(argument)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", chosen)
    return groups + list(_dotted(OmegaConf.to_container(config, resolve=False)))


def _dotted(values: Any, prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")


class ParentRun(Callback):
    """Hydra callback: the jobs of a multirun become children of one run."""

    _started: tuple[Tracker, str] | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Start the parent, unless a worker of it is what runs here; a sweep has a parent of its own, a dry run none."""
        if os.environ.get(PARENT_RUN) or config.get("sweep") or config.dry:
            return
        tracker = construct(OmegaConf.to_container(config.tracking, resolve=True), "tracking")
        if not isinstance(tracker, Tracker):
            raise ConfigError(f"tracking: wanted a tracker, found {type(tracker).__name__}")
        overrides = list(config.hydra.overrides.task)
        parent = tracker.start_parent("multirun: " + " ".join(overrides), {"overrides": overrides})
        ParentRun._started = (tracker, parent) if parent else None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """End the parent as finished; of a dry run nothing stays."""
        self._end("FINISHED")
        if config.dry:
            from recsys.runs import remove_empty

            folder = Path(config.hydra.sweep.dir)
            (folder / "multirun.yaml").unlink(missing_ok=True)
            remove_empty(folder, folder.parent)

    @classmethod
    def fail(cls) -> None:
        """End the parent, if there is one, as failed."""
        cls._end("FAILED")

    @classmethod
    def _end(cls, status: Any) -> None:
        if cls._started:
            tracker, parent = cls._started
            cls._started = None
            tracker.end_parent(parent, status)
