"""Pickles that are read, and pickles that would run code, exhaust the memory or crash Python."""

from __future__ import annotations

import pickle
import struct
from typing import Any

import numpy as np
import pytest

from nnopt.data import plain_pickle
from nnopt.data.plain_pickle import Bytes, read_plain_pickle


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_and_containers_are_read(protocol: int, order: Any) -> None:
    array = np.array(np.arange(12).reshape(3, 4), np.uint8, order=order)
    value = {"data": array, b"labels": [1, -2, 2**70, 0.5, None, True], "names": ["ä", b"\xff"]}
    found = read_plain_pickle(pickle.dumps(value, protocol))
    assert isinstance(found["data"], Bytes)
    assert np.array_equal(found["data"].array, array)
    assert found[b"labels"] == value[b"labels"]  # type: ignore[index]
    assert found["names"] == value["names"]


def test_text_of_python_2_is_read_as_bytes() -> None:
    assert read_plain_pickle(b"\x80\x02}q\x01U\x04dataq\x02U\x03\x00\xffaq\x03s.") == {
        b"data": b"\x00\xffa"
    }


HOSTILE = {
    "deep list": b"]" * 500_000 + b"a" * 499_999 + b".",
    "deep tuple as a key": b"}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
    "tuples of tuples as a key": b"}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s.",
    "giant memo index": b"Nr\xff\xff\xff\x7fh\x05.",
    "giant bytes": b"\x8e" + struct.pack("<Q", 2**62) + b"a.",
    "giant number": b"\x8b" + struct.pack("<i", 2**30) + b"a.",
    "number of many digits": b"L" + b"9" * 100_000 + b"L\n.",
    "no end": b"]",
    "empty": b"",
    "nothing on the stack": b".",
    "call of an array": b"cnumpy\nndarray\n)R.",
    "state of a dictionary": b"}}b.",
    "extension": b"\x82\x01.",
    "persistent id": b"Px\n.",
    "object": b"(cnumpy\ndtype\no.",
    "dictionary with a key without a value": b"(K\x01d.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_content_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, LookupError)):
        read_plain_pickle(content)


def test_repeated_encoding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 32 KB that encodes 1,000 characters 1,000 times would need 1 MB of memory."""
    monkeypatch.setattr(plain_pickle, "MAX_ENCODED_BYTES", 100_000)
    text = b"X" + struct.pack("<I", 1_000) + b"a" * 1_000
    once = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    with pytest.raises(ValueError, match="unpacks to more than 100,000 bytes"):
        read_plain_pickle(text + b"q\x00" + once * 1_000 + b".")
