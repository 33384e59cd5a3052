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


@summing
def _sum(values: Any) -> Any:
    total = 0.0
    for i in range(len(values)):
        total += np.float64(values[i])
    return total


@kernel
def forward(
    x: Any, y: Any, weight: Any, bias: Any, eps: Any, shape: Any, statistics: Any, first: int, last: int
) -> None:
    """As ``planes_forward``, for short planes: some channels together, column by column of (N, C L)."""
    slope, low, high = shape
    shift, residual, variance = statistics
    samples, _, length = x.shape
    together = max(BLOCK // 4 // length, 1)
    centers, scales, offsets, sums, squares = np.empty(together * length, np.float32), np.empty(together * length, np.float32), np.empty(together * length, np.float32), np.empty(together * length, np.float32), np.empty(together * length, np.float32)
    count = np.float64(samples * length)
    for start in range(first, last, together):
        end = min(start + together, last)
        width = (end - start) * length
        sums[:width] = ZERO
        for n in range(samples):
            values = x[n, start:end].reshape(width)
            for i in range(width):
                sums[i] += widened(values[i])
        for c in range(start, end):
            shift[c] = _sum(sums[(c - start) * length : (c + 1 - start) * length]) / count
            centers[(c - start) * length : (c + 1 - start) * length] = shift[c]
        sums[:width] = ZERO
        squares[:width] = ZERO
        for n in range(samples):
            values = x[n, start:end].reshape(width)
            for i in range(width):
                deviation = deviation_of(values[i], centers[i])
                sums[i] += deviation
                squares[i] += deviation * deviation
        for c in range(start, end):
            missed = _sum(sums[(c - start) * length : (c + 1 - start) * length]) / count
            square = _sum(squares[(c - start) * length : (c + 1 - start) * length]) / count
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
    """As ``planes_backward``, for short planes."""
    slope, low, high = shape
    shift, residual, variance = statistics
    sum_q, sum_q_xhat = sums
    samples, _, length = x.shape
    together = max(BLOCK // 4 // length, 1)
    centers, scales, offsets, totals, products = np.empty(together * length, np.float32), np.empty(together * length, np.float32), np.empty(together * length, np.float32), np.empty(together * length, np.float32), np.empty(together * length, np.float32)
    count = np.float64(samples * length)
    for start in range(first, last, together):
        end = min(start + together, last)
        width = (end - start) * length
        for c in range(start, end):
            scale, offset = affine_of(weight[c], bias[c], residual[c], variance[c], eps)
            centers[(c - start) * length : (c + 1 - start) * length] = shift[c]
            scales[(c - start) * length : (c + 1 - start) * length] = scale
            offsets[(c - start) * length : (c + 1 - start) * length] = offset
        totals[:width] = ZERO
        products[:width] = ZERO
        for n in range(samples):
            gradients, values = dy[n, start:end].reshape(width), x[n, start:end].reshape(width)
            for i in range(width):
                deviation = deviation_of(values[i], centers[i])
                q = upstream(gradients[i], deviation, scales[i], offsets[i], slope, low, high)
                totals[i] += q
                products[i] += q * deviation
        for c in range(start, end):
            total = _sum(totals[(c - start) * length : (c + 1 - start) * length])
            product = _sum(products[(c - start) * length : (c + 1 - start) * length])
            scale = scales[(c - start) * length]
            xhat, inclination, rest = slopes_of(scale, total, product, residual[c], variance[c], eps, count)
            sum_q[c], sum_q_xhat[c] = total, xhat
            totals[(c - start) * length : (c + 1 - start) * length] = rest
            products[(c - start) * length : (c + 1 - start) * length] = inclination
        for n in range(samples):
            gradients, values = dy[n, start:end].reshape(width), x[n, start:end].reshape(width)
            out = dx[n, start:end].reshape(width)
            for i in range(width):
                deviation = deviation_of(values[i], centers[i])
                q = upstream(gradients[i], deviation, scales[i], offsets[i], slope, low, high)
                put(out, i, q * scales[i] + (deviation * products[i] + totals[i]))
