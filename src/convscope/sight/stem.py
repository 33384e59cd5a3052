"""``stem``: what Zeiler and Fergus saw in AlexNet's first layer by eye, as numbers, for all its strides.

They found filters that dominate, dead ones, a gap in the middle frequencies, and aliasing by the stride of 4,
and changed 11×11/4 to 7×7/2.

Limits: filters are judged in the first convolution only; what subsamples other than by strided convolutions
and pools is named, not measured; spectra rest on up to 64 images.
"""

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.probe import probing
from convscope.sight.images import ImageSource, Source, image_source
from convscope.sight.picturing.tiles import filter_grid
from convscope.sight.projecting.projector import check_model, for_model
from convscope.sight.stems.aliasing import Aliased, spread
from convscope.sight.stems.artifacts import artifacts
from convscope.sight.stems.coverage import coverage
from convscope.sight.stems.diagnosis import Filter, Stem
from convscope.sight.stems.filters import WEIGHT_DEAD, copies, dominance, equivalent_radius, strength
from convscope.sight.stems.gathered import Gathered, gathered
from convscope.sight.stems.pointwise import Pointwise, chain_of
from convscope.sight.stems.redesign import Redesigns
from convscope.sight.stems.response import responses, share_beyond
from convscope.sight.stems.shifts import Watched, shifts_of
from convscope.sight.stems.strided import Strided, strided, strided_operators
from convscope.sight.stems.strides import Aliasing, Lattice, Shifts
from convscope.sight.stems.symptoms import symptoms_of
from convscope.sight.undisturbed import undisturbed
from convscope.sight.units.maps import ACTIVATIONS, UnitMaps, units_of
from convscope.tape import OperatorCall, Tape, device_of, record
from convscope.tape.receptive_field import receptive_fields

NUM_SHIFTED = 32


def stem(model: nn.Module, images: ImageSource | Source) -> Stem:
    """Return the diagnosis of a network's first convolution and of all its strided operators on some images.

    Aliasing: a strided operator is run with stride 1 on up to 64 evenly spaced images, the channel's mean is
    taken away, a Hann window applied, and |FFT|² with |f_y| > 1/(2 s_y) or |f_x| > 1/(2 s_x) compared with
    all of it; before and behind the activation beside it, with a blur, and for the filters alone (white).

    Filters: strength (a following batch norm folded in) beside the others', whether the unit ever fires, its
    response by frequency, copies; the bank's coverage of frequencies; what other strides and smaller kernels
    would keep. Shifts: whether layers' maps move with the image, and scores stay. Lattices: whether the
    second convolution shows the first one's stride.

    Args:
        model: any eager network for images; runs in evaluation mode, and comes back as it was.
        images: see :func:`~convscope.sight.gallery.gallery`.

    Raises:
        ConvscopeError: no images, some that the network doesn't take or with NaN or infinite values; no
            convolution over the image, or a transposed one first.

    Source: Zeiler and Fergus 2014 (arXiv 1311.2901), sections 3 and 4.1.

    Example:
        >>> found = stem(nn.Sequential(nn.Conv2d(3, 8, 7, stride=2), nn.ReLU()), torch.rand(4, 3, 40, 40))
        >>> found.kernel, found.stride, [what.aliased_share for what in found.what_if][0]
        ((7, 7), (2, 2), 0.0)
    """
    with undisturbed():
        return _stem(model, image_source(images))


