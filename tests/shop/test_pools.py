"""Rankings, candidate pools and truth: their order, their union, their edges."""

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.shop.pairs import pair_key
from recsys.shop.pools import RRF_CONSTANT, CandidatePool, Ranking
from recsys.shop.queries import Truth

N_QUERIES, N_ITEMS = 4, 9

# Few distinct scores, so that most examples hold ties; each (row, item) pair once.
scored_pairs = st.dictionaries(
    st.tuples(st.integers(0, N_QUERIES - 1), st.integers(0, N_ITEMS - 1)),
    st.sampled_from([-1.5, 0.0, -0.0, 0.5, 2.0, np.inf, -np.inf, np.nan]),
)
item_lists = st.lists(st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=5), min_size=N_QUERIES, max_size=N_QUERIES)
source_lists = st.lists(item_lists, min_size=1, max_size=4)
cuts = st.integers(0, 2 * N_ITEMS)


def ranking_of(lists: list[list[int]], k: int = 5) -> Ranking:
    """A ranking with these items a query and scores 10, 9, …"""
    item = np.array([[*items, *[-1] * (k - len(items))] for items in lists], dtype=np.int32).reshape(len(lists), k)
    score = np.where(item >= 0, 10 - np.arange(k), -np.inf).astype(np.float32)
    return Ranking(item, score)


def pool_of(sources: list[list[list[int]]]) -> CandidatePool:
    return CandidatePool.from_rankings({f"s{i}": ranking_of(lists) for i, lists in enumerate(sources)})


def rows_of(pool: CandidatePool) -> list[list[int]]:
    return [pool.item[a:b].tolist() for a, b in zip(pool.indptr[:-1], pool.indptr[1:], strict=True)]


def lists_of(ranking: Ranking) -> list[list[int]]:
    return [[i for i in row if i >= 0] for row in ranking.item.tolist()]


def from_pairs(pairs: list[tuple[tuple[int, int], float]], k: int) -> Ranking:
    row, item = np.array([pair for pair, _ in pairs], dtype=np.int32).reshape(-1, 2).T
    return Ranking.from_rows(row, item, np.array([s for _, s in pairs], dtype=np.float32), N_QUERIES, k)


