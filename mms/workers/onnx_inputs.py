"""Inputs of an ONNX model and the arrays made for them from JSON, with refusals that name input and expectation; pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mms.errors import BadInput, InvalidModel

Array = NDArray[Any]

_TYPES: dict[str, type[np.generic] | type[object]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}
_TAKES = {"f": "iuf", "i": "iu", "u": "iu", "b": "b", "O": "U"}
_WORDS = {"f": "numbers", "i": "integers", "u": "integers", "b": "booleans", "O": "strings"}


class InputSpec:
    """One input: its name, element type and shape; None stands for an axis whose length the model leaves open."""

    def __init__(self, name: str, kind: str, shape: Sequence[int | str | None]) -> None:
        if kind not in _TYPES:
            raise InvalidModel(f"The input '{name}' has the type {kind}, which JSON cannot give.")
        self.name = name
        self.dtype: np.dtype[Any] = np.dtype(_TYPES[kind])
        self.shape = tuple(axis if isinstance(axis, int) and axis >= 0 else None for axis in shape)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def scalar(self) -> bool:
        """True where it has no axes at all."""
        return not self.shape

    @property
    def free_rows(self) -> bool:
        """True where the length of the first axis is open."""
        return bool(self.shape) and self.shape[0] is None

    @property
    def has_rows(self) -> bool:
        """True where the first axis may be one row long."""
        return bool(self.shape) and self.shape[0] in (None, 1)

    def array(self, value: Any) -> Array:
        """The array that `value` (nested lists) stands for, of this input's type. Raises BadInput."""
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError):
            raise BadInput(f"The input '{self.name}' is not an array: its lists differ in length.") from None
        kind = self.dtype.kind
        if array.size and array.dtype.kind not in _TAKES[kind]:
            raise BadInput(f"The input '{self.name}' must hold {_WORDS[kind]} ({self.dtype.name}).")
        if array.size and kind in "iu":
            limits = np.iinfo(self.dtype)
            if int(array.min()) < limits.min or int(array.max()) > limits.max:
                raise BadInput(f"The input '{self.name}' must be {limits.min} to {limits.max} ({self.dtype.name}).")
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array.astype(self.dtype)) if array.ndim else array.astype(self.dtype)

    def check_shape(self, array: Array) -> None:
        """Raise BadInput where the shape is not this input's."""
        fits = array.ndim == self.rank and all(
            wanted is None or wanted == given for wanted, given in zip(self.shape, array.shape, strict=False)
        )
        if not fits:
            raise BadInput(f"The input '{self.name}' must have the shape {self.words}; it has {list(array.shape)}.")

    @property
    def words(self) -> str:
        """The shape for people; `n` where any length will do."""
        return "[" + ", ".join("n" if axis is None else str(axis) for axis in self.shape) + "]"


def random_row(spec: InputSpec, free: int, generator: np.random.Generator) -> Array:
    """One row of made-up values for `spec`; open axes after the first are `free` long, integers are 0 or 1."""
    shape = () if spec.scalar else (1, *(free if axis is None else axis for axis in spec.shape[1:]))
    if spec.dtype.kind == "f":
        return np.asarray(generator.random(shape)).astype(spec.dtype)
    values = np.asarray(generator.integers(0, 2, shape))
    return values.astype(str).astype(object) if spec.dtype.kind == "O" else values.astype(spec.dtype)
