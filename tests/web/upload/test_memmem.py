"""The search for boundaries finds what Python's own search finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.upload.memmem import find

few_bytes = st.binary().map(lambda drawn: bytes(byte % 3 for byte in drawn))


@given(few_bytes, few_bytes.filter(len))
def test_it_says_what_pythons_search_says(haystack: bytes, needle: bytes) -> None:
    assert find(memoryview(bytearray(haystack)), needle) == haystack.find(needle)
    assert find(memoryview(haystack), needle) == haystack.find(needle)


@pytest.mark.parametrize("at", [0, 1, 4096, 99_990])
def test_what_lies_behind_the_view_is_not_searched(at: int) -> None:
    buffer = bytearray(200_000)
    buffer[at : at + 10] = b"\0needle!!\0"
    assert find(memoryview(buffer)[: at + 10], b"\0needle!!\0") == at
    assert find(memoryview(buffer)[: at + 9], b"\0needle!!\0") == -1
    assert find(memoryview(buffer)[at + 1 :], b"\0needle!!\0") == -1