def _stem(model: nn.Module, images: ImageSource) -> Stem:
    check_model(model, differentiated=False)
    tape = record(model, for_model(model, images.sample()), device=device_of(model))
    units, _ = units_of(tape)
    call = _first(tape, units)
    found = gathered(model, images, units[0])
    seen = _Spectra(tape, call, units, len(found.kept))
    seen.look(model, found.kept)
    step = -(-len(found.kept) // NUM_SHIFTED)
    some = for_model(model, torch.cat(found.kept[::step]))
    shifts = shifts_of(model, tape, _layers(tape, units, seen.operators), some)
    lattices = _lattices(model, tape, call, units, some)
    return symptoms_of(_diagnosed(units[0], found, seen, shifts, lattices))


def _first(tape: Tape, units: tuple[UnitMaps, ...]) -> OperatorCall:
    if not units:
        raise ConvscopeError(
            "a network without convolutions over the image", "at least one", "try another network"
        )
    call = tape.find(units[0].address)
    assert isinstance(call, OperatorCall)
    if call.arguments["transposed"]:
        raise ConvscopeError(
            f"{call.address}, a transposed convolution", "an ordinary one first", "it has no stride to judge"
        )
    return call


class _Spectra:
    """The runs which show what strided operators fold, one image at a time."""

    def __init__(self, tape: Tape, call: OperatorCall, units: tuple[UnitMaps, ...], num_images: int) -> None:
        self.operators, self.left_out = strided_operators(tape)
        chains = {each.address: chain_of(tape, _call(tape, each.address), each.value) for each in units}
        first = strided(tape, call)
        self.aliased = {
            each.address: Aliased(each, chains.get(each.address), num_images) for each in self.operators
        }
        self.aliased[first.address] = Aliased(first, chains[first.address], num_images, num_images)
        self.first, self.chain = self.aliased[first.address], chains[first.address]
        given = tape.values[call.inputs[0]].shape
        self.redesigns = Redesigns(first, self.first, (given[2], given[3]))
        before = receptive_fields(tape).get(call.inputs[0])
        if before is None or before.size != (1, 1):
            self.left_out += (f"{call.address} reads maps of {given[2]}×{given[3]}, not the image: its "
                              "frequencies are in cycles per position of these",)  # fmt: skip
        self.furthest = max((_call(tape, a) for a in self.aliased), key=lambda each: each.index)

    def look(self, model: nn.Module, images: list[Tensor]) -> None:
        """Run the network on images (1, c, h, w), as far as its last strided operator."""
        now = [-1]
        address = str(self.furthest.address)
        with torch.no_grad(), probing(model) as probe:
            chains = [each.chain for each in self.aliased.values() if each.chain]
            for chain in chains:
                chain.watch(probe)
            model(for_model(model, images[0]))  # shows the operators behind a convolution before it is dense
            for each in self.aliased.values():
                each.watch(probe, lambda: now[0])
            self.redesigns.watch(probe, lambda: now[0])
            for now[0], image in enumerate(images):
                probe.run_until(address, for_model(model, image))

    def results(self) -> tuple[Aliasing, ...]:
        """Of the strided operators."""
        return tuple(self.aliased[each.address].result() for each in self.operators)


def _call(tape: Tape, address: str) -> OperatorCall:
    call = tape.find(address)
    assert isinstance(call, OperatorCall)
    return call


def _layers(tape: Tape, units: tuple[UnitMaps, ...], operators: tuple[Strided, ...]) -> list[Watched]:
    """The convolutions' units and the pools, in order."""
    pools = [(f"{each.name} ({each.kind})", each.address) for each in operators if each.kind != "convolution"]
    named = [(each.name, each.unit_address) for each in units] + pools
    calls = {address: (name, _call(tape, address)) for name, address in named}
    in_order = sorted(calls.values(), key=lambda each: each[1].index)
    return [
        Watched(name, str(call.address), call.output)
        for name, call in in_order
        if len(tape.values[call.output].shape) == 4
    ]


def _lattices(
    model: nn.Module, tape: Tape, call: OperatorCall, units: tuple[UnitMaps, ...], images: Tensor
) -> tuple[Lattice, ...]:
    if len(units) < 2:
        return ()
    fields, own = receptive_fields(tape), strided(tape, call).stride
    field = fields.get(_call(tape, units[1].address).inputs[0])
    cumulative = field.stride if field and min(field.stride) > 0 else own
    return artifacts(model, units[1], (own, cumulative), fields.get(units[1].value), images)


def _diagnosed(
    units: UnitMaps, found: Gathered, seen: _Spectra, shifts: Shifts, lattices: tuple[Lattice, ...]
) -> Stem:
    first, pointwise = seen.first, seen.chain.pointwise()
    assert first.weight is not None
    weight = first.weight.double().cpu()
    filters = _filters(seen, found, weight, pointwise)
    answer = responses(weight)
    alive = torch.tensor([not each.weight_dead for each in filters])
    what_if, smaller = seen.redesigns.rows(weight)
    own = first.result()
    plain = spread(first.plain.shares)
    return Stem(
        grid=filter_grid(weight),
        name=units.name,
        address=units.address,
        unit_address=units.unit_address,
        kernel=first.operator.kernel,
        stride=first.operator.stride,
        num_images=found.num_images,
        num_spectra=first.num_images,
        input_rms=found.rms,
        input_range=found.largest,
        radius=None if seen.chain.calls is None else equivalent_radius(found.largest),
        is_folded=_is_folded(pointwise),
        aliased_share=plain.median if plain and own.share else None,
        activated_share=own.activated.median if own.activated else None,
        filter_share=own.filter_share.median if own.filter_share else None,
        filters=filters,
        duplicates=copies(weight),
        coverage=coverage(answer, alive, first.operator.kernel),
        what_if=what_if,
        smaller=smaller,
        operators=seen.results(),
        left_out=seen.left_out,
        shifts=shifts,
        lattices=lattices,
        findings=(),
    )


def _is_folded(pointwise: Pointwise | None) -> bool:
    return pointwise is not None and not bool((pointwise.scale == 1).all())


def _filters(
    seen: _Spectra, found: Gathered, weight: Tensor, pointwise: Pointwise | None
) -> tuple[Filter, ...]:
    first, answer = seen.first, responses(weight)
    rms, strong = strength(weight, None), strength(weight, pointwise.scale if pointwise else None)
    relative = dominance(strong)
    alone = share_beyond(weight, first.operator.stride, first.operator.dilation)
    calls = seen.chain.calls
    is_activated = calls is None or (len(calls) > 0 and calls[-1].op in ACTIVATIONS)
    behind = first.activated.shares
    shown = first.result().share is not None
    still = found.maximum == found.minimum
    dead = found.maximum <= 0 if is_activated else still
    return tuple(
        Filter(
            index=index,
            weight_rms=float(rms[index]),
            dominance=float(relative[index]),
            aliased_share=float(first.plain.shares[index]) if shown else float("nan"),
            maximum=float(found.maximum[index]),
            dead=bool(dead[index]),
            strength=float(strong[index]),
            weight_dead=bool(relative[index] < WEIGHT_DEAD),
            activated_share=_number(behind[index]) if shown else None,
            filter_share=float(alone[index]),
            peak_frequency=float(answer.peak[index]),
            bandwidth=_number(answer.bandwidth[index]),
            luminance=tuple(answer.luminance[index].tolist()),
            opponent=None if answer.opponent is None else tuple(answer.opponent[index].tolist()),
        )
        for index in range(len(weight))
    )


def _number(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None
