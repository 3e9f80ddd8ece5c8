import numpy as np
import pytest

from recsys.digest import digest
from recsys.shop.identity import Vocabulary


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        ([1, [2]], [[1], 2]),
        (np.zeros(2, np.int32), np.zeros(1, np.int64)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (1, "1"),
        (np.array(["a", "b"], dtype=object), np.array(["b", "a"], dtype=object)),
        ({"a": 1}, {"a": 2}),
        (Vocabulary(np.array([1, 2])), Vocabulary(np.array([2, 1]))),
    ],
)
def test_different_content_has_a_different_digest(one, other):
    assert digest(one) != digest(other)


def test_equal_content_has_an_equal_digest():
    values = np.arange(12).reshape(3, 4)
    assert digest(values) == digest(np.asfortranarray(values))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(Vocabulary(np.arange(5)).prefix(3)) == digest(Vocabulary(np.arange(3)))
