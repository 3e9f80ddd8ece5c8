"""A study that many workers share and that outlives each of them: a queue of trials in an Optuna storage.

Every trial begins as WAITING in the storage. A worker claims one by an atomic change of its state and gives signs of life while
it runs; when these stop, the trial counts as lost and a copy with the same parameters waits in its place.
"""

import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, OptunaError, UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from recsys.errors import ConfigError
from recsys.redaction import hide

DEFAULTS = "defaults"
"""Attribute of the trial that is the config as it stands: the parameters that the space holds."""
ERROR = "error"
"""Attribute of a failed trial: what went wrong."""
RANKER_SECONDS = "ranker_seconds"
"""Attribute of a trial: what fitting and scoring its ranker took of its time."""
OBJECTIVES = "objectives"
"""Attribute of a study: the metrics of its values."""
CONTENT = "content"
"""Attribute of a study: a hash of the config that its trials vary and of the windows that they are judged on."""
BEAT = "heartbeat"
"""Attribute of a trial in a journal: when its worker last gave a sign of life."""
POLL = 1.0
"""Seconds between looks at what other workers do."""
JOIN_WAIT = 30.0
"""Seconds to wait for the worker that made the study to get it going."""

warnings.filterwarnings("ignore", category=ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)


class WatchedJournal(JournalStorage, BaseHeartbeat):
    """A journal file with signs of life, which Optuna gives to databases alone. Workers' clocks have to agree."""

    def __init__(self, path: str, heartbeat: int, grace: int, again: RetryHeartbeatStaleTrialCallback) -> None:
        super().__init__(JournalFileBackend(path))
        self.heartbeat_interval, self.grace, self.again = heartbeat, grace, again

    def record_heartbeat(self, trial_id: int) -> None:
        """See Optuna."""
        with suppress(UpdateFinishedTrialError):
            self.set_trial_system_attr(trial_id, BEAT, time.time())

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        return [trial._trial_id for trial in running if time.time() - trial.system_attrs.get(BEAT, 0) > self.grace]

    def get_heartbeat_interval(self) -> int:
        """See Optuna."""
        return self.heartbeat_interval

    def get_heartbeat_stale_trial_callback(self) -> RetryHeartbeatStaleTrialCallback:
        """See Optuna."""
        return self.again


Storage = RDBStorage | WatchedJournal


