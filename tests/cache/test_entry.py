import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.cache import entry


@given(st.data())
def test_a_change_of_any_byte_is_noticed(tmp_path_factory, data):
    content = data.draw(st.binary(min_size=1, max_size=3 * entry.BLOCK))
    place, change = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    changed = bytearray(content)
    changed[place] ^= change
    assert_noticed(tmp_path_factory.mktemp("entry") / "draft", content, changed)


@pytest.mark.parametrize("size", [entry.BLOCK, entry.CHUNK, entry.CHUNK + 3 * entry.BLOCK])
def test_two_blocks_in_each_others_place_and_a_block_of_zeros_are_noticed(tmp_path, size):
    content = bytes(range(251)) * (2 * size // 251)
    first, second, rest = content[:size], content[size : 2 * size], content[2 * size :]
    assert_noticed(tmp_path / "swapped", content, second + first + rest)
    assert_noticed(tmp_path / "lost", content, first + bytes(len(second)) + rest)


def assert_noticed(draft, content, changed):
    entry.begin(draft)
    (draft / "values").write_bytes(content)
    entry.seal(draft)
    (draft / "values").write_bytes(changed)
    with pytest.raises(ValueError, match="values is not as it was written"):
        entry.verify(draft)
    (draft / "values").write_bytes(content)
    entry.verify(draft)
