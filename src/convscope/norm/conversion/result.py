"""What a conversion reports: every layer, and how far the network's outputs are from those before.

Values only; how they look in the terminal is decided in ``convscope.report``.
"""

from dataclasses import dataclass
from typing import Literal

from convscope.core.result import Result

Status = Literal["converted", "kept", "refused"]
"""``converted``: the layer changed; ``kept``: there was nothing to change, or its class can't be changed;
``refused``: the change would have broken it."""

Mode = Literal["evaluation", "training"]


@dataclass(frozen=True)
class Converted:
    """What became of one layer.

    Attributes:
        path: the module's path; the first of several.
        before: its class before, such as ``"torch.nn.BatchNorm2d"``.
        after: its class now.
        status: see :data:`Status`.
        reason: why it was kept or refused, or what else is to be known of it.
        difference: largest difference of this layer's output in evaluation mode on a random batch, before
            and after: max|y − y₀| / max|y₀|; 0.0 means equal to the last bit; None if it wasn't compared
            (``reason`` says why) or is another function by design (group norm).
        residual: for group norm fitted on data, the root mean square of its error against the batch norm's
            output, over that output's deviation; otherwise None.
        num_groups: for group norm, the number of groups; otherwise None.
        also: the paths of the same module beyond the first.
    """

    path: str
    before: str
    after: str
    status: Status
    reason: str = ""
    difference: float | None = None
    residual: float | None = None
    num_groups: int | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """How far something of the whole network is from what it was before, on the inputs given.

    Attributes:
        mode: evaluation or training.
        what: ``"outputs"``, or ``"running statistics"`` as one training pass leaves them.
        max_abs: largest absolute difference.
        max_relative: max|y − y₀| / max|y₀|, the largest over the tensors.
        bit_equal: whether all bits are the same.
    """

    mode: Mode
    what: str
    max_abs: float
    max_relative: float
    bit_equal: bool


@dataclass(frozen=True)
class Conversion(Result):
    """What :func:`convscope.norm.convert` has changed in a model.

    Attributes:
        to: the kind that was asked for.
        entries: one for each layer that could have changed, in the network's order.
        expected: how outputs after such a conversion relate to those before, by design.
        differences: how they do on the inputs given; empty without inputs.
        new_parameters: paths of parameters that weren't there before.
        notes: what else is to be known or done.

    Example:
        >>> conversion = Conversion("sync", (Converted("bn", "A", "B", "converted"),), "the same function")
        >>> conversion.converted, conversion.kept, conversion.refused
        (1, 0, 0)
    """

    to: str
    entries: tuple[Converted, ...]
    expected: str
    differences: tuple[Difference, ...] = ()
    new_parameters: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def converted(self) -> int:
        """Number of layers that changed."""
        return self._count("converted")

    @property
    def kept(self) -> int:
        """Number of layers that are what they were, for want of anything to change."""
        return self._count("kept")

    @property
    def refused(self) -> int:
        """Number of layers that are what they were, because the change would have broken them."""
        return self._count("refused")

    def to_dict(self) -> dict[str, object]:
        """Return the entries and the three counts as plain values."""
        counts = {name: self._count(name) for name in ("converted", "kept", "refused")}
        return {**super().to_dict(), **counts}

    def _count(self, status: str) -> int:
        return sum(entry.status == status for entry in self.entries)