def same(a: CandidatePool, b: CandidatePool) -> None:
    assert a.sources == b.sources
    for name in ("indptr", "item", "rank", "score", "fusion"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


class TestRanking:
    def test_from_rows_sorts_by_score_then_item_and_pads(self) -> None:
        row = np.array([2, 0, 0, 0, 2], dtype=np.int32)
        item = np.array([4, 7, 3, 5, 1], dtype=np.int32)
        score = np.array([0.5, 1.0, 1.0, 2.0, np.nan], dtype=np.float32)
        ranking = Ranking.from_rows(row, item, score, n_rows=3, k=2)
        assert ranking.item.tolist() == [[5, 3], [-1, -1], [4, -1]]
        assert ranking.score.tolist() == [[2.0, 1.0], [-np.inf, -np.inf], [0.5, -np.inf]]
        assert ranking.length.tolist() == [2, 0, 1]
        assert (ranking.item.dtype, ranking.score.dtype) == (np.int32, np.float32)

    @given(scored_pairs, cuts)
    def test_from_rows_is_a_plain_sort(self, scored: dict[tuple[int, int], float], k: int) -> None:
        expected = [
            sorted((-score, item) for (row, item), score in scored.items() if row == r and score > -np.inf)[:k]
            for r in range(N_QUERIES)
        ]
        ranking = from_pairs(list(scored.items()), k)
        assert lists_of(ranking) == [[item for _, item in pairs] for pairs in expected]
        for r, pairs in enumerate(expected):
            assert ranking.score[r, : len(pairs)].tolist() == [-negative for negative, _ in pairs]
            assert (ranking.item[r, len(pairs) :] == -1).all()
            assert (ranking.score[r, len(pairs) :] == -np.inf).all()

    @given(scored_pairs, st.randoms(use_true_random=False))
    def test_order_does_not_depend_on_row_order(self, scored: dict[tuple[int, int], float], random) -> None:
        pairs = list(scored.items())
        shuffled = random.sample(pairs, len(pairs))
        a, b = from_pairs(pairs, 3), from_pairs(shuffled, 3)
        np.testing.assert_array_equal(a.item, b.item)
        np.testing.assert_array_equal(a.score, b.score)

    @given(scored_pairs, st.integers(0, 6), st.integers(0, 6))
    def test_top_lists_nest(self, scored: dict[tuple[int, int], float], a: int, b: int) -> None:
        short, long = sorted((a, b))
        pairs = list(scored.items())
        np.testing.assert_array_equal(from_pairs(pairs, long).top(short).item, from_pairs(pairs, short).item)


class TestUnion:
    def test_ranks_scores_and_fusion_by_hand(self) -> None:
        likes = Ranking(np.array([[5, 2], [7, -1]], np.int32), np.array([[0.9, 0.4], [0.8, -np.inf]], np.float32))
        popular = Ranking(np.array([[2, 8], [-1, -1]], np.int32), np.array([[30, 20], [-np.inf, -np.inf]], np.float32))
        pool = CandidatePool.from_rankings({"likes": likes, "popular": popular})
        assert pool.sources == ("likes", "popular")
        assert pool.indptr.tolist() == [0, 3, 4]
        assert pool.item.tolist() == [2, 5, 8, 7]
        assert pool.row.tolist() == [0, 0, 0, 1]
        assert pool.rank.tolist() == [[2, 1, 0, 1], [1, 0, 2, 0]]
        nan = np.nan
        np.testing.assert_array_equal(pool.score, np.array([[0.4, 0.9, nan, 0.8], [30, nan, 20, nan]], dtype=np.float32))
        np.testing.assert_allclose(pool.fusion, [1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 61], rtol=1e-6)
        assert lists_of(pool.retrieved(3)) == [[2, 5, 8], [7]]
        assert (len(pool), pool.n_queries) == (4, 2)
        np.testing.assert_array_equal(pool.reciprocal_rank("likes"), [1 / 62, 1 / 61, 0, 1 / 61])
        assert (pool.rank.dtype, pool.score.dtype, pool.fusion.dtype) == (np.int16, np.float32, np.float64)

    @given(source_lists)
    def test_holds_what_every_source_said(self, sources: list[list[list[int]]]) -> None:
        fusion: defaultdict[tuple[int, int], float] = defaultdict(float)
        for lists in sources:
            for row, items in enumerate(lists):
                for rank, item in enumerate(items, start=1):
                    fusion[row, item] += 1 / (RRF_CONSTANT + rank)
        pool = pool_of(sources)
        assert list(zip(pool.row.tolist(), pool.item.tolist(), strict=True)) == sorted(fusion)
        np.testing.assert_allclose(pool.fusion, [fusion[pair] for pair in sorted(fusion)], rtol=1e-6)
        for s, lists in enumerate(sources):
            for n, (row, item) in enumerate(sorted(fusion)):
                rank = lists[row].index(item) + 1 if item in lists[row] else 0
                assert pool.rank[s, n] == rank
                assert pool.score[s, n] == 11 - rank if rank else np.isnan(pool.score[s, n])

    @given(source_lists, st.randoms(use_true_random=False))
    def test_order_of_the_sources_does_not_matter(self, sources: list[list[list[int]]], random) -> None:
        rankings = {f"s{i}": ranking_of(lists) for i, lists in enumerate(sources)}
        pool = CandidatePool.from_rankings(rankings)
        shuffled = CandidatePool.from_rankings(dict(random.sample(list(rankings.items()), len(rankings))))
        back = [shuffled.sources.index(name) for name in pool.sources]
        np.testing.assert_array_equal(shuffled.rank[back], pool.rank)
        np.testing.assert_array_equal(shuffled.score[back], pool.score)
        np.testing.assert_array_equal(shuffled.retrieved(N_ITEMS).item, pool.retrieved(N_ITEMS).item)

    def test_two_sources_that_disagree_alike_tie_and_the_lower_item_leads(self) -> None:
        pool = pool_of([[[6, 3]], [[3, 6]]])
        assert pool.fusion[0] == pool.fusion[1]
        assert lists_of(pool.retrieved(2)) == [[3, 6]]
        assert rows_of(pool.top(1)) == [[3]]

    def test_sums_of_the_same_ranks_tie_in_whatever_order_they_are_added(self) -> None:
        pool = pool_of([[[3, 9, 6]], [[6, 3, 9]], [[9, 6, 3]]])
        assert len(set(pool.fusion)) == 1
        assert lists_of(pool.retrieved(3)) == [[3, 6, 9]]

    def test_no_candidate_at_all(self) -> None:
        pool = pool_of([[[], []], [[], []]])
        assert (len(pool), pool.n_queries, pool.rank.shape) == (0, 2, (2, 0))
        assert pool.retrieved(2).item.tolist() == [[-1, -1], [-1, -1]]
        same(pool.top(3), pool)
        same(pool.take(np.array([1, 0])), pool)


class TestPool:
    @given(source_lists, cuts, cuts)
    def test_tops_nest(self, sources: list[list[list[int]]], a: int, b: int) -> None:
        short, long = sorted((a, b))
        pool = pool_of(sources)
        same(pool.top(long).top(short), pool.top(short))
        np.testing.assert_array_equal(pool.retrieved(long).top(short).item, pool.retrieved(short).item)

    @given(source_lists, cuts)
    def test_top_and_retrieved_hold_the_same_items(self, sources: list[list[list[int]]], k: int) -> None:
        pool = pool_of(sources)
        assert rows_of(pool.top(k)) == [sorted(items) for items in lists_of(pool.retrieved(k))]

    @given(source_lists)
    def test_a_score_that_tells_nothing_keeps_retrieval_order(self, sources: list[list[list[int]]]) -> None:
        pool = pool_of(sources)
        assert lists_of(pool.order(np.zeros(len(pool), np.float32), N_ITEMS)) == lists_of(pool.retrieved(N_ITEMS))
        assert lists_of(pool.order(pool.item.astype(np.float32), N_ITEMS)) == [r[::-1] for r in rows_of(pool)]

    @given(source_lists, st.data(), st.integers(0, N_QUERIES), cuts)
    def test_equal_scores_keep_retrieval_order_then_go_by_item(self, sources, data, split: int, k: int) -> None:
        pool = pool_of(sources)
        drawn = st.lists(st.sampled_from([-1.0, 0.0, 2.5]), min_size=len(pool), max_size=len(pool))
        score = np.array(data.draw(drawn), np.float32)
        rows = sorted(zip(pool.row.tolist(), -score, -pool.fusion, pool.item.tolist(), strict=True))
        expected = [[item for row, *_, item in rows if row == q][:k] for q in range(N_QUERIES)]
        ranking = pool.order(score, k)
        assert lists_of(ranking) == expected
        parts = [pool.block(0, split), pool.block(split, N_QUERIES)]
        alone = [part.order(own, k).item for part, own in zip(parts, np.split(score, [pool.indptr[split]]), strict=True)]
        np.testing.assert_array_equal(np.concatenate(alone), ranking.item)

    @given(source_lists, st.data())
    def test_where_keeps_the_marked_rows_and_every_query(self, sources: list[list[list[int]]], data) -> None:
        pool = pool_of(sources)
        keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(pool), max_size=len(pool))), dtype=bool)
        kept = pool.where(keep)
        assert kept.n_queries == pool.n_queries
        np.testing.assert_array_equal(kept.key, pool.key[keep])
        np.testing.assert_array_equal(kept.rank, pool.rank[:, keep])
        np.testing.assert_array_equal(kept.score, pool.score[:, keep])
        np.testing.assert_array_equal(kept.fusion, pool.fusion[keep])

    @given(source_lists, st.lists(st.integers(0, N_QUERIES - 1), max_size=6))
    def test_take_is_the_pool_of_the_taken_lists(self, sources: list[list[list[int]]], rows: list[int]) -> None:
        taken = [[lists[r] for r in rows] for lists in sources]
        same(pool_of(sources).take(np.array(rows, dtype=np.int64)), pool_of(taken))


