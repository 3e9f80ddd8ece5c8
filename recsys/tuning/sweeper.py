"""The sweeper: `python train.py -m sweep=two_stage`, in as many shells and on as many machines as there are."""

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from recsys.component import construct
from recsys.digest import digest
from recsys.errors import ConfigError, nearest
from recsys.evaluation.measured import FINAL
from recsys.experiment import Parts, objective_of
from recsys.judging import Evaluation
from recsys.shop.splits import Fold
from recsys.tracking import Run, Tracker
from recsys.tuning import rehearsal, results, space, syntax, validation
from recsys.tuning.settings import SweepSettings
from recsys.tuning.space import SearchSpace
from recsys.tuning.study import ERROR, SharedStudy, open_storage
from recsys.tuning.trial import Outcome, data_settings, fold_settings, folded, storage_url

PARENT = "parent_run"
"""Attribute of a study: the run that its trials are children of."""
NEEDS = {"GPSampler": "torch", "CmaEsSampler": "cmaes"}
"""Libraries that samplers need and Optuna does not bring."""
PARENT_WAIT = 30.0
"""Seconds to wait for another worker to start the parent run."""


@dataclass(frozen=True)
class Stage:
    """One study of a sweep."""

    name: str
    over: tuple[str, ...]
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    overrides: tuple[str, ...]


