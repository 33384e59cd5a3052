"""Gates and statistics of the whole image, held in windows of it.

A squeeze-and-excitation gate, or the mean of a group norm, is made of the whole map: in a window of the image
it would be another one. A run over whole images records such values; runs over windows use what was
recorded in the place of their own, forward and backward, and so give exactly the whole image's projections.

Held are the last values that are computed from the whole map alone: a gate itself, not the average that it
is made of. Gates of a neighbourhood (CBAM's, a norm over channels) aren't held: a window sees all of theirs.

Limits: a gate that is neither (attention over positions, a small map of gates made of the whole image and
enlarged) can't be held; layers above it have no windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.projecting.origins import Origins
from convscope.tape import Tape
from convscope.tape.batch_norms import uses_batch_statistics
from convscope.tape.receptive_field import ReceptiveField, receptive_fields

_SPATIAL_NORMS = {"group_norm", "batch_norm"}


@dataclass(frozen=True)
class HoldPoint:
    """A result of an operator that windows hold.

    Attributes:
        address: of the operator.
        output: which of its results.
        rows: how many rows of its first axis belong to one image.
    """

    address: str
    output: int
    rows: int


@dataclass(frozen=True)
class Frozen:
    """Gates and statistics of some images, as one run recorded them.

    Attributes:
        values: by hold point, with the images (times ``HoldPoint.rows``) along the first axis.
    """

    values: Mapping[HoldPoint, Tensor]

    def rows(self, indices: Sequence[int] | Tensor) -> "Frozen":
        """Return those of some of the images, in the order asked for; an image may come more than once."""
        return Frozen({point: _rows(tensor, point, indices) for point, tensor in self.values.items()})

    def of(self, point: HoldPoint, own: Tensor) -> Tensor:
        """Return what is held in the place of a run's own value.

        Raises:
            ConvscopeError: nothing, or something of another shape.
        """
        held = self.values.get(point)
        if held is None or held.shape != own.shape:
            raise ConvscopeError(
                f"a run in which {point.address} makes a value of shape {tuple(own.shape)}",
                "none held there" if held is None else f"{tuple(held.shape)}, which was recorded",
                "run the whole images",
            )
        return held


def is_norm(op: str) -> bool:
    """Whether an operator normalises by statistics of a whole map which it finds itself."""
    return op in _SPATIAL_NORMS


def held_fields(tape: Tape, beside: frozenset[int]) -> dict[int, ReceptiveField | None]:
    """Return receptive fields in which gates and statistics of the whole map are constants.

    Args:
        tape: of a run.
        beside: the values that serve gates and statistics alone.
    """
    return receptive_fields(tape, held=beside)


def hold_points(
    origins: Origins, fields: Mapping[int, ReceptiveField | None], beside: frozenset[int]
) -> tuple[HoldPoint, ...]:
    """Return what windows must hold for the maps that have a receptive field.

    Args:
        origins: of the run's values.
        fields: by :func:`held_fields`; what is constant there isn't in it.
        beside: the values that serve gates and statistics alone.
    """
    found: dict[HoldPoint, None] = {}
    for call in origins.tape.in_phase("forward"):
        if call.outputs[0] is None or fields.get(call.output) is None:
            continue
        held = [v for v in call.inputs if v in origins.dependent and v not in fields]
        for value in held:
            found[_point(origins, value)] = None
        if is_norm(call.op) and len(call.outputs) > 2:
            statistics = [v for v in call.outputs[1:3] if v is not None]
            if (
                len(statistics) == 2
                and beside.issuperset(statistics)
                and 0 not in _sizes(origins, statistics)
            ):
                found |= {_point(origins, value): None for value in statistics}
    # Of statistics over the batch no image has its own.
    calls = {str(call.address): call for call in origins.tape.in_phase("forward")}
    return tuple(point for point in found if not uses_batch_statistics(origins.tape, calls[point.address]))


def _sizes(origins: Origins, values: list[int]) -> list[int]:
    """Numbers of elements: a norm by given statistics returns empty ones."""
    return [origins.tape.values[value].numel for value in values]


def _point(origins: Origins, value: int) -> HoldPoint:
    value = origins.unviewed(value)
    call = origins.tape.producer(value)
    assert call is not None
    shape, images = origins.tape.values[value].shape, origins.tape.values[origins.tape.inputs[0]].shape[0]
    return HoldPoint(str(call.address), call.outputs.index(value), max(1, (shape or (1,))[0] // images))


def _rows(tensor: Tensor, point: HoldPoint, indices: Sequence[int] | Tensor) -> Tensor:
    kept = indices.to(tensor.device) if isinstance(indices, Tensor) else list(indices)
    by_image = tensor.reshape(-1, point.rows, *tensor.shape[1:])
    return by_image[kept].flatten(0, 1)
