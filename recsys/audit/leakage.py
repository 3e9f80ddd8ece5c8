"""A leakage certificate: what a recommender makes of the past depends neither on what came after nor on what it brought.

Three kinds of proof. *Invariance*: with the future deleted or scrambled, and under other names and dates, everything has to be
the same to the last bit. It finds what reaches the future through the data that was handed over, and what knows users, items
and dates from elsewhere. *Chance*: from a past that tells nothing, nothing may be better than chance on the true answers.
*Disguise*: where users and items have other numbers as well, lists have to be as good as before. It finds what knows them by
number, or by what they did. Each fit runs in a fresh process, and the first one has never seen the future.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

from recsys.audit import asked, chance, fitted, invariance
from recsys.audit.certificate import Check
from recsys.audit.disguise import YEARS, disguised, moved, renamed, uninformative_past
from recsys.audit.fresh import FitError, Fresh
from recsys.audit.trace import Order, Trace, settings_of, trace
from recsys.audit.worlds import scrambled_future, without_future
from recsys.errors import UserError
from recsys.recommender import TwoStageRecommender
from recsys.shop.pools import Ranking
from recsys.shop.shop import Shop
from recsys.shop.splits import Split, Task, Window

Build = Callable[[], TwoStageRecommender]
"""Makes the recommender that is audited, not fitted."""

SHUFFLES = 4


def audit(
    world: Shop, split: Split, build: Build, seed: int = 0, k: int = 10, processes: Fresh | None = None
) -> tuple[list[Check], Ranking | None, Task]:
    """Do every check; gives them with the lists of the world as it is (20 deep) and the task that they answer.

    Two whole fits, and the first stage some more times, all of them from the settings of what `build` makes, in `processes` or
    in new ones. Label windows that reach past the test cutoff are not fitted at all: there are no lists then.

    Raises `ConfigError` for a component that another process cannot import, and whatever stops the fit on the data as they are.
    """
    fold = split.fold(world)
    test = split.test_task(world, fold.test)
    labels = [split.label_task(world, window) for window in fold.labels]
    checks = [
        invariance.past(world, test),
        invariance.labels_before_test(world, fold, labels, test),
        asked.answers(world, test, split),
        asked.share(world, test, split),
    ]
    if any(window.end > fold.test.cutoff for window in fold.labels):
        return checks, None, test
    with nullcontext(processes) if processes else Fresh() as fresh:
        fits = _Fits(fresh, world, split, build(), test, labels, seed)
        deleted, base = fits.both()
        if isinstance(deleted, Check):
            return [*checks, deleted], base.lists, test
        other = invariance.Compare(deleted, fits.again)
        checks += other.whole("deleted", base)
        checks += other.same("future scrambled", "the future scrambled", fits.scrambled, "something there reads the future")
        if fits.windows:
            why = "the labels leak into them"
            checks += other.same("label window scrambled", "the first label window scrambled", fits.scrambled_label, why)
        checks += _names(other, fits)
        if not other.random:
            checks += chance.uninformative(fits.placebo, seed, k)
            checks += fits.in_disguise.checks(deleted, fits.disguised, k)
        checks += [
            fits.here(base, build()),
            fitted.files(base, deleted),
            fitted.shuffled_labels(base, SHUFFLES),
            fitted.injected(base, test),
            fitted.ties(base, test.truth, k),
        ]
    return checks, base.lists, test


def _names(other: invariance.Compare, fits: "_Fits") -> list[Check]:
    """Under other names and dates; where that makes a difference, under each alone, to tell which."""
    why = {
        "own ids renamed": ("other own ids and texts", "something there knows users, items or words by name, from elsewhere"),
        "times shifted": ("all times 28 years later", "something there knows dates, from elsewhere"),
    }
    both = other.same("other names and dates", "other own ids, texts and dates", lambda: fits.under(True, True), "")
    if other.random or both[0].outcome == "pass":
        return both
    apart = [
        *other.same("own ids renamed", *_with(why["own ids renamed"], lambda: fits.under(True, False))),
        *other.same("times shifted", *_with(why["times shifted"], lambda: fits.under(False, True))),
    ]
    return apart if any(check.outcome == "fail" for check in apart) else both


def _with(words: tuple[str, str], make: Callable[[], Trace]) -> tuple[str, Callable[[], Trace], str]:
    return words[0], make, words[1]


class _Fits:
    """The fits of one audit, each in a fresh process. The first has not seen the future; the others open its ranker."""

    def __init__(
        self,
        fresh: Fresh,
        world: Shop,
        split: Split,
        recommender: TwoStageRecommender,
        test: Task,
        labels: list[Task],
        seed: int,
    ) -> None:
        self.fresh, self.world, self.test, self.labels, self.seed = fresh, world, test, labels, seed
        self.cutoff = test.window.cutoff
        self.windows: dict[int, Window] = {}
        if recommender.ranker.learns:
            self.windows = {i: task.window for i, task in enumerate(labels, start=1)}
        self.past = without_future(world, self.cutoff)
        users = test.queries.user
        self.in_disguise = chance.InDisguise(disguised(self.past, self.cutoff, users, seed), users, test.truth, seed)
        self.order = Order(settings_of(recommender, split), self.cutoff, self.windows, test.queries.user, seed=seed)
        self.folder = fresh.place()

    def both(self) -> tuple[Trace | Check, Trace]:
        """The fit without the future, then the one on the data as they are. A check where only the first one stops."""
        failed: FitError | UserError | None = None
        try:
            first = self.fresh.trace(
                self.past, replace(self.order, save=self.folder / "model", made_up=[self.in_disguise.pairs])
            )
            self.reopens = first.reopens
        except (FitError, UserError) as error:
            failed = error
        try:
            whole = replace(self.order, save=self.folder / "whole", truth=self.test.truth, shuffles=SHUFFLES)
            base = self.fresh.trace(self.world, whole)
        except (FitError, UserError) as error:
            raise failed or error from None
        return (invariance.stops("future deleted", "the future deleted", failed) if failed else first), base

    def again(self) -> Trace:
        """The first fit once more."""
        return self.fresh.trace(self.past, replace(self.order, save=self.folder / "again"))

    def here(self, base: Trace, recommender: TwoStageRecommender) -> Check:
        """In this process, where data were loaded and perhaps fits were made before, the lists are those of a fresh one."""
        order = self._going_on({})
        try:
            parts = trace(self.world, order, recommender).parts
        except Exception as error:  # a component of the user's may raise anything
            return invariance.stops("fresh process", "what is left in memory of loads and fits", error)
        return invariance.in_memory(base, parts)

    def scrambled(self) -> Trace:
        """Another future, the test cutoff alone."""
        world = scrambled_future(self.world, self.cutoff, self.seed)
        return self.fresh.trace(world, self._going_on({}))

    def scrambled_label(self) -> Trace:
        """Another future from the first label cutoff on, that label window alone, with its true labels."""
        number, window = next(iter(self.windows.items()))
        world = scrambled_future(self.world, window.cutoff, self.seed)
        return self.fresh.trace(world, replace(self.order, windows={number: window}, labels=self.labels[:1], users=None))

    def under(self, names: bool, dates: bool) -> Trace:
        """Other names, other dates: the first label window and the test cutoff."""
        world = renamed(self.past, self.seed) if names else self.past
        by = YEARS if dates else 0
        return self.fresh.trace(moved(world, by), self._going_on(dict(list(self.windows.items())[:1]), by))

    def placebo(self) -> chance.Placebo:
        """A past that tells nothing; the ranker learns from its last label window."""
        shop, number = uninformative_past(self.past, self.seed)
        placebo = chance.Placebo.of(shop, number, self.test.truth, self.seed)
        order = replace(self.order, windows=dict(list(self.windows.items())[-1:]), made_up=placebo.pairs)
        placebo.trace = self.fresh.trace(shop, order)
        return placebo

    def disguised(self) -> Trace:
        """The past in disguise, the test cutoff alone."""
        disguise = self.in_disguise.disguise
        order = self._going_on({}, YEARS)
        users, made_up = disguise.user[self.test.queries.user], [self.in_disguise.pairs_there]
        return self.fresh.trace(disguise.shop, replace(order, users=users, made_up=made_up))

    def _going_on(self, windows: dict[int, Window], by: int = 0) -> Order:
        """With the ranker of the first fit and these label windows, `by` later; where it cannot be opened, a whole fit."""
        windows = windows if self.reopens else self.windows
        later = {i: Window(window.cutoff + by, window.end + by) for i, window in windows.items()}
        order = replace(self.order, cutoff=self.cutoff + by, windows=later)
        return replace(order, ranker=self.folder / "model" / "ranker") if self.reopens else order