class OptunaSweeper(Sweeper):
    """Searches the stages of `sweep` one after the other, each from the best of those before it.

    `params` are keys to sweep over, written as on the command line. All else stands in the config's `sweep`.
    """

    config: DictConfig
    launcher: Launcher

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See Hydra."""
        self.context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.console = Console()
        self.jobs = 0

    def sweep(self, arguments: list[str]) -> results.Result | None:
        """Check everything, run the stages, judge the winner and the defaults on the test window."""
        if not self.config.get("sweep"):
            raise ConfigError("hydra/sweeper=optuna wants a sweep, such as sweep=two_stage")
        given = [*syntax.arguments(self.params), *arguments]
        self.fixed, keys = syntax.parse(given, self.context.config_loader)
        self.compose = space.cached(self._compose)
        base = self.compose(tuple(self.fixed))
        self.settings = SweepSettings.of(base["sweep"])
        self.draws: dict[str, Any] = base["sweep"]["sampler"]
        self.pruner = instantiate(base["sweep"]["pruner"])
        parts = Parts.of(base)
        objective_of(parts, base)
        stages = self._stages(keys)
        spaces = [self._space(stage, keys, ()) for stage in stages]
        for each in spaces:
            each.check()
        sampler = self._sampler(0)
        if isinstance(sampler, optuna.samplers.BruteForceSampler):
            _check_discrete(spaces)
        _, folds, line = folded(*data_settings(base), *fold_settings(self.settings))
        if self.config.dry:
            rehearsal.tell(self.console, base, self.settings, self._rehearsed(stages, spaces))
            return None
        self.console.print(line, highlight=False)
        self.content = self._content(base, folds)
        name = self.settings.study or self._name(base, stages, spaces)
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        return self._run(name, stages, keys, parts.tracking)

    def _run(self, name: str, stages: Sequence[Stage], keys: syntax.Space, tracker: Tracker) -> results.Result | None:
        settings = self.settings
        storage = open_storage(storage_url(settings), settings.heartbeat, settings.grace, settings.retries)
        self.console.print(f"Study {name}", highlight=False)
        tuned: tuple[str, ...] = ()
        studies: list[SharedStudy] = []
        parent, last = None, False
        try:
            for stage in stages:
                full = f"{name}/{stage.name}" if len(stages) > 1 else name
                shared = SharedStudy.open(
                    storage, full, settings.trials, stage.objectives, stage.directions, digest(self.content, list(tuned))
                )
                studies.append(shared)
                if parent is None:
                    parent = self._parent(shared, tracker, name)
                last = self._stage(stage, shared, self._space(stage, keys, tuned))
                best = results.winner(shared.study)
                if best is None:
                    raise ConfigError(f"sweep: no trial of {full} was completed{_first_error(shared)}")
                tuned = (*tuned, *results.overrides(best))
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self._summary(stages, studies, parent or Run())
            if parent and parent.id:
                tracker.end_parent(parent.id, "KILLED" if interrupted else "FAILED")
            raise
        assert parent is not None
        self._summary(stages, studies, parent)
        found = None
        if last:
            found = self._judge(stages[-1], studies[-1], tuned, parent)
        if parent.id:
            tracker.end_parent(parent.id)
        return found

    def _stage(self, stage: Stage, shared: SharedStudy, searched: SearchSpace) -> bool:
        """Run trials until none is left; gives whether it falls to this worker to ask the test window.

        That is the one whose trial was the last to end, or who finds a study that ended without.
        """
        shared.begin(searched.defaults())
        over = len(shared.own()) >= shared.total and all(trial.state.is_finished() for trial in shared.own()[: shared.total])
        if over:
            return results.TEST not in shared.study.user_attrs
        progress = results.Progress(self.console, stage.name, shared, stage.objectives)
        workers = _workers(self.config)
        running: dict[Future[None], int] = {}
        with ThreadPoolExecutor(workers) as pool:
            try:
                while True:
                    while len(running) < workers:
                        number = shared.claim(patient=not running)
                        if number is None:
                            break
                        if workers == 1:
                            self._trial(stage, shared, searched, number)
                            progress.tell(number)
                        else:
                            running[pool.submit(self._trial, stage, shared, searched, number)] = number
                    if not running:
                        break
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        progress.tell(running.pop(future))
                        future.result()
            except BaseException:
                shared.give_back()
                raise
        ended = [trial for trial in shared.finished() if trial.datetime_complete]
        return bool(ended) and max(ended, key=lambda trial: (trial.datetime_complete, trial.number)).number in shared.mine

    def _trial(self, stage: Stage, shared: SharedStudy, searched: SearchSpace, number: int) -> None:
        with shared.alive(number):
            try:
                trial = shared.trial(number, self._sampler(number), self.pruner)
                chosen = searched.overrides(trial)
                told = ",".join(f"'{name}'" for name in stage.objectives)
                this = f"sweep.trial={{study:'{shared.study.study_name}',number:{number},objectives:[{told}]}}"
                job = self._launch([*searched.fixed, *chosen, this])
                outcome: Outcome = job.return_value
            except Exception as error:
                shared.fail(number, error)
            else:
                shared.end(trial, TrialState[outcome.state], outcome.values)
                with suppress(OSError):
                    _folder(job).rmdir()  # a trial leaves its numbers in the study, and no files

    def _launch(self, overrides: list[str]) -> JobReturn:
        number, self.jobs = self.jobs, self.jobs + 1
        job: JobReturn = self.launcher.launch([overrides], initial_job_idx=number)[0]
        return job

    def _judge(self, stage: Stage, shared: SharedStudy, tuned: Sequence[str], parent: Run) -> results.Result:
        """Fit the defaults and the winner, and ask both the test window, once."""
        folders = []
        for name, overrides in (("defaults", ()), ("tuned", tuned)):
            self.console.print(f"\n[bold]{name}[/] on the test window")
            job = self._launch([*self._fixed(stage), *overrides, "sweep.trial=null"])
            _ = job.return_value
            folders.append(_folder(job))
        objectives = [name for name in stage.objectives if name != validation.LATENCY]
        found = results.compare(folders[0], folders[1], objectives)
        shared.study.set_user_attr(results.TEST, found.document())
        results.tell_test(self.console, found, parent)
        return found

    def _parent(self, shared: SharedStudy, tracker: Tracker, name: str) -> Run:
        """The run that all workers' trials are children of, started by whoever made the study."""
        if shared.created:
            run_id = tracker.start_parent(f"sweep: {name}", {"overrides": self.fixed, "study": name})
            shared.study.set_user_attr(PARENT, run_id)
            return tracker.join_parent(run_id)
        start = time.monotonic()
        while PARENT not in shared.study.user_attrs and time.monotonic() - start < PARENT_WAIT:
            time.sleep(0.2)
        known = shared.study.user_attrs.get(PARENT)
        return tracker.join_parent(known) if known else Run()

    def _compose(self, overrides: tuple[str, ...]) -> Mapping[str, Any]:
        config = self.context.config_loader.load_configuration(
            config_name=self.config.hydra.job.config_name, overrides=list(overrides), run_mode=RunMode.RUN
        )
        choices = OmegaConf.to_container(config.hydra.runtime.choices)
        OmegaConf.set_struct(config, False)
        config.pop("hydra")
        config.output_dir = ""
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        return {**plain, space.CHOICES: choices}

    def _space(self, stage: Stage, keys: syntax.Space, tuned: Sequence[str]) -> SearchSpace:
        loader = self.context.config_loader
        names = loader.get_group_options("sweep/space")
        config = loader.load_configuration(
            config_name=self.config.hydra.job.config_name,
            overrides=[*self.fixed, f"+sweep/space=[{','.join(names)}]"],
            run_mode=RunMode.RUN,
        )
        spaces: Any = OmegaConf.to_container(config.sweep.get("space", OmegaConf.create({})))
        own = {key: drawn for key, drawn in keys.items() if _root(key) in stage.over}
        components = space.read_components(spaces)
        return SearchSpace(self.compose, (*self._fixed(stage), *tuned), own, components, stage.over)

    def _fixed(self, stage: Stage) -> tuple[str, ...]:
        """The fixed overrides, where a group that the stage sets itself (`ranker=none`) is not spoken of otherwise."""
        return self._with(stage.overrides)

    def _with(self, overrides: Sequence[str]) -> tuple[str, ...]:
        own = {_root(each.partition("=")[0]) for each in overrides}
        return (*(each for each in self.fixed if _root(each.partition("=")[0]) not in own), *overrides)

    def _stages(self, keys: syntax.Space) -> list[Stage]:
        """The stages with their objectives by full names. Raises `ConfigError` for one that no trial logs."""
        stages = []
        last = list(self.settings.stages)[-1]
        for name, given in self.settings.stages.items():
            config = self.compose(self._with(given.overrides))
            evaluation: Evaluation = construct(config["evaluation"], "evaluation")
            known = validation.names(evaluation, config["candidates"])
            objectives = []
            leading = f"{FINAL}/{evaluation.measured.leading}"
            chosen = self.settings.objectives if name == last else None
            for wanted in chosen or given.objectives or [leading]:
                found = validation.full_name(wanted, evaluation, known)
                if found is None:
                    key = "sweep.objectives" if chosen else f"sweep.stages.{name}.objectives"
                    raise ConfigError(
                        f"{key}: a trial of {name} logs no {wanted!r}.{nearest(wanted, known)} null stands for"
                        f" {'those of its stage' if chosen else leading}."
                    )
                objectives.append(found)
            directions = (self.settings.directions if name == last else None) or [
                "minimize" if each in validation.SMALLER else "maximize" for each in objectives
            ]
            if len(directions) != len(objectives):
                raise ConfigError(
                    f"sweep.directions: wanted one for each of {len(objectives)} objectives, found {len(directions)}:"
                    f" {', '.join(directions)}"
                )
            stages.append(Stage(name, tuple(given.over), tuple(objectives), tuple(directions), tuple(given.overrides)))
        searched = {root for stage in stages for root in stage.over}
        for key in keys:
            if _root(key) not in searched:
                raise ConfigError(f"sweep: {key} is swept over, and no stage searches there.{nearest(_root(key), searched)}")
        return stages

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler for one trial: seeded by its number, so that no two workers draw the same."""
        name = self.draws["_target_"].rpartition(".")[2]
        if (needed := NEEDS.get(name)) and find_spec(needed) is None:
            raise ConfigError(f"sweep/sampler: {name} needs {needed}, not installed here: pip install {needed}")
        seed = {} if name == "GridSampler" else {"seed": (self.config.seed * 100_003 + number) % 2**32}
        try:
            made: optuna.samplers.BaseSampler = instantiate({**self.draws, **seed})
        except Exception as error:
            cause = error.__cause__ or error
            raise ConfigError(f"sweep/sampler: {name}: {str(cause).splitlines()[0]}") from None
        return made

    def _rehearsed(self, stages: Sequence[Stage], spaces: Sequence[SearchSpace]) -> list[rehearsal.Stage]:
        """What a dry run says of each stage."""
        return [
            rehearsal.Stage(stage.name, stage.over, stage.objectives, len(each.drawn()), self.compose(self._fixed(stage)))
            for stage, each in zip(stages, spaces, strict=True)
        ]

    def _content(self, base: Mapping[str, Any], folds: Sequence[Fold]) -> str:
        """What the trials vary and are judged on: values of studies that differ in it cannot be compared."""
        passing = ("outputs", "output_dir", "tracking", "cache", "sweep", "dry", space.CHOICES)
        content = {key: value for key, value in base.items() if key not in passing}
        settings = self.settings
        return digest(content, folds, settings.label_queries, settings.refit_ranker)

    def _name(self, base: Mapping[str, Any], stages: Sequence[Stage], spaces: Sequence[SearchSpace]) -> str:
        """A name of the sweep's content: who searches the same, on the same data, joins."""
        ways = [base["sweep"][key] for key in ("sampler", "pruner")]
        choices = base[space.CHOICES]
        searched = [[repr(each.keys), repr(each.components)] for each in spaces]
        return f"{choices.get('sweep')}-{choices.get('dataset')}-{digest(self.content, ways, list(stages), searched)[:8]}"

    def _summary(self, stages: Sequence[Stage], studies: Sequence[SharedStudy], parent: Run) -> None:
        plain = [each for each in self.fixed if not each.startswith(("sweep=", "sweep.", "sweep/"))]
        told = [(stage.objectives, shared) for stage, shared in zip(stages, studies, strict=False)]
        groups = set(self.compose(tuple(self.fixed))[space.CHOICES])
        results.tell(self.console, told, plain, groups, parent, Path(self.config.hydra.sweep.dir).resolve())


def _folder(job: JobReturn) -> Path:
    return Path(job.hydra_cfg.hydra.runtime.output_dir).resolve()  # type: ignore[union-attr]


def _root(key: str) -> str:
    return key.lstrip("+~").partition("@")[0].partition(".")[0]


def _workers(config: DictConfig) -> int:
    """How many jobs the launcher runs at a time."""
    count = int(config.hydra.launcher.get("n_jobs", 1))
    return count if count > 0 else max((os.cpu_count() or 1) + 1 + count, 1)


def _check_discrete(spaces: Sequence[SearchSpace]) -> None:
    for each in spaces:
        for name, distribution in each.drawn().items():
            if isinstance(distribution, optuna.distributions.FloatDistribution) and distribution.step is None:
                raise ConfigError(f"sweep/sampler=grid: {name} has no steps; give it a range with a step or a choice")


def _first_error(shared: SharedStudy) -> str:
    failed: list[FrozenTrial] = [trial for trial in shared.finished() if ERROR in trial.user_attrs]
    return f"; trial {failed[0].number}: {failed[0].user_attrs[ERROR]}" if failed else ""
