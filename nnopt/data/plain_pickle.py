"""Reads pickles of plain containers, numbers, texts and arrays of bytes without running code.

A pickle is a program for a stack machine (see ``pickletools``). ``_Machine`` executes only the
instructions for plain values. It calls no function from the file, allocates at most a few times the
size of the file, and hashes only texts. So a hostile file can neither run code, nor exhaust the
memory, nor crash Python by deep nesting.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_INSTRUCTIONS = 400_000  # CIFAR-10's files have about 40,000
MAX_ENCODED_BYTES = 2**26  # limit of bytes stored as text, as Python 3 does in protocols 0 to 2

RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
ARRAY, DTYPE, ENCODE = "numpy.ndarray", "numpy.dtype", "_codecs.encode"

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
_PYTHON_2_BYTES = ("STRING", "BINSTRING", "SHORT_BINSTRING")
_MARK = object()
_BYTE_TYPE = object()  # the type ``u1`` of NumPy, the only one that is allowed


class RefusedError(ValueError):
    """The pickle is damaged or contains a value that is not plain."""


class Name:
    """The name of a function or class in the pickle: ``module.attribute``."""

    def __init__(self, name: str) -> None:
        if name not in (*RECONSTRUCT, ARRAY, DTYPE, ENCODE):
            raise RefusedError(f"it names {name}, which is not allowed")
        self.name = name


class Bytes:
    """An array of bytes. ``array`` is None until the pickle sets shape and contents."""

    array: NDArray[np.uint8] | None = None

    def build(self, state: Any) -> None:
        """Set shape and contents from the state of a NumPy array."""
        _version, shape, kind, is_fortran, content = state
        if kind is not _BYTE_TYPE or not isinstance(content, bytes):
            raise RefusedError("it holds an array of another type than bytes")
        if not isinstance(shape, tuple) or not all(type(x) is int and x >= 0 for x in shape):
            raise RefusedError("it holds an array whose shape is not valid")
        order: Any = "F" if is_fortran is True else "C"
        self.array = np.frombuffer(content, dtype=np.uint8).reshape(shape, order=order)


def read_plain_pickle(content: bytes) -> Any:
    """Return the value in a pickle. A damaged pickle raises ValueError or another Exception."""
    machine = _Machine()
    for count, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        if count > MAX_INSTRUCTIONS:
            raise RefusedError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
        if instruction.name == "STOP":
            return machine.pop()
        machine.execute(instruction.name, argument)
    raise RefusedError("it is incomplete: the end marker is missing")


class _Machine:
    """A stack machine for the instructions of a pickle, with its stack and its memo."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._encoded = 0
        self._methods: dict[str, Callable[[], None]] = {
            "MARK": lambda: self._stack.append(_MARK),
            "EMPTY_DICT": lambda: self._stack.append({}),
            "EMPTY_LIST": lambda: self._stack.append([]),
            "EMPTY_TUPLE": lambda: self._stack.append(()),
            "DICT": lambda: self._stack.append(self._fill({}, self._to_mark())),
            "LIST": lambda: self._stack.append(self._to_mark()),
            "TUPLE": lambda: self._stack.append(tuple(self._to_mark())),
            "TUPLE1": lambda: self._stack.append(tuple(self._last(1))),
            "TUPLE2": lambda: self._stack.append(tuple(self._last(2))),
            "TUPLE3": lambda: self._stack.append(tuple(self._last(3))),
            "APPEND": lambda: self._extend(self._last(1)),
            "APPENDS": lambda: self._extend(self._to_mark()),
            "SETITEM": lambda: self._set(self._last(2)),
            "SETITEMS": lambda: self._set(self._to_mark()),
            "STACK_GLOBAL": lambda: self._stack.append(Name(".".join(self._last(2)))),
            "MEMOIZE": lambda: self._memo.__setitem__(len(self._memo), self._stack[-1]),
            "REDUCE": self._call,
            "BUILD": self._build,
        }

    def execute(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            self._stack.append(argument)
        elif name in _PYTHON_2_BYTES:
            self._stack.append(argument.encode("latin-1"))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name == "GLOBAL":
            self._stack.append(Name(argument.replace(" ", ".", 1)))
        elif name in self._methods:
            self._methods[name]()
        elif name not in ("PROTO", "FRAME"):
            raise RefusedError(f"it has the instruction {name}, which is not allowed")

    def pop(self) -> Any:
        """Remove and return the top of the stack."""
        return self._last(1)[0]

    def _last(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        if len(items) < count or any(item is _MARK for item in items):
            raise RefusedError("it pops from an empty stack")
        del self._stack[-count:]
        return items

    def _to_mark(self) -> list[Any]:
        """Remove and return the items since the last mark."""
        for start in reversed(range(len(self._stack))):
            if self._stack[start] is _MARK:
                _mark, *items = self._stack[start:]
                del self._stack[start:]
                return items
        raise RefusedError("it pops to a mark, but the stack has none")

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise RefusedError("it appends to a value that is not a list")
        self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise RefusedError("it sets a key of a value that is not a dictionary")
        self._fill(self._stack[-1], items)

    def _fill(self, found: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes):
                raise RefusedError("it has a key that is not a text")
            found[key] = value
        return found

    def _call(self) -> None:
        """Push the equivalent of a function's result. The function itself is never called."""
        function, arguments = self._last(2)
        name = function.name if isinstance(function, Name) else type(function).__name__
        if name in RECONSTRUCT:
            self._stack.append(Bytes())
        elif name == DTYPE:
            if arguments[0] not in ("u1", b"u1"):
                raise RefusedError(f"it holds numbers of type {arguments[0]!r}, expected 'u1'")
            self._stack.append(_BYTE_TYPE)
        elif name == ENCODE:
            self._stack.append(self._encode(*arguments))
        else:
            raise RefusedError(f"it calls {name}, which is not allowed")

    def _encode(self, text: object, encoding: object = None) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise RefusedError("it asks for another codec than latin1")
        self._encoded += len(text)
        if self._encoded > MAX_ENCODED_BYTES:
            raise RefusedError(f"it unpacks to more than {MAX_ENCODED_BYTES:,} bytes")
        return text.encode("latin-1")

    def _build(self) -> None:
        target, state = self._last(2)
        if isinstance(target, Bytes):
            target.build(state)
        elif target is not _BYTE_TYPE:  # the state of the byte type, its byte order, is ignored
            raise RefusedError(f"it sets the state of a {type(target).__name__}, not of an array")
        self._stack.append(target)
