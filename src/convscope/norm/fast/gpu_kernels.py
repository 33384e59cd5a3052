"""Triton kernels of batch norm and a piecewise linear activation, for both memory layouts.

A tile is ``VALUES`` values of each of ``CHANNELS`` channels. Where channels lie in planes, ``INNER`` is the
size of a plane and a tile has one channel; in rows of channels, ``INNER`` is 1. Value i of channel c is then
at (i // INNER) C INNER + c INNER + i % INNER in either layout.

Axis 0 of the grid splits the values of a channel, axis 1 the channels. What programs find is merged in a
fixed order: no atomics, and the same bits each run.
"""

# Triton has no types, and its arguments are pointers and numbers of whatever type a launch gives them.
# ruff: noqa: ANN001
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

from typing import Any

import triton
import triton.language as tl


@triton.jit
def places(first, end, channels, INNER: tl.constexpr, VALUES: tl.constexpr, CHANNELS: tl.constexpr) -> Any:
    """Return where the tile's values lie that start at ``first``, and which of them there are."""
    value = first + tl.arange(0, VALUES)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = (value < end)[:, None] & (channel < channels)[None, :]
    if INNER == 1:
        return value[:, None] * channels + channel[None, :], there
    plane = (value // INNER) * channels
    return (plane[:, None] + channel[None, :]) * INNER + (value % INNER)[:, None], there


@triton.jit
def line(weight, bias, statistics, channel, channels, eps, WEIGHT: tl.constexpr, BIAS: tl.constexpr) -> Any:
    """Return shift, α and b of channels: u = (x − shift) α + b."""
    there = channel < channels
    shift = tl.load(statistics + channel, there, 0.0)
    residual = tl.load(statistics + channels + channel, there, 0.0)
    slope = 1.0 / tl.sqrt(tl.load(statistics + 2 * channels + channel, there, 1.0) + eps)
    if WEIGHT:
        slope = slope * tl.load(weight + channel, there, 0.0).to(tl.float32)
    offset = -residual * slope
    if BIAS:
        offset = tl.load(bias + channel, there, 0.0).to(tl.float32) + offset
    return shift, slope, offset


@triton.jit
def moments(
    x,
    partial,
    count,
    channels,
    tiles,
    INNER: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Write each program's shift, mean of x − shift and Σ(x − mean)², a third of ``partial`` each.

    The shift is the program's first value. Every lane of the tile keeps its own running mean and squares
    (Welford), and the lanes are merged at the end by the corrected two-pass sum over their means.
    """
    part = tl.program_id(0)
    begin = part.to(tl.int64) * tiles * VALUES if WIDE else part * tiles * VALUES
    end = tl.minimum(begin + tiles * VALUES, count)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    at = ((begin // INNER) * channels + channel) * INNER + begin % INNER
    shift = tl.load(x + at, channel < channels, 0.0).to(tl.float32)
    mean = tl.zeros((VALUES, CHANNELS), tl.float32)
    squares = tl.zeros((VALUES, CHANNELS), tl.float32)
    for tile in range(tiles):
        place, there = places(begin + tile * VALUES, end, channels, INNER, VALUES, CHANNELS)
        value = tl.load(x + place, there, 0.0).to(tl.float32) - shift[None, :]
        before = value - mean
        mean = tl.where(there, mean + before * (1.0 / (tile + 1)), mean)
        squares = tl.where(there, squares + before * (value - mean), squares)
    left = tl.maximum(end - begin - tl.arange(0, VALUES), 0)
    number = ((left + VALUES - 1) // VALUES).to(tl.float32)[:, None]
    residual = tl.sum(number * mean, 0) / (end - begin).to(tl.float32)
    spread = mean - residual[None, :]
    total = tl.sum(squares + number * spread * spread, 0)
    size = tl.num_programs(0) * channels
    to = partial + part * channels + channel
    tl.store(to, shift, channel < channels)
    tl.store(to + size, residual, channel < channels)
    tl.store(to + 2 * size, total, channel < channels)


@triton.jit
def merge_moments(
    partial,
    statistics,
    parts,
    count,
    channels,
    span,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """Write shift, residual and variance of the union of ``parts`` shares (Chan, Golub and LeVeque, 1983)."""
    part = tl.arange(0, PARTS)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    there = (part < parts)[:, None] & known[None, :]
    at = partial + part[:, None] * channels + channel[None, :]
    size = parts * channels
    first = tl.load(partial + channel, known, 0.0)
    number = tl.minimum(count - part.to(tl.int64) * span, span)
    number = tl.where(part < parts, number, 0).to(tl.float32)[:, None]
    mean = (tl.load(at, there, 0.0) - first[None, :]) + tl.load(at + size, there, 0.0)
    mean = tl.where(there, mean, 0.0)
    whole = count * 1.0
    middle = tl.sum(number * mean, 0) / whole
    spread = mean - middle[None, :]
    squares = tl.load(at + 2 * size, there, 0.0) + number * spread * spread
    shift = first + middle
    tl.store(statistics + channel, shift, known)
    tl.store(statistics + channels + channel, middle - (shift - first), known)
    tl.store(statistics + 2 * channels + channel, tl.sum(squares, 0) / whole, known)


@triton.jit
def apply(
    x,
    y,
    weight,
    bias,
    statistics,
    count,
    channels,
    eps,
    negative,
    low,
    high,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    INNER: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Write y, the activation of (x − shift) α + b."""
    part = tl.program_id(0)
    begin = part.to(tl.int64) * VALUES if WIDE else part * VALUES
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    shift, slope, offset = line(weight, bias, statistics, channel, channels, eps, WEIGHT, BIAS)
    place, there = places(begin, count, channels, INNER, VALUES, CHANNELS)
    d = tl.load(x + place, there, 0.0).to(tl.float32) - shift[None, :]
    u = tl.fma(d, slope[None, :] + tl.zeros_like(d), offset[None, :] + tl.zeros_like(d))
    v = tl.where(u > 0, u, negative * u)
    v = tl.where(v < low, low, v)
    v = tl.where(v > high, high, v)
    tl.store(y + place, v.to(y.dtype.element_ty), there)


@triton.jit
def through(dy, d, slope, offset, negative, low, high) -> Any:
    """Return g, the gradient of u: the activation's derivative comes from x again."""
    u = tl.fma(d, slope[None, :] + tl.zeros_like(d), offset[None, :] + tl.zeros_like(d))
    v = tl.where(u > 0, u, negative * u)
    g = tl.where(u <= 0, negative * dy, dy)
    return tl.where((v <= low) | (v >= high), 0.0, g)


@triton.jit
def sums(
    dy,
    x,
    weight,
    bias,
    statistics,
    partial,
    count,
    channels,
    tiles,
    eps,
    negative,
    low,
    high,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    INNER: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Write each program's Σ g and Σ g (x − shift), a half of ``partial`` each."""
    part = tl.program_id(0)
    begin = part.to(tl.int64) * tiles * VALUES if WIDE else part * tiles * VALUES
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    shift, slope, offset = line(weight, bias, statistics, channel, channels, eps, WEIGHT, BIAS)
    plain = tl.zeros((VALUES, CHANNELS), tl.float32)
    weighted = tl.zeros((VALUES, CHANNELS), tl.float32)
    for tile in range(tiles):
        place, there = places(begin + tile * VALUES, count, channels, INNER, VALUES, CHANNELS)
        d = tl.load(x + place, there, 0.0).to(tl.float32) - shift[None, :]
        g = tl.load(dy + place, there, 0.0).to(tl.float32)
        g = through(g, d, slope, offset, negative, low, high)
        plain += tl.where(there, g, 0.0)
        weighted += tl.where(there, g * d, 0.0)
    to = partial + part * channels + channel
    tl.store(to, tl.sum(plain, 0), channel < channels)
    tl.store(to + tl.num_programs(0) * channels, tl.sum(weighted, 0), channel < channels)


@triton.jit
def merge_sums(
    partial,
    statistics,
    weight,
    found,
    parts,
    count,
    channels,
    eps,
    WEIGHT: tl.constexpr,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """Write dγ, dβ and A, B, D of dx = A g + B (x − shift) + D, a fifth of ``found`` each."""
    part = tl.arange(0, PARTS)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    there = (part < parts)[:, None] & known[None, :]
    at = partial + part[:, None] * channels + channel[None, :]
    plain = tl.sum(tl.load(at, there, 0.0), 0)
    weighted = tl.sum(tl.load(at + parts * channels, there, 0.0), 0)
    residual = tl.load(statistics + channels + channel, known, 0.0)
    scale = 1.0 / tl.sqrt(tl.load(statistics + 2 * channels + channel, known, 1.0) + eps)
    dweight = scale * (weighted - residual * plain)
    factor = scale
    if WEIGHT:
        factor = scale * tl.load(weight + channel, known, 0.0).to(tl.float32)
    whole = count * 1.0
    of_deviation = -scale * factor * (dweight / whole)
    tl.store(found + channel, dweight, known)
    tl.store(found + channels + channel, plain, known)
    tl.store(found + 2 * channels + channel, factor, known)
    tl.store(found + 3 * channels + channel, of_deviation, known)
    tl.store(found + 4 * channels + channel, -factor * (plain / whole) - residual * of_deviation, known)


@triton.jit
def gradient(
    dy,
    x,
    dx,
    weight,
    bias,
    statistics,
    found,
    count,
    channels,
    eps,
    negative,
    low,
    high,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    INNER: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Write dx = A g + B (x − shift) + D."""
    part = tl.program_id(0)
    begin = part.to(tl.int64) * VALUES if WIDE else part * VALUES
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    shift, slope, offset = line(weight, bias, statistics, channel, channels, eps, WEIGHT, BIAS)
    of_gradient = tl.load(found + 2 * channels + channel, known, 0.0)[None, :]
    of_deviation = tl.load(found + 3 * channels + channel, known, 0.0)[None, :]
    constant = tl.load(found + 4 * channels + channel, known, 0.0)[None, :]
    place, there = places(begin, count, channels, INNER, VALUES, CHANNELS)
    d = tl.load(x + place, there, 0.0).to(tl.float32) - shift[None, :]
    g = tl.load(dy + place, there, 0.0).to(tl.float32)
    g = through(g, d, slope, offset, negative, low, high)
    result = of_gradient * g + (of_deviation * d + constant)
    tl.store(dx + place, result.to(dx.dtype.element_ty), there)
