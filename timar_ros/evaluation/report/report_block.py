"""A report's numbers as one block of bytes, and references into it, for ``report/src/payload.ts``."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

UNKNOWN = -32768
"""The 16-bit value for NaN."""


class Block:
    """Collects arrays; each ``add`` returns the reference that goes into the page's JSON."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, values: npt.ArrayLike) -> dict[str, Any]:
        """Numbers as 16 bits each, scaled by column; NaN stays. The error is below 1/65000 of a column's range.

        :param values: [T] or [T, K].
        """
        array = np.asarray(values, np.float64)
        table = array.reshape(len(array), -1) if array.ndim > 1 else array[:, None]
        known = np.isfinite(table)
        low = np.where(known, table, np.inf).min(axis=0, initial=np.inf)
        high = np.where(known, table, -np.inf).max(axis=0, initial=-np.inf)
        low, high = np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)
        offset = 0.5 * (low + high)
        scale = np.maximum(high - low, 1e-12) / 65534.0
        # Half the range to each side, and one value to spare for "not known".
        whole = np.where(known, np.round((np.where(known, table, 0.0) - offset) / scale), UNKNOWN)
        reference = self._put(whole.clip(UNKNOWN, 32767).astype("<i2").tobytes(), "i16", array.shape)
        reference["scale"] = [float(f"{value:.9g}") for value in scale]
        reference["offset"] = [float(f"{value:.9g}") for value in offset]
        return reference

    def add_exact(self, values: npt.ArrayLike) -> dict[str, Any]:
        """Numbers as 32-bit floats: for times, which must stay exact."""
        array = np.asarray(values, "<f4")
        return self._put(array.tobytes(), "f32", array.shape)

    def add_bytes(self, values: npt.ArrayLike) -> dict[str, Any]:
        """Small numbers (0 to 255) as one byte each."""
        array = np.asarray(values, np.uint8)
        return self._put(array.tobytes(), "u8", array.shape)

    def add_integers(self, values: npt.ArrayLike) -> dict[str, Any]:
        """Unsigned 32-bit integers (indices of a mesh)."""
        array = np.asarray(values, "<u4")
        return self._put(array.tobytes(), "u32", array.shape)

    def _put(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
        reference = {"at": self._size, "dtype": dtype, "shape": list(shape)}
        padded = data + bytes(-len(data) % 4)
        self._parts.append(padded)
        self._size += len(padded)
        return reference

    def base64(self) -> str:
        """The whole block as text."""
        return base64.b64encode(b"".join(self._parts)).decode("ascii")
