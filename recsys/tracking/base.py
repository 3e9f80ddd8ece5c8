"""The protocol: a tracker gives out runs, a run takes what is to be kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recsys.component import Component, component

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recsys.datasets.base import Dataset

PARENT_RUN = "RECSYS_PARENT_RUN"
"""Environment variable that tells the jobs of a multirun, in whatever process, the id of their parent run."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Run:
    """One run to record into. This base records nothing."""

    id: str = ""
    uri: str = ""
    """Absolute URI of the store."""
    url: str = ""
    """The run's page in the UI: on the server, or where `ui_command` starts one."""
    table: str = ""
    """The page with the table of runs."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Record metrics. `ndcg@10` becomes `ndcg_at_10`; a value that is not finite is left out."""

    def curve(self, name: str, steps: Sequence[int], values: Sequence[float]) -> None:
        """Record one metric at many steps, which the UI draws; name and values as in `metrics`."""

    def tag(self, name: str, value: object) -> None:
        """Set a tag; a list is joined by spaces."""

    def dataset(self, dataset: "Dataset") -> None:
        """Record the run's input: name, fingerprint, source and summary. Name and fingerprint become tags as well."""

    def describe(self, text: str) -> None:
        """Say in Markdown what came of the run."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a copy of a file, in `folder` of the run's artifacts. Nothing inside is redacted."""

    def folder(self, path: Path, name: str) -> None:
        """Keep a copy of what a folder holds as the artifact folder `name`. Nothing inside is redacted."""

    def model(self, path: Path, describe: Callable[[Path, Path], None]) -> None:
        """Keep the folder of a saved model as the artifact folder `model`, ready to be served, unless `log_model` is off;
        with `register` as a new version of the registered model of that name.

        `describe(model, folder)` writes what a server needs beside the model's own files into a new folder.
        """

    def figure(self, figure: "Figure", name: str) -> None:
        """Keep a matplotlib figure, as PNG unless `name` has another ending."""

    def text(self, text: str, name: str) -> None:
        """Keep text as the file `name`, without known secrets."""

    def json(self, values: Mapping[str, Any], name: str) -> None:
        """Keep plain values as the JSON file `name`, redacted."""


@component
class Tracker(Component):
    """Gives out runs to record into. This base keeps nothing."""

    @contextmanager
    def run(
        self, name: str, config: Mapping[str, Any], tags: Mapping[str, object] | None = None, parent: str | None = None
    ) -> Iterator[Run]:
        """A run for the length of a `with` block, with the resolved `config` (plain values) and `tags`, see `Run.tag`.

        `parent` is the id of the run that this one is a job of, by default what the environment says (`PARENT_RUN`).
        """
        yield Run()

    def describe(self, text: str, columns: Sequence[str]) -> None:
        """Say in Markdown what the runs are, and which metrics their table shows; the first is what it is sorted by.

        What somebody has said already stays.
        """

    def start_parent(self, name: str, tags: Mapping[str, object] | None = None) -> str:
        """Start the parent of all runs of this process and its workers until `end_parent`; gives its id."""
        return ""

    def end_parent(self, run_id: str, status: Status = "FINISHED") -> None:
        """End the parent. One that is still running when the process leaves is marked as killed."""

    def join_parent(self, run_id: str) -> Run:
        """Let the runs of this process and its workers be children of a run that another process may have started.

        Gives that run to record into; it runs again if it had ended.
        """
        return Run()


@component
class NoTracking(Tracker):
    """Keeps nothing."""
