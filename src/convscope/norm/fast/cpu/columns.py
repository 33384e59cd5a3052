"""Kernels for small contiguous maps: some channels at a time, whose maps lie side by side in each sample."""

from typing import Any

import numpy as np

from convscope.norm.fast.cpu.arithmetic import (
    BLOCK,
    ZERO,
    activated,
    affine_of,
    deviation_of,
    kernel,
    put,
    slopes_of,
    summing,
    upstream,
    widened,
)

_SAMPLES = 256
"""So many numbers are added up in float32."""


@summing
def _gather(columns: Any, length: int, totals: Any) -> None:
    """Add the sums of columns to those of their channels, ``length`` columns each, in float64."""
    for c in range(len(columns) // length):
        total = 0.0
        for i in range(c * length, (c + 1) * length):
            total += np.float64(columns[i])
        totals[c] += total


@kernel
def forward(
    x: Any, y: Any, weight: Any, bias: Any, eps: Any, shape: Any, statistics: Any, first: int, last: int
) -> None:
    """As ``planes.forward``, for short planes: some channels together, column by column of (N, C L)."""
    slope, low, high = shape
    shift, residual, variance = statistics
    samples, _, length = x.shape
    together = max(BLOCK // 4 // length, 1)
    centers, sums = np.empty(together * length, np.float32), np.empty(together * length, np.float32)
    squares = np.empty(together * length, np.float32)
    scales, offsets = np.empty(together * length, np.float32), np.empty(together * length, np.float32)
    total, product = np.empty(together), np.empty(together)
    count = np.float64(samples * length)
    for start in range(first, last, together):
        end = min(start + together, last)
        width = (end - start) * length
        total[:] = 0.0
        for part in range(0, samples, _SAMPLES):
            sums[:width] = ZERO
            for n in range(part, min(part + _SAMPLES, samples)):
                values = x[n, start:end].reshape(width)
                for i in range(width):
                    sums[i] += widened(values[i])
            _gather(sums[:width], length, total)
        for c in range(start, end):
            shift[c] = total[c - start] / count
            centers[(c - start) * length : (c + 1 - start) * length] = shift[c]
        total[:] = 0.0
        product[:] = 0.0
        for part in range(0, samples, _SAMPLES):
            sums[:width] = ZERO
            squares[:width] = ZERO
            for n in range(part, min(part + _SAMPLES, samples)):
                values = x[n, start:end].reshape(width)
                for i in range(width):
                    deviation = deviation_of(values[i], centers[i])
                    sums[i] += deviation
                    squares[i] += deviation * deviation
            _gather(sums[:width], length, total)
            _gather(squares[:width], length, product)
        for c in range(start, end):
            missed, square = total[c - start] / count, product[c - start] / count
            residual[c], variance[c] = missed, max(square - missed * missed, 0.0)
            scale, offset = affine_of(weight[c], bias[c], residual[c], variance[c], eps)
            scales[(c - start) * length : (c + 1 - start) * length] = scale
            offsets[(c - start) * length : (c + 1 - start) * length] = offset
        for n in range(samples):
            values, out = x[n, start:end].reshape(width), y[n, start:end].reshape(width)
            for i in range(width):
                deviation = deviation_of(values[i], centers[i])
                put(out, i, activated(deviation, scales[i], offsets[i], slope, low, high))


@kernel
def backward(
    dy: Any, x: Any, dx: Any, weight: Any, bias: Any, eps: Any, shape: Any, statistics: Any, sums: Any,
    first: int, last: int,
) -> None:  # fmt: skip
    """As ``planes.backward``, for short planes."""
    slope, low, high = shape
    shift, residual, variance = statistics
    sum_q, sum_q_xhat = sums
    samples, _, length = x.shape
    together = max(BLOCK // 4 // length, 1)
    centers, totals = np.empty(together * length, np.float32), np.empty(together * length, np.float32)
    products = np.empty(together * length, np.float32)
    scales, offsets = np.empty(together * length, np.float32), np.empty(together * length, np.float32)
    total, product = np.empty(together), np.empty(together)
    count = np.float64(samples * length)
    for start in range(first, last, together):
        end = min(start + together, last)
        width = (end - start) * length
        for c in range(start, end):
            scale, offset = affine_of(weight[c], bias[c], residual[c], variance[c], eps)
            centers[(c - start) * length : (c + 1 - start) * length] = shift[c]
            scales[(c - start) * length : (c + 1 - start) * length] = scale
            offsets[(c - start) * length : (c + 1 - start) * length] = offset
        total[:] = 0.0
        product[:] = 0.0
        for part in range(0, samples, _SAMPLES):
            totals[:width] = ZERO
            products[:width] = ZERO
            for n in range(part, min(part + _SAMPLES, samples)):
                gradients, values = dy[n, start:end].reshape(width), x[n, start:end].reshape(width)
                for i in range(width):
                    deviation = deviation_of(values[i], centers[i])
                    q = upstream(gradients[i], deviation, scales[i], offsets[i], slope, low, high)
                    totals[i] += q
                    products[i] += q * deviation
            _gather(totals[:width], length, total)
            _gather(products[:width], length, product)
        for c in range(start, end):
            scale, whole, moment = scales[(c - start) * length], total[c - start], product[c - start]
            xhat, inclination, rest = slopes_of(scale, whole, moment, residual[c], variance[c], eps, count)
            sum_q[c], sum_q_xhat[c] = whole, xhat
            totals[(c - start) * length : (c + 1 - start) * length] = rest
            products[(c - start) * length : (c + 1 - start) * length] = inclination
        for n in range(samples):
            gradients, values = dy[n, start:end].reshape(width), x[n, start:end].reshape(width)
            out = dx[n, start:end].reshape(width)
            for i in range(width):
                deviation = deviation_of(values[i], centers[i])
                q = upstream(gradients[i], deviation, scales[i], offsets[i], slope, low, high)
                put(out, i, q * scales[i] + (deviation * products[i] + totals[i]))
