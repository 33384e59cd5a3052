"""The first layer and the network's strides in the terminal; the filters' picture is for the page."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.report.terminal.tables import facts, findings, label, sections, table, title
from convscope.report.wording.formats import number, shape, write
from convscope.sight import Stem
from convscope.sight.stems.coverage import SMALLEST_KERNEL
from convscope.sight.stems.diagnosis import Filter, Octave, WhatIf
from convscope.sight.stems.strides import Aliasing, LayerShift, Shifts, Spread


@renders(Stem)
def render_stem(stem: Stem) -> RenderableType:
    """Return the numbers of the first layer, of its filters, of other designs, and of all strides."""
    columns = (
        "Filter#", "Weight RMS#", "Strength ÷ median#", "Peak, cycles/px#", "Octaves#",
        "Aliased energy#", "Largest activation#", "",
    )  # fmt: skip
    filters = table(columns, map(_filter, stem.filters))
    return sections(
        title(f"First layer {stem.name}: {shape(stem.kernel)} pixels, stride {shape(stem.stride)}"),
        facts(_facts(stem)),
        table(
            ("Cycles per pixel", "Filters' energy#", "Even coverage#", "Random weights#"),
            map(_octave, stem.coverage.octaves),
            note="Each filter counts once; even: Gabor filters of this kernel, evenly spaced in octaves.",
        ),
        filters,
        table(
            ("Kernel", "Stride", "Aliased#", "Peaks covered#", "Energy kept#", "Map", "MACs#"),
            map(_design, (*stem.what_if, *stem.smaller)),
            note="The same filters with other strides, and cut to their middle.",
        ),
        _operators(stem.operators),
        _shifts(stem.shifts),
        *(label(f"not measured: {reason}", "dim") for reason in stem.left_out),
        findings(stem.findings),
    )


def _facts(stem: Stem) -> list[tuple[str, str]]:
    what_if = "; ".join(
        f"stride {shape(each.stride)}: {write('percent', each.aliased_share)}" for each in stem.what_if
    )
    radius = (
        f"; ZF's radius of 0.1 for ±128 is {number(stem.radius)} for these" if stem.radius is not None else ""
    )
    images = (
        f"{stem.num_images}; RMS of their pixels {number(stem.input_rms)}, largest {number(stem.input_range)}"
    )
    return [
        ("images", images + radius),
        ("aliased energy", f"{write('percent', stem.aliased_share)} (median over the filters)"),
        ("behind the activation", write("percent", stem.activated_share)),
        ("filters alone", f"{write('percent', stem.filter_share)} (white input)"),
        ("with other strides", what_if),
        ("mid-frequency gap", _gap(stem)),
        ("strength", "weight RMS, batch norm folded in" if stem.is_folded else "weight RMS"),
        *(
            (f"lattice in {each.of}", _lattice(each.ratio, each.p_value, each.reason))
            for each in stem.lattices
        ),
    ]


def _gap(stem: Stem) -> str:
    gap = stem.coverage.gap
    if gap is None:
        return "not told by kernels under 7 pixels" if min(stem.kernel) < SMALLEST_KERNEL else "–"
    return f"{write('number', gap)} (0: none; 1: nothing between low and high frequencies)"


def _octave(each: Octave) -> tuple[object, ...]:
    shares = (each.share, each.reference, each.random)
    band = f"over {number(each.low)}" if each.high > 0.5 else f"{number(each.low)} to {number(each.high)}"
    return (band, *(write("percent", share) for share in shares))


def _lattice(ratio: float | None, p_value: float | None, reason: str) -> str:
    return reason or f"{write('ratio', ratio)} its surroundings, p = {write('doubt', p_value)}"


def _filter(each: Filter) -> tuple[object, ...]:
    state = "dead" if each.dead else "vanished" if each.weight_dead else ""
    return (
        each.index,
        number(each.weight_rms),
        f"{each.dominance:.2f}",
        write(
            "number", round(each.peak_frequency, 3) if each.peak_frequency == each.peak_frequency else None
        ),
        write("doubt", each.bandwidth),
        write("percent", each.aliased_share if each.aliased_share == each.aliased_share else None),
        write("number", each.maximum),
        state,
    )


def _design(each: WhatIf) -> tuple[object, ...]:
    return (
        shape(each.kernel),
        shape(each.stride),
        write("percent", each.aliased_share),
        write("percent", each.covered),
        write("percent", each.kept_energy),
        shape(each.map_size),
        write("ratio", each.macs_ratio),
    )


def _operators(operators: tuple[Aliasing, ...]) -> RenderableType:
    columns = (
        "Strided operator", "Kind", "Kernel", "Stride", "Aliased#", "Before activation#", "Behind it#",
        "With a blur#", "White input#", "",
    )  # fmt: skip
    if not operators:
        return label("no strided convolution or pool", "dim")
    return table(columns, map(_operator, operators))


def _operator(each: Aliasing) -> tuple[object, ...]:
    return (
        each.name,
        each.kind,
        shape(each.kernel),
        shape(each.stride),
        *map(_median, (each.share, each.unactivated, each.activated, each.blurred, each.filter_share)),
        each.reason,
    )


def _median(spread: Spread | None) -> str:
    return write("percent", None if spread is None else spread.median)


def _shifts(shifts: Shifts) -> RenderableType:
    same = (
        f"the highest score stays in {write('percent', shifts.top1_pixel)} of {shifts.num_images} images, "
        f"and in {write('percent', shifts.top1_crops)} between crops up to {shifts.furthest} pixels apart"
        if shifts.top1_pixel is not None
        else "the network has no scores to compare"
    )
    return table(
        ("Layer", "Pixels a step", "Map", "Off after a shift by 1 px#", "Without moving the map#", ""),
        map(_layer, shifts.layers),
        note=f"0: maps move with the image; 1.41: unrelated. Under that shift {same}.",
    )


def _layer(each: LayerShift) -> tuple[object, ...]:
    return (
        each.name,
        shape(each.stride),
        shape(each.map_size),
        write("doubt", each.distance),
        write("doubt", each.change),
        "sees the border" if each.sees_border else "",
    )