class TestTruth:
    truth = Truth(np.array([0, 2, 2, 3]), np.array([3, 8, 0], dtype=np.int32), np.array([1.0, 3.0, 2.0], dtype=np.float32))

    def test_grade_of_known_unknown_and_padded_items(self) -> None:
        item = np.array([[8, 3, 5], [3, 8, -1], [0, -1, -1]])
        grade = self.truth.grade_of(np.arange(3)[:, None], item)
        assert grade.tolist() == [[3, 1, 0], [0, 0, 0], [2, 0, 0]]
        assert grade.dtype == np.float32

    def test_without_any_item_every_grade_is_0(self) -> None:
        nothing = Truth(np.zeros(3, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
        assert len(nothing) == 2
        assert nothing.count.tolist() == [0, 0]
        assert nothing.grade_of(np.array([[0], [1]]), np.array([[4, -1], [0, 1]])).tolist() == [[0, 0], [0, 0]]

    def test_count_and_take(self) -> None:
        assert self.truth.count.tolist() == [2, 0, 1]
        taken = self.truth.take(np.array([2, 1, 0, 2]))
        assert taken.count.tolist() == [1, 0, 2, 1]
        assert taken.item.tolist() == [0, 3, 8, 0]
        assert taken.grade.tolist() == [2, 1, 3, 2]

    @given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)), min_size=1))
    def test_pair_keys_order_and_tell_apart_as_pairs_do(self, pairs: list[tuple[int, int]]) -> None:
        row, item = np.array(pairs, dtype=np.int32).T
        keys = pair_key(row, item).tolist()
        assert len(set(keys)) == len(set(pairs))
        assert [pair for _, pair in sorted(zip(keys, pairs, strict=True))] == sorted(pairs)
