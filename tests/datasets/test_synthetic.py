import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.datasets.retailrocket import RetailRocket
from recsys.datasets.simulation import START, ShopSettings, Simulated, simulate
from recsys.datasets.synthetic import MARGINALS, SESSION_GAP, Synthetic, marginals, write
from recsys.errors import ConfigError, DataError

WEEK = 7 * 86_400_000
FILES = ["category_tree.csv", "events.csv", "item_properties_part1.csv", "item_properties_part2.csv"]


@pytest.fixture(scope="module")
def shop() -> Simulated:
    return simulate(0.05, seed=7)


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], int]:
    path = Path(__file__).parents[2] / "scripts" / "make_synthetic.py"
    spec = importlib.util.spec_from_file_location("make_synthetic", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def first_times(events: pd.DataFrame, kind: str) -> pd.Series:
    return events[events["event"] == kind].groupby(["visitorid", "itemid"])["timestamp"].min()


def before_it(events: pd.DataFrame, kind: str, earlier: str) -> pd.Series:
    """Milliseconds from the first `earlier` event of the same visitor and item to each event of this kind."""
    later = events[events["event"] == kind]
    pairs = pd.MultiIndex.from_frame(later[["visitorid", "itemid"]])
    return later["timestamp"] - first_times(events, earlier).reindex(pairs).to_numpy()


def revisit_share(events: pd.DataFrame) -> float:
    """Share of purchases whose item the buyer had first seen more than a session's pause before."""
    return float((before_it(events, "transaction", "view") > SESSION_GAP).mean())


def of_items(shop: Simulated, name: str) -> pd.Series:
    """The first value of a property by item."""
    rows = shop.properties[shop.properties["property"] == name]
    return rows.drop_duplicates("itemid").set_index("itemid")["value"]


class TestMarginals:
    def test_measured_on_a_log_worked_by_hand(self) -> None:
        minute = 60_000
        rows = [
            (0, 1, "view", 10),
            (5 * minute, 1, "addtocart", 10),
            (36 * minute, 1, "view", 11),
            (36 * minute, 2, "view", 10),
            (66 * minute, 1, "view", 10),
            (67 * minute, 1, "addtocart", 10),
            (68 * minute, 1, "transaction", 10),
        ]
        found = marginals(pd.DataFrame(rows, columns=["timestamp", "visitorid", "event", "itemid"]))
        assert found == {
            "visitors with 1 event": 1 / 2,
            "visitors with 5 or more events": 1 / 2,
            "visitors with 50 or more events": 0,
            "distinct items a visitor": 3 / 2,
            "sessions a visitor": 3 / 2,  # 31 minutes are a pause, 30 are not
            "view to cart": 2 / 4,
            "cart to purchase": 1 / 2,
            "items with 1 event": 1 / 2,
            "events on the top 100 items": 1,
            "events of the busiest visitor": 6,
            "events": 7,
            "visitors": 2,
            "items with events": 2,
        }

    @pytest.mark.parametrize(("scale", "seed"), [(0.005, 0), (0.005, 1), (0.02, 2), (0.03, 0), (0.1, 3)])
    def test_visitor_and_funnel_shares_hold_at_any_scale(self, scale: float, seed: int) -> None:
        found = marginals(simulate(scale, seed).events)
        for marginal in MARGINALS:
            if marginal.holds != "at full scale":
                assert found[marginal.name] == pytest.approx(marginal.expected(scale), rel=0.1), marginal.name

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", [0, 1])
    def test_every_published_figure_holds_at_full_scale(self, seed: int) -> None:
        found = marginals(simulate(1, seed).events)
        assert {m.name: found[m.name] for m in MARGINALS} == {m.name: pytest.approx(m.published, rel=0.1) for m in MARGINALS}


class TestShop:
    def test_same_seed_same_shop(self) -> None:
        one, again, other = simulate(0.005, 3), simulate(0.005, 3), simulate(0.005, 4)
        for name in ("events", "properties", "tree"):
            pd.testing.assert_frame_equal(getattr(one, name), getattr(again, name))
        assert not one.events["itemid"].equals(other.events["itemid"])

    @settings(max_examples=40, deadline=None)
    @given(
        scale=st.floats(1e-4, 4e-3),
        seed=st.integers(0, 2**32),
        choice=st.builds(
            ShopSettings,
            bots=st.floats(0, 1),
            breaks=st.floats(0, 0.9),
            returns=st.floats(0, 1),
            revisits=st.floats(0, 1),
            delays=st.floats(0, 1),
            focus=st.floats(0, 1),
            neighbourhood=st.integers(0, 50),
            turnover=st.floats(0, 1),
            regulars=st.floats(0, 1),
        ),
    )
    def test_is_possible_whatever_the_settings(self, scale: float, seed: int, choice: ShopSettings) -> None:
        shop = simulate(scale, seed, choice)
        events, properties = shop.events, shop.properties
        assert before_it(events, "addtocart", "view").min() > 0
        assert before_it(events, "transaction", "addtocart").min() > 0
        assert not events.duplicated(["timestamp", "visitorid"]).any()
        known = properties.groupby("itemid")["timestamp"].min()
        assert (events["timestamp"] >= known.reindex(events["itemid"]).to_numpy()).all()
        assert events["timestamp"].between(START, START + 138 * 86_400_000, inclusive="left").all()

    def test_an_order_has_a_number_a_buyer_and_a_session(self, shop: Simulated) -> None:
        bought = shop.events["event"] == "transaction"
        assert shop.events["transactionid"].notna().equals(bought)
        orders = shop.events[bought].groupby("transactionid")
        assert (orders["visitorid"].nunique() == 1).all()
        assert (orders.size() > 1).any()
        assert sorted(orders.groups) == list(range(len(orders)))

    def test_tree_and_properties_have_the_form_of_the_real_ones(self, shop: Simulated) -> None:
        tree, properties = shop.tree, shop.properties
        assert (len(tree), tree["parentid"].isna().sum(), tree["categoryid"].is_unique) == (1669, 25, True)
        assert tree["parentid"].dropna().isin(tree["categoryid"]).all()
        items = properties["itemid"].unique()
        for name in ("categoryid", "available", "790", "888"):
            assert set(of_items(shop, name).index) == set(items)
        assert of_items(shop, "790").str.fullmatch(r"n\d+\.000").all()
        assert of_items(shop, "categoryid").astype(int).isin(set(tree["categoryid"]) - set(tree["parentid"])).all()
        assert ((properties["timestamp"] - START) % WEEK == 0).all()
        assert properties.groupby(["itemid", "property"]).size().max() > 1

    def test_bots_look_much_and_buy_nothing(self, shop: Simulated) -> None:
        size = shop.events.groupby("visitorid").size()
        views = shop.events["event"].eq("view").groupby(shop.events["visitorid"]).all()
        busy = size[size >= 50]
        bots = busy.nlargest(round(len(busy) / 3)).index
        assert views[bots].all()
        assert not views[busy.index.difference(bots)].all()


class TestWorthLearning:
    """What recommenders live on is there, and follows the settings."""

    def test_items_bought_were_often_seen_in_an_earlier_session(self, shop: Simulated) -> None:
        assert 0.4 < revisit_share(shop.events) < 0.75
        always, never = (
            revisit_share(simulate(0.05, 7, ShopSettings(revisits=x, returns=0.0, delays=0.0)).events) for x in (1.0, 0.0)
        )
        assert always > revisit_share(shop.events) > never + 0.2

    def test_visitors_with_a_history_buy_after_the_cutoff_what_they_know_and_what_is_new(self, shop: Simulated) -> None:
        events = shop.events
        cutoff = events["timestamp"].quantile(0.8)
        past, future = events[events["timestamp"] < cutoff], events[events["timestamp"] >= cutoff]
        active = past["visitorid"].value_counts().loc[lambda n: n >= 5].index
        bought = future[(future["event"] == "transaction") & future["visitorid"].isin(active)]
        assert bought["visitorid"].nunique() > 60
        seen = pd.MultiIndex.from_frame(past[["visitorid", "itemid"]])
        revisits = pd.MultiIndex.from_frame(bought[["visitorid", "itemid"]]).isin(seen)
        assert 0.3 < revisits.mean() < 0.8

    def test_a_session_stays_in_its_category(self, shop: Simulated) -> None:
        events = shop.events.sort_values(["visitorid", "timestamp"])
        category = of_items(shop, "categoryid").reindex(events["itemid"]).to_numpy()
        item, visitor, time = (events[c].to_numpy() for c in ("itemid", "visitorid", "timestamp"))
        human = (events.groupby("visitorid")["itemid"].transform("size") < 50).to_numpy()
        step = (np.diff(visitor) == 0) & (np.diff(time) < SESSION_GAP) & (np.diff(item) != 0) & human[1:]
        same = (category[1:] == category[:-1])[step].mean()
        shuffled = np.random.default_rng(0).permutation(category[1:][step])
        assert same > 10 * (shuffled == category[:-1][step]).mean()

    def test_items_seen_together_are_seen_together_again(self, shop: Simulated) -> None:
        """The pairs of the first half recur in the second far more often than if items were drawn by popularity."""
        events = shop.events[shop.events.groupby("visitorid")["itemid"].transform("size") < 50]
        half = events["timestamp"] < events["timestamp"].median()
        rng = np.random.default_rng(0)

        def pairs(log: pd.DataFrame) -> pd.Series:
            looks = log.drop_duplicates(["visitorid", "itemid"])[["visitorid", "itemid"]]
            both = looks.merge(looks, on="visitorid").query("itemid_x < itemid_y")
            return both["itemid_x"] * 1_000_000 + both["itemid_y"]

        old, new = events[half], events[~half]
        mixed = new.assign(itemid=rng.permutation(new["itemid"].to_numpy()))
        known = set(pairs(old))
        assert pairs(new).isin(known).mean() > 5 * pairs(mixed).isin(known).mean()

    def test_demand_rises_and_fades(self, shop: Simulated) -> None:
        week = (shop.events["timestamp"] - START) // WEEK
        top = {w: set(shop.events["itemid"][week == w].value_counts().index[:50]) for w in range(19)}
        near = np.mean([len(top[w] & top[w + 1]) for w in range(8)])
        far = np.mean([len(top[w] & top[w + 10]) for w in range(8)])
        assert near > 1.5 * far
        launched = shop.properties.groupby("itemid")["timestamp"].min()
        novelty = shop.events["itemid"].map(launched > START).groupby(week).mean()
        assert novelty[0] == 0
        assert novelty[18] > 0.3

    def test_what_is_sold_out_is_hardly_seen(self, shop: Simulated) -> None:
        rows = shop.properties[(shop.properties["property"] == "available") & (shop.properties["value"] == "0")]
        gone = rows.set_index("itemid")["timestamp"]
        gone = gone[(gone > START + 4 * WEEK) & (gone < START + 16 * WEEK)]
        seen = shop.events[shop.events["itemid"].isin(gone.index)]
        weeks = (seen["timestamp"] - gone.reindex(seen["itemid"]).to_numpy()) // WEEK
        assert (weeks == 0).sum() < 0.5 * (weeks == -1).sum()

    def test_buyers_prefer_what_is_cheaper_of_a_category(self, shop: Simulated) -> None:
        price = of_items(shop, "790").str.removeprefix("n").astype(float)
        level = price.groupby(of_items(shop, "categoryid")).rank(pct=True)
        carts = shop.events[shop.events["event"] == "addtocart"]
        viewed_only = shop.events[~shop.events["visitorid"].isin(carts["visitorid"])]
        assert 0.01 < viewed_only["itemid"].map(level).mean() - carts["itemid"].map(level).mean() < 0.1


class TestSource:
    def test_its_files_are_read_as_the_same_shop(self, tmp_path: Path) -> None:
        made = Synthetic(scale=0.005, seed=2).load()
        write(simulate(0.005, 2), tmp_path / "new" / "shop")
        assert sorted(path.name for path in (tmp_path / "new" / "shop").iterdir()) == FILES
        read = RetailRocket(path=str(tmp_path / "new" / "shop"), properties="all").load()
        assert read.log.fingerprint == made.log.fingerprint
        assert len(read.catalogue) == len(made.catalogue)
        for name in ("category", "price", "available"):
            np.testing.assert_array_equal(getattr(read.catalogue, name), getattr(made.catalogue, name))
        assert (made.catalogue.category >= 0).all()
        assert (made.catalogue.price > 0).all()
        known_only = RetailRocket(path=str(tmp_path / "new" / "shop")).load()
        assert known_only.log.fingerprint == made.log.fingerprint

    def test_seeds_give_other_shops(self) -> None:
        prints = {Synthetic(scale=0.005, seed=seed).load().fingerprint for seed in (0, 1, 0)}
        assert len(prints) == 2

    def test_a_failed_write_leaves_the_folder_as_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "events.csv").write_text("the old one")
        to_csv = pd.DataFrame.to_csv

        def full(frame: pd.DataFrame, path: Path, **options: object) -> None:
            if Path(path).name == "category_tree.csv":
                raise OSError(28, "No space left on device")
            to_csv(frame, path, **options)

        monkeypatch.setattr(pd.DataFrame, "to_csv", full)
        with pytest.raises(DataError, match="No space left on device"):
            write(simulate(0.001), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["events.csv"]
        assert (tmp_path / "events.csv").read_text() == "the old one"

    def test_wrong_arguments_are_refused(self) -> None:
        for scale in (0, -1, 1e-6, float("nan"), float("inf")):
            with pytest.raises(ConfigError, match="scale: wanted at least"):
                simulate(scale)
        with pytest.raises(ConfigError, match="do not fit into 138 days"):
            simulate(0.3, settings=ShopSettings(bots=0, breaks=1))
        for wrong in ({"returns": 1.1}, {"memory": 0}, {"pace": 0}, {"loyality": 1}):
            with pytest.raises(ValidationError):
                ShopSettings(**wrong)
        with pytest.raises(ValidationError):
            Synthetic(scale=0)


class TestScript:
    def test_writes_the_files_and_says_what_to_do_next(self, main, tmp_path: Path, capsys) -> None:
        assert main(["--scale", "0.002", "--seed", "1", "--out", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert sorted(path.name for path in tmp_path.iterdir()) == FILES
        assert all(marginal.name in printed for marginal in MARGINALS)
        assert f"python train.py dataset=retailrocket dataset.path={tmp_path}" in printed
        assert len(pd.read_csv(tmp_path / "events.csv")) == len(simulate(0.002, 1).events)

    def test_a_mistake_is_told_in_one_line(self, main, tmp_path: Path, capsys) -> None:
        assert main(["--scale", "0", "--out", str(tmp_path / "shop")]) == 1
        assert capsys.readouterr().err.startswith("error: scale: wanted at least")
        assert not (tmp_path / "shop").exists()
        (tmp_path / "file").touch()
        assert main(["--scale", "0.001", "--out", str(tmp_path / "file")]) == 1
        assert "cannot be written" in capsys.readouterr().err
