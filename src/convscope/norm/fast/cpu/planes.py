"""Kernels for contiguous maps: a channel, all its maps in turn, stays in the cache between its passes."""

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
def _block_moments(values: Any) -> Any:
    """Mean and squared deviations of a block, in float64."""
    count = len(values)
    total = ZERO
    for i in range(count):
        total += widened(values[i])
    shift = total / np.float32(count)
    missed, squares = ZERO, ZERO
    for i in range(count):
        deviation = deviation_of(values[i], shift)
        missed += deviation
        squares += deviation * deviation
    residual = np.float64(missed) / count
    return np.float64(shift) + residual, max(np.float64(squares) - count * residual * residual, 0.0)


@summing
def _block_products(gradients: Any, values: Any, shift: Any, terms: Any) -> Any:
    """Σ q and Σ q (x − shift) of a block, in float64."""
    scale, bias, slope, low, high = terms
    total, product = ZERO, ZERO
    for i in range(len(values)):
        deviation = deviation_of(values[i], shift)
        q = upstream(gradients[i], deviation, scale, bias, slope, low, high)
        total += q
        product += q * deviation
    return np.float64(total), np.float64(product)


@kernel
def apply(
    x: Any, y: Any, weight: Any, bias: Any, eps: Any, shape: Any, statistics: Any, first: int, last: int
) -> None:
    """Write y of channels first … last by their statistics (shift, residual, variance); x is (N, C, L)."""
    slope, low, high = shape
    shift, residual, variance = statistics
    for c in range(first, last):
        center = shift[c]
        scale, offset = affine_of(weight[c], bias[c], residual[c], variance[c], eps)
        for n in range(len(x)):
            values, out = x[n, c], y[n, c]
            for i in range(len(values)):
                put(out, i, activated(deviation_of(values[i], center), scale, offset, slope, low, high))


@kernel
def forward(
    x: Any, y: Any, weight: Any, bias: Any, eps: Any, shape: Any, statistics: Any, first: int, last: int
) -> None:
    """Write y and the statistics (shift, residual, variance) of channels first … last; x is (N, C, L)."""
    shift, residual, variance = statistics
    samples, _, length = x.shape
    for c in range(first, last):
        count, mean, squares = 0.0, 0.0, 0.0
        for n in range(samples):
            values = x[n, c]
            for start in range(0, length, BLOCK):
                block = values[start : start + BLOCK]
                block_mean, block_squares = _block_moments(block)
                more = np.float64(len(block))
                step = block_mean - mean
                mean += step * more / (count + more)
                squares += block_squares + step * step * count * more / (count + more)
                count += more
        center = np.float32(mean)
        shift[c], residual[c], variance[c] = center, mean - np.float64(center), squares / count
        apply(x, y, weight, bias, eps, shape, statistics, c, c + 1)


@kernel
def backward(
    dy: Any, x: Any, dx: Any, weight: Any, bias: Any, eps: Any, shape: Any, statistics: Any, sums: Any,
    first: int, last: int,
) -> None:  # fmt: skip
    """Write dx and the sums (Σ q, Σ q x̂) of channels first … last; dy, x and dx are (N, C, L)."""
    slope, low, high = shape
    shift, residual, variance = statistics
    sum_q, sum_q_xhat = sums
    samples, _, length = x.shape
    for c in range(first, last):
        center = shift[c]
        scale, offset = affine_of(weight[c], bias[c], residual[c], variance[c], eps)
        total, product = 0.0, 0.0
        terms = (scale, offset, slope, low, high)
        for n in range(samples):
            gradients, values = dy[n, c], x[n, c]
            for start in range(0, length, BLOCK):
                end = start + BLOCK
                part = _block_products(gradients[start:end], values[start:end], center, terms)
                total += part[0]
                product += part[1]
        count = np.float64(samples * length)
        xhat, inclination, rest = slopes_of(scale, total, product, residual[c], variance[c], eps, count)
        sum_q[c], sum_q_xhat[c] = total, xhat
        for n in range(samples):
            gradients, values, out = dy[n, c], x[n, c], dx[n, c]
            for i in range(length):
                deviation = deviation_of(values[i], center)
                q = upstream(gradients[i], deviation, scale, offset, slope, low, high)
                put(out, i, q * scale + (deviation * inclination + rest))
