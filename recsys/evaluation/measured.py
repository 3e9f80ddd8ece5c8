"""What a run measures, by name: everything that its tables, its comparisons and its sweeps may speak of."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recsys.errors import ConfigError, nearest
from recsys.evaluation import attribution, beyond, diagnosis, metrics, ties

FINAL, FIRST = "two_stage", "retrieval"
"""The systems that every run has: its lists, and those of the first stage alone."""

FAVOURED = ("ndcg", "hit_rate", "mrr", "recall")
"""Metrics that are shown where nothing else is said, the leading one first."""
FAVOURED_K = 10

KINDS = ("revisit", "discovery")
"""Targets that are in the query's history, and those that are not."""

UNFORETOLD = ("queries/", "seconds/")
"""Where counts and timings stand: their names hang on what the split drops and on the stages that run."""


@dataclass(frozen=True)
class Measured:
    """The names of what a run measures, from its settings alone."""

    metrics: tuple[str, ...]
    """Metrics without k, those of the user's own by the last part of their path."""
    ks: tuple[int, ...]
    """Lengths of the lists that they are taken at."""
    shown: tuple[str, ...]
    """Metrics with k that the tables show, the leading one first."""
    candidate_ks: tuple[int, ...]
    """Depths of the candidate recall curve."""
    systems: tuple[str, ...]
    """Baselines, then the two stages."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Measured":
        """From the settings of `evaluation` as a config holds them; those of older versions say neither `metrics` nor `shown`.

        Raises `ConfigError` where `shown` names a metric that is not measured.
        """
        found = tuple(path.rpartition(".")[2] for path in settings.get("metrics") or metrics.BUILT_IN)
        ks = tuple(settings["ks"])
        shown = tuple(settings.get("shown") or _favoured(found, ks))
        known = metrics.names(ks, found)
        for name in shown:
            if name not in known:
                raise ConfigError(f"evaluation.shown: no {name!r} among evaluation.metrics and ks.{nearest(name, known)}")
        systems = (*settings["baselines"], FIRST, FINAL)
        return cls(found, ks, shown, tuple(settings["candidate_ks"]), systems)

    @property
    def leading(self) -> str:
        """The metric that verdicts, sweeps and the first column speak of."""
        return self.shown[0]

    @property
    def k(self) -> int:
        """Length of the lists that diagnosis and verdict speak of: that of the leading metric."""
        return int(self.leading.rpartition("_at_")[2])

    @property
    def diagnosed(self) -> tuple[str, ...]:
        """Metrics of the diagnosis, without k: HitRate and the leading one.

        NDCG takes its place where the leading one is HitRate itself, or has no ceiling that is known (see `metrics.RELEVANCE`).
        """
        leading = self.leading.rpartition("_at_")[0]
        return "hit_rate", leading if leading in metrics.RELEVANCE and leading != "hit_rate" else "ndcg"

    @property
    def apart(self) -> tuple[str, ...]:
        """Metrics, without k, of revisit and discovery targets apart: HitRate, the leading one, Recall."""
        return tuple(dict.fromkeys(("hit_rate", self.leading.rpartition("_at_")[0], "recall")))

    @property
    def names(self) -> tuple[str, ...]:
        """Every metric at every k, as `metrics.per_query` calls them."""
        return metrics.names(self.ks, self.metrics)

    def shown_of(self, systems: Collection[str]) -> tuple[str, ...]:
        """What is shown, of these systems, by full names."""
        return tuple(f"{system}/{name}" for system in systems for name in self.shown)

    def per_query(self, candidates: int) -> list[str]:
        """Metrics of which a run keeps the value of each query; `candidates` is how many the ranker gets."""
        each = [f"{system}/{name}" for system in self.systems for name in self.names]
        within = [k for k in self.candidate_ks if k <= candidates] or [candidates]
        depths = [*within, *(k for k in self.candidate_ks if k > candidates)]
        return [*each, *(f"candidates/recall_at_{k}" for k in depths), "candidates/count"]

    def logged(self, candidates: int, sources: Sequence[str], folds: int) -> list[str]:
        """Everything that `metrics.json` may hold, except what stands under `UNFORETOLD`.

        `sources` label the candidates, `folds` is the number of test windows. A figure that the data does not define, such as
        that of a cohort without a query, is left out of the file.
        """
        accuracy = self.per_query(candidates)
        depth = max(*self.candidate_ks, 2 * candidates)
        means = list(
            dict.fromkeys(
                [
                    *accuracy,
                    *(f"{FINAL}/{name}_at_{self.k}" for name in self.diagnosed),
                    *(f"{s}/{kind}/{name}_at_{self.k}" for kind in KINDS for s in self.systems for name in self.apart),
                    *(f"beyond/{system}/{name}" for system in self.systems for name in (*beyond.PER_QUERY, beyond.LIFT)),
                    *diagnosis.names(self.k, self.diagnosed, depth),
                    *(f"ties/{name}" for name in ties.names(self.k, self.diagnosed)),
                    *(f"attribution/{source}/{name}" for source in sources for name in attribution.NAMES),
                ]
            )
        )
        of_all = [f"beyond/{system}/{name}" for system in self.systems for name in beyond.OF_ALL]
        bounds = [f"interval/{name}/{bound}" for name in means for bound in ("low", "high")]
        of_table = [name for name in accuracy if self.is_shown(name)]
        of_folds = [f"fold/{i}/{name}" for i in range(folds) for name in (*of_table, "queries/count")] if folds > 1 else []
        return [*means, *of_all, *bounds, *(f"mde/{name}" for name in of_table), *of_folds]

    def is_shown(self, name: str) -> bool:
        """Whether a full name is that of a shown metric, of whatever system."""
        return name.rpartition("/")[2] in self.shown


def _favoured(found: Sequence[str], ks: Sequence[int]) -> Iterator[str]:
    """The favoured metrics that are measured, then those of the user's own (all, where there are none of either), at one k."""
    k = FAVOURED_K if FAVOURED_K in ks else max(ks)
    chosen = [*(name for name in FAVOURED if name in found), *(name for name in found if name not in metrics.BUILT_IN)]
    return (f"{name}_at_{k}" for name in chosen or found)
