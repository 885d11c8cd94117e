"""Whether two object graphs are the same in type, value and identity of their parts.

Used to hold what the codec brings against what pickle brings: walked side by side, two places of
one graph must be the same object exactly when those places of the other graph are.
"""

from __future__ import annotations

import array
import collections
import copyreg
import decimal
import struct
import types
from typing import Any

Unwalked = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


def assert_alike(expected: Any, found: Any) -> None:
    """Raises AssertionError, with the path to the first difference."""
    _Walk().compare(expected, found, "event")


class _Walk:
    def __init__(self) -> None:
        # Both graphs are alive during the walk, so that an id stands for one object.
        self.partners: dict[int, int] = {}
        self.origins: dict[int, int] = {}

    def compare(self, expected: Any, found: Any, path: str) -> None:
        assert type(expected) is type(found), f"{path}: {type(expected)} became {type(found)}"
        met = id(expected) in self.partners
        partner = self.partners.setdefault(id(expected), id(found))
        origin = self.origins.setdefault(id(found), id(expected))
        assert partner == id(found), f"{path}: a part that was shared is not any more"
        assert origin == id(expected), f"{path}: two parts became one"
        if met or expected is found:
            return
        self.compare_value(expected, found, path)
        self.compare_attributes(expected, found, path)

    def compare_value(self, expected: Any, found: Any, path: str) -> None:
        if isinstance(expected, Unwalked):
            raise AssertionError(f"{path}: {expected!r} became {found!r}")
        if isinstance(expected, float):
            assert struct.pack("d", expected) == struct.pack("d", found), path
        elif isinstance(expected, (list, tuple)):
            walk: Any = list.__iter__ if isinstance(expected, list) else tuple.__iter__
            self.compare_items(list(walk(expected)), list(walk(found)), path)
        elif isinstance(expected, (set, frozenset, collections.deque)):
            self.compare_items(list(expected), list(found), path)
        elif isinstance(expected, dict):
            self.compare_dict(expected, found, path)
        elif isinstance(expected, BaseException):
            self.compare(expected.args, found.args, f"{path}.args")
        elif hasattr(expected, "__array_interface__"):
            self.compare_array(expected, found, path)
        elif isinstance(expected, (str, bytes, bytearray, int, complex, array.array)):
            assert repr(expected) == repr(found), path
        elif isinstance(expected, decimal.Decimal):
            assert expected.compare_total(found) == 0, path
        elif not hasattr(expected, "__dict__") and not _slot_names(expected):
            assert expected == found, path

    def compare_items(self, expected: list[Any], found: list[Any], path: str) -> None:
        assert len(expected) == len(found), f"{path}: {len(expected)} items became {len(found)}"
        for index, (left, right) in enumerate(zip(expected, found)):
            self.compare(left, right, f"{path}[{index}]")

    def compare_dict(self, expected: Any, found: Any, path: str) -> None:
        left, right = list(dict.items(expected)), list(dict.items(found))
        assert len(left) == len(right), f"{path}: {len(left)} items became {len(right)}"
        for (left_key, left_value), (right_key, right_value) in zip(left, right):
            self.compare(left_key, right_key, f"{path}: key {left_key!r}")
            self.compare(left_value, right_value, f"{path}[{left_key!r}]")

    def compare_array(self, expected: Any, found: Any, path: str) -> None:
        assert (expected.dtype, expected.shape) == (found.dtype, found.shape), path
        assert expected.strides == found.strides, path
        assert str(expected.flags) == str(found.flags), path
        if expected.dtype.hasobject:
            self.compare_items(expected.reshape(-1).tolist(), found.reshape(-1).tolist(), path)
        else:
            assert expected.tobytes("A") == found.tobytes("A"), path

    def compare_attributes(self, expected: Any, found: Any, path: str) -> None:
        left, right = getattr(expected, "__dict__", {}), getattr(found, "__dict__", {})
        if isinstance(left, dict):
            assert list(left) == list(right), f"{path}: {list(left)} became {list(right)}"
            for name in left:
                self.compare(left[name], right[name], f"{path}.{name}")
        for name in _slot_names(expected):
            assert hasattr(expected, name) == hasattr(found, name), f"{path}.{name}"
            if hasattr(expected, name):
                self.compare(getattr(expected, name), getattr(found, name), f"{path}.{name}")


def _slot_names(value: Any) -> list[str]:
    names: list[str] = copyreg._slotnames(type(value))  # type: ignore[attr-defined]
    return names
