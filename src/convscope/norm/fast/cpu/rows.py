"""Kernels for channels_last maps and (N, C): rows of all channels; each pass reads memory anew."""

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

_ROWS = 64
"""Numbers that are added up in float32, at least."""


@kernel
def moments(x: Any, rows: int, mean: Any, squares: Any, first: int, last: int) -> None:
    """Write mean and squared deviations, (parts, C) in float64, of parts of some rows each; x is (R, C).

    Deviations are taken from the mean of the block before, which is read in the same pass; where that is far
    off, from the block's own.
    """
    channels = x.shape[1]
    shift = np.empty(channels, np.float32)
    missed = np.empty(channels, np.float32)
    square = np.empty(channels, np.float32)
    height = max(4 * BLOCK // channels, _ROWS)
    for part in range(first, last):
        count = 0.0
        mean[part] = 0.0
        squares[part] = 0.0
        whole = x[part * rows : (part + 1) * rows]
        for start in range(0, len(whole), height):
            block = whole[start : start + height]
            if start == 0:
                _average(block, shift)
            _deviations(block, shift, missed, square)
            if start and _is_far_off(missed, square, len(block)):
                _average(block, shift)
                _deviations(block, shift, missed, square)
            more = np.float64(len(block))
            share, between = more / (count + more), count * more / (count + more)
            for c in range(channels):
                residual = np.float64(missed[c]) / more
                center = np.float64(shift[c]) + residual
                step = center - mean[part, c]
                mean[part, c] += step * share
                own = max(np.float64(square[c]) - residual * np.float64(missed[c]), 0.0)
                squares[part, c] += own + step * step * between
                shift[c] = center
            count += more


@summing
def _average(x: Any, mean: Any) -> None:
    mean[:] = ZERO
    for r in range(len(x)):
        values = x[r]
        for c in range(len(mean)):
            mean[c] += widened(values[c])
    for c in range(len(mean)):
        mean[c] /= np.float32(len(x))


@summing
def _deviations(x: Any, shift: Any, first: Any, second: Any) -> None:
    """Write Σ (x − shift) and Σ (x − shift)²."""
    first[:] = ZERO
    second[:] = ZERO
    for r in range(len(x)):
        values = x[r]
        for c in range(len(shift)):
            deviation = deviation_of(values[c], shift[c])
            first[c] += deviation
            second[c] += deviation * deviation


@summing
def _is_far_off(first: Any, second: Any, count: int) -> bool:
    """Whether some shift misses its mean by more than four standard deviations: then digits are lost."""
    far_off = 0
    for c in range(len(first)):  # a channel with NaN isn't, nor does it hide others
        far_off += np.float32(17) * first[c] * first[c] > np.float32(16 * count) * second[c]
    return far_off > 0


@kernel
def affine(layer: Any, statistics: Any, scales: Any) -> None:
    """Write scale and offset of y = (x − shift) scale + offset, from γ, β, ε and the statistics."""
    weight, bias, eps = layer
    _, residual, variance = statistics
    scale, offset = scales
    for c in range(len(weight)):
        scale[c], offset[c] = affine_of(weight[c], bias[c], residual[c], variance[c], eps)


@kernel
def settle(
    means: Any, squares: Any, rows: int, height: int, layer: Any, statistics: Any, scales: Any
) -> None:
    """Write the statistics of all parts together, and scale and offset of y = (x − shift) scale + offset.

    Args:
        means: what :func:`moments` wrote, as are the squares.
        squares: (parts, C), float64.
        rows: of a part.
        height: rows of all parts.
        layer: γ, β and ε.
        statistics: for shift, residual and variance.
        scales: for scale and offset.
    """
    shift, residual, variance = statistics
    for part in range(1, len(means)):
        count, more = np.float64(part * rows), np.float64(min(rows, height - part * rows))
        share, between = more / (count + more), count * more / (count + more)
        for c in range(len(shift)):
            step = means[part, c] - means[0, c]
            means[0, c] += step * share
            squares[0, c] += squares[part, c] + step * step * between
    for c in range(len(shift)):
        shift[c] = means[0, c]
        residual[c] = means[0, c] - np.float64(shift[c])
        variance[c] = squares[0, c] / height
    affine(layer, statistics, scales)


@kernel
def forward(x: Any, y: Any, shift: Any, scale: Any, bias: Any, shape: Any, first: int, last: int) -> None:
    """Write y of rows first … last."""
    slope, low, high = shape
    for r in range(first, last):
        values, out = x[r], y[r]
        for c in range(x.shape[1]):
            put(out, c, activated(deviation_of(values[c], shift[c]), scale[c], bias[c], slope, low, high))


@kernel
def products(
    dy: Any,
    x: Any,
    rows: int,
    shift: Any,
    scale: Any,
    bias: Any,
    shape: Any,
    sums: Any,
    first: int,
    last: int,
) -> None:
    """Write Σ q and Σ q (x − shift), both (parts, C) in float64, of parts of some rows each."""
    slope, low, high = shape
    sum_q, sum_q_deviation = sums
    channels = x.shape[1]
    total, product = np.empty(channels, np.float32), np.empty(channels, np.float32)
    height = max(4 * BLOCK // channels, _ROWS)
    for part in range(first, last):
        sum_q[part] = 0.0
        sum_q_deviation[part] = 0.0
        upper = min((part + 1) * rows, len(x))
        for start in range(part * rows, upper, height):
            total[:] = ZERO
            product[:] = ZERO
            for r in range(start, min(start + height, upper)):
                gradients, values = dy[r], x[r]
                for c in range(channels):
                    deviation = deviation_of(values[c], shift[c])
                    q = upstream(gradients[c], deviation, scale[c], bias[c], slope, low, high)
                    total[c] += q
                    product[c] += q * deviation
            for c in range(channels):
                sum_q[part, c] += np.float64(total[c])
                sum_q_deviation[part, c] += np.float64(product[c])


@kernel
def backward(
    dy: Any,
    x: Any,
    dx: Any,
    shift: Any,
    scale: Any,
    bias: Any,
    shape: Any,
    slopes: Any,
    first: int,
    last: int,
) -> None:
    """Write dx of rows first … last."""
    slope, low, high = shape
    inclination, rest = slopes
    for r in range(first, last):
        gradients, values, out = dy[r], x[r], dx[r]
        for c in range(x.shape[1]):
            deviation = deviation_of(values[c], shift[c])
            q = upstream(gradients[c], deviation, scale[c], bias[c], slope, low, high)
            put(out, c, q * scale[c] + (deviation * inclination[c] + rest[c]))


@kernel
def settle_gradients(
    shares: Any, height: int, eps: Any, statistics: Any, scale: Any, sums: Any, slopes: Any
) -> None:
    """Write Σ q, Σ q x̂ of all parts together, and slope and offset of the gradient.

    Args:
        shares: what :func:`products` wrote.
        height: rows of all parts.
        eps: ε.
        statistics: shift, residual and variance.
        scale: of y = (x − shift) scale + offset.
        sums: for Σ q and Σ q x̂.
        slopes: for slope and offset.
    """
    _, residual, variance = statistics
    totals, products = shares
    inclination, rest = slopes
    for part in range(1, len(totals)):
        for c in range(len(scale)):
            totals[0, c] += totals[part, c]
            products[0, c] += products[part, c]
    for c in range(len(scale)):
        sums[0][c] = totals[0, c]
        sums[1][c], inclination[c], rest[c] = slopes_of(
            scale[c], totals[0, c], products[0, c], residual[c], variance[c], eps, np.float64(height)
        )
