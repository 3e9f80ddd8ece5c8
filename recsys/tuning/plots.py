"""Pictures of a study, as Optuna draws them, with names that fit."""

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import matplotlib.pyplot as plt
import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState
from optuna.visualization import matplotlib as visual

SHOWN = 10
"""Most parameters in a plot."""
INCHES, LEAST = 2.0, 12.0
"""Width a parameter, and of a plot at least."""


def figures(study: optuna.Study, objectives: Sequence[str]) -> dict[str, Figure]:
    """Those plots that the study has enough trials for; of several objectives the first, and the Pareto front."""
    shown = with_short_names(study)
    params = _most_drawn(shown)
    target: dict[str, Any] = {"target_name": objectives[0]}
    if len(objectives) > 1:
        target["target"] = lambda trial: trial.values[0]
    makers: dict[str, Callable[[], Any]] = {
        "history": lambda: visual.plot_optimization_history(shown, **target),
        "importance": lambda: visual.plot_param_importances(shown, **target),
        "slice": lambda: visual.plot_slice(shown, params=params, **target),
        "parallel_coordinate": lambda: visual.plot_parallel_coordinate(shown, params=params, **target),
    }
    if len(objectives) in (2, 3):
        makers["pareto"] = lambda: visual.plot_pareto_front(shown, target_names=list(objectives))
    made = {}
    for name, make in makers.items():
        before = set(plt.get_fignums())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                axes = make()
                figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
                figure.set_size_inches(max(LEAST, INCHES * len(params)), 7)
                if name != "slice":  # its colour bar belongs to all of its axes
                    figure.tight_layout()
            except (ValueError, RuntimeError, ZeroDivisionError):  # too few trials, or parameters that did not vary
                for number in set(plt.get_fignums()) - before:
                    plt.close(number)
                continue
        made[name] = figure
    return made


def with_short_names(study: optuna.Study) -> optuna.Study:
    """A copy in memory of the trials that ended: `retriever[als].factors` is `factors`, or `als.factors` among several."""
    copy = optuna.create_study(directions=study.directions)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    short = _short({name for trial in trials for name in trial.params})
    for trial in trials:
        copy.add_trial(
            optuna.create_trial(
                state=trial.state,
                values=trial.values,
                params={short[name]: value for name, value in trial.params.items()},
                distributions={short[name]: each for name, each in trial.distributions.items()},
                intermediate_values=trial.intermediate_values,
            )
        )
    return copy


def _short(names: Collection[str]) -> dict[str, str]:
    """The last part of each name, more of it where names share that, all of it where they share more."""
    short = {name: name for name in names}
    for cut in (lambda name: name.rpartition("[")[2].replace("]", ""), lambda name: name.rpartition(".")[2]):
        count = Counter(cut(name) for name in names)
        short |= {name: cut(name) for name in names if count[cut(name)] == 1}
    return short


def _most_drawn(study: optuna.Study) -> list[str]:
    """Parameters of most trials first, so that a plot stays readable."""
    count = Counter(name for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) for name in trial.params)
    return [name for name, _ in count.most_common(SHOWN)]
