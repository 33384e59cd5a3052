"""The arithmetic of all kernels on CPUs, for numba to compile into them.

Each kernel does a range of channels or parts, holds no lock and allocates next to nothing, so that threads
share the work; no result depends on how they do. Sums run in float32 over at most :data:`BLOCK` values, in as
many lanes as the processor has, and in float64 beyond. Deviations are taken from the block's own mean, and
what that mean misses is measured and taken out (see ``engine.statistics``).

bfloat16 comes as its bits, ``uint16``. Only sums may be reassociated: x − shift stays what it is, or means
far from 0 would cost all digits.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

BLOCK = 4096
"""Values that are added up in float32: 16 KiB of them, which stay in the first cache."""

ZERO = np.float32(0)


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a kernel, whose sums may run in any order, at its first call; the code is kept on disk."""
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    compiled: Callable[..., None]
    try:
        compiled = njit(cache=True, **options)(function)
    except RuntimeError:  # no folder can be written to
        compiled = njit(**options)(function)
    return compiled


def summing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a part of a kernel whose sums may run in any order."""
    compiled: Callable[..., Any] = njit(error_model="numpy", fastmath={"reassoc", "contract", "nsz"})(
        function
    )
    return compiled


def exactly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile arithmetic that may be fused, and nothing else."""
    compiled: Callable[..., Any] = njit(error_model="numpy", fastmath={"contract"})(function)
    return compiled


def widened(value: Any) -> Any:
    """A float32 number; given bfloat16's bits, what they stand for."""
    raise NotImplementedError


def put(out: Any, index: int, value: Any) -> None:
    """Write a float32 number, or its bfloat16 bits rounded to nearest, ties to even."""
    raise NotImplementedError


@overload(widened, strict=False)
def _widened_by_type(value: Any) -> Callable[..., Any]:
    if isinstance(value, types.Float):
        return lambda value: value
    return lambda value: np.uint32(np.uint32(value) << 16).view(np.float32)


@overload(put, strict=False)
def _put_by_type(out: Any, index: int, value: Any) -> Callable[..., Any]:  # noqa: ARG001  # numba calls it with these
    if isinstance(out.dtype, types.Float):

        def put(out: Any, index: int, value: Any) -> None:
            out[index] = value

        return put

    def put_bits(out: Any, index: int, value: Any) -> None:
        bits = np.float32(value).view(np.uint32)
        rounded = np.uint16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)
        out[index] = rounded if value == value else np.uint16(0x7FC0)

    return put_bits


@exactly
def deviation_of(value: Any, shift: Any) -> Any:
    """Return x − shift."""
    return widened(value) - shift


@exactly
def activated(deviation: Any, scale: Any, bias: Any, slope: Any, low: Any, high: Any) -> Any:
    """The activation of u = (x − shift) scale + bias."""
    u = deviation * scale + bias
    v = u * slope if u <= ZERO else u
    v = low if v < low else v
    return high if v > high else v


@exactly
def upstream(gradient: Any, deviation: Any, scale: Any, bias: Any, slope: Any, low: Any, high: Any) -> Any:
    """Return q: dy times the activation's derivative at u."""
    u = deviation * scale + bias
    v = u * slope if u <= ZERO else u
    q = widened(gradient)
    q = q * slope if u <= ZERO else q
    return ZERO if (v <= low) | (v >= high) else q


@exactly
def affine_of(weight: Any, bias: Any, residual: Any, variance: Any, eps: Any) -> Any:
    """Scale and bias of x − shift: γ r and β − residual γ r."""
    scale = np.float32(weight / np.sqrt(np.float64(variance) + eps))
    return scale, np.float32(bias - np.float64(residual) * scale)


@exactly
def slopes_of(
    scale: Any, sum_q: Any, sum_q_deviation: Any, residual: Any, variance: Any, eps: Any, count: Any
) -> Any:
    """Σ q x̂, and slope and offset of the gradient scale q + slope (x − shift) + offset."""
    inverse = 1.0 / np.sqrt(np.float64(variance) + eps)
    sum_q_xhat = (sum_q_deviation - residual * sum_q) * inverse
    slope = -np.float64(scale) * inverse * sum_q_xhat / count
    offset = -np.float64(scale) * sum_q / count - residual * slope
    return sum_q_xhat, np.float32(slope), np.float32(offset)