@lru_cache(maxsize=8)
def open_storage(url: str, heartbeat: int, grace: int, retries: int) -> Storage:
    """The storage at an URL of a database, or in a journal file. Raises `ConfigError` when it cannot be opened."""
    again = RetryHeartbeatStaleTrialCallback(max_retry=retries)
    if "://" not in url:
        try:
            return WatchedJournal(url, heartbeat, grace, again)
        except OSError as error:
            raise ConfigError(f"sweep.storage: cannot open {url}: {error.strerror}") from None
    engine = {"connect_args": {"timeout": 100}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for attempt in range(5):
        try:
            storage = RDBStorage(
                url,
                engine_kwargs=engine,
                heartbeat_interval=heartbeat,
                grace_period=grace,
                heartbeat_stale_trial_callback=again,
            )
        except (sqlalchemy.exc.SQLAlchemyError, OptunaError, ImportError) as error:
            if attempt == 4 or isinstance(error, ImportError | sqlalchemy.exc.ArgumentError):
                told = " ".join(str(error).splitlines()[0].split())
                raise ConfigError(f"sweep.storage: cannot open {hide(url)}: {hide(told)}") from None
            time.sleep(0.2 * (attempt + 1))  # another worker is making the tables
        else:
            if url.startswith("sqlite"):
                _one_writer_at_a_time(storage.engine)
            return storage
    raise AssertionError


def try_storage(url: str, heartbeat: int, grace: int, retries: int) -> None:
    """Open the storage as `open_storage` does; a file that was not there before is not there after. Raises as it does."""
    file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") or "://" not in url else None
    there = file is None or file.exists()
    storage = open_storage(url, heartbeat, grace, retries)
    if file and not there:
        open_storage.cache_clear()
        if isinstance(storage, RDBStorage):
            storage.engine.dispose()
        file.unlink(missing_ok=True)


def _one_writer_at_a_time(engine: sqlalchemy.Engine) -> None:
    """Begin each transaction with SQLite's write lock: it has no row locks, and two workers could claim one trial."""

    def manual(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sqlalchemy.event.listen(engine, "connect", manual)
    sqlalchemy.event.listen(engine, "begin", begin)
    engine.dispose()


@dataclass
class SharedStudy:
    """One study as one worker sees it; `total` trials are run by all workers together."""

    study: optuna.Study
    storage: Storage
    total: int
    created: bool
    """Whether this worker made the study."""
    mine: set[int] = field(default_factory=set)
    """Numbers of the trials that this worker claimed."""

    @classmethod
    def open(
        cls,
        storage: Storage,
        name: str,
        total: int,
        objectives: Sequence[str],
        directions: Sequence[str],
        content: str = "",
    ) -> "SharedStudy":
        """Make the study, or join the one of that name. Raises `ConfigError` when that one is about something else."""
        try:
            study = optuna.create_study(
                storage=storage, study_name=name, directions=[StudyDirection[each.upper()] for each in directions]
            )
        except DuplicatedStudyError:
            study = optuna.load_study(study_name=name, storage=storage)
            known = study.user_attrs.get(OBJECTIVES, list(objectives)), [each.name.lower() for each in study.directions]
            if known != (list(objectives), list(directions)):
                told = ", ".join(f"{way} {metric}" for metric, way in zip(*known, strict=False))
                raise ConfigError(f"sweep.study: {name!r} is there already, to {told}; choose another name") from None
            if study.user_attrs.get(CONTENT, content) != content:
                raise ConfigError(
                    f"sweep.study: {name!r} is there already, about another config, data or validation windows, so that its"
                    " values cannot be compared; give the overrides that it began with, or choose another name"
                ) from None
            return cls(study, storage, total, False)
        study.set_user_attr(OBJECTIVES, list(objectives))
        study.set_user_attr(CONTENT, content)
        return cls(study, storage, total, True)

    def begin(self, defaults: dict[str, Any]) -> None:
        """Let the trial of the defaults be the first: by whoever made the study, the others wait for it."""
        start = time.monotonic()
        while not self.created and time.monotonic() - start < JOIN_WAIT:
            if self.own():
                return
            time.sleep(POLL / 5)
        self.study.enqueue_trial(defaults, user_attrs={DEFAULTS: list(defaults)})

    def claim(self, patient: bool = True) -> int | None:
        """The number of the next trial to run, as this worker's own; None when all have ended.

        Waits, if `patient`, while other workers run the last ones: should one of them die, its trial comes back.
        """
        while True:
            optuna.storages.fail_stale_trials(self.study)
            trials = self.own()
            for trial in trials[: self.total]:
                if trial.state == TrialState.WAITING and self._take(trial.number):
                    return trial.number
            if len(trials) < self.total:
                self.study.enqueue_trial({})
            elif patient and any(not trial.state.is_finished() for trial in trials[: self.total]):
                time.sleep(POLL)
            else:
                return None

    def trial(
        self, number: int, sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner | None = None
    ) -> Trial:
        """A claimed trial, to draw parameters for. Hyperband lets a sampler see the trials of its bracket only."""
        name = self.study.study_name
        study = optuna.load_study(study_name=name, storage=self.storage, sampler=sampler, pruner=pruner)
        study.get_trials(deepcopy=False)  # Optuna's cache of the storage knows only trials that it has read
        return Trial(study, self.id_of(number))

    def own(self) -> list[FrozenTrial]:
        """Trials by their place in the queue; one that was lost has given its place to its copy."""
        trials = self.study.get_trials(deepcopy=False)
        lost = {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}
        return sorted((trial for trial in trials if trial.number not in lost), key=_place)

    def finished(self) -> list[FrozenTrial]:
        """Trials that came to an end, those beyond `total` too."""
        return [trial for trial in self.own() if trial.state.is_finished()]

    def id_of(self, number: int) -> int:
        """The storage's id of a trial."""
        return self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    @property
    def _study_id(self) -> int:
        return self.storage.get_study_id_from_name(self.study.study_name)

    def _take(self, number: int) -> bool:
        trial_id = self.id_of(number)
        self.mine.add(number)  # first, for `give_back` to know of it whenever an interrupt comes
        try:
            self.storage.record_heartbeat(trial_id)  # so that a worker that dies here is noticed too
            taken = self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            taken = False
        if not taken:
            self.mine.remove(number)
        return taken

    def give_back(self) -> None:
        """End this worker's trials that were interrupted, and let copies wait in their places."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number in self.mine:
                with suppress(UpdateFinishedTrialError):
                    self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                    RetryHeartbeatStaleTrialCallback()(self.study, self.storage.get_trial(trial._trial_id))

    def end(self, trial: Trial, state: TrialState, values: Sequence[float]) -> None:
        """Tell what a trial came to."""
        try:
            trial.study.tell(trial, list(values) or None, state, skip_if_finished=True)
        except RuntimeError as error:  # a sampler that has tried everything stops a loop, and there is none
            if "stop" not in str(error):
                raise
            self.total = len(self.finished())

    def fail(self, number: int, error: BaseException) -> None:
        """End a trial by its error, which is kept with it."""
        told = " ".join(f"{type(error).__name__}: {error}".split())[:2000]
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(self.id_of(number), ERROR, told)
            self.storage.set_trial_state_values(self.id_of(number), TrialState.FAIL)

    @contextmanager
    def alive(self, number: int) -> Iterator[None]:
        """Give signs of life for the trial while the block runs."""
        storage, trial_id, done = self.storage, self.id_of(number), threading.Event()

        def beat() -> None:
            while not done.wait(storage.heartbeat_interval):
                with suppress(Exception):  # a storage that cannot be reached now may be reached at the next beat
                    storage.record_heartbeat(trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _place(trial: FrozenTrial) -> tuple[int, int]:
    origin = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return (trial.number if origin is None else origin), trial.number
