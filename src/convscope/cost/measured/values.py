"""What a timing consists of: real seconds of every row of the table, beside its FLOPs; only numbers."""

from dataclasses import dataclass

from convscope.core.result import Result


@dataclass(frozen=True)
class Seconds:
    """Wall-clock seconds over the repeats: the median and the quartiles around it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class RowTiming:
    """The real time of one row of the table.

    Attributes:
        address: of the row; see :class:`convscope.cost.table.Row`.
        op: a readable operator name.
        forward: of its forward operators and, where the row is a module's whole call, of the module's own
            code around them.
        backward: of the operators that differentiate them, recomputation and sums of gradients included.
        forward_flops: FLOPs of the forward pass at this batch.
        backward_flops: FLOPs of backward, recomputation included.
        flops_per_second: all its FLOPs per second of its time; None for a row without FLOPs or time.
        share: of ``Timings.seconds``; 1 is all of it.
    """

    address: str
    op: str
    forward: Seconds
    backward: Seconds
    forward_flops: int
    backward_flops: int
    flops_per_second: float | None
    share: float

    @property
    def seconds(self) -> float:
        """Median seconds forward and backward together."""
        return self.forward.median + self.backward.median


@dataclass(frozen=True)
class Between:
    """Time in which no operator of a row ran.

    Attributes:
        path: of the module whose own Python code ran; ``"self"`` is the network itself. ``"backward"`` is
            autograd's work between operators, and ``"no row"`` are operators that belong to no row.
        seconds: how long.
    """

    path: str
    seconds: Seconds


@dataclass(frozen=True)
class Timings(Result):
    """The real time of a network's rows on this machine.

    ``seconds`` is the sum of the rows, of ``between`` and of the optimizer, each a median over the repeats.
    The same steps ran unwatched in between: ``unwatched``.

    Attributes:
        network: its class name.
        input_shapes: shapes of its input tensors.
        plan: the training step in words; ``"inference"`` without one.
        device: name of the device.
        num_threads: threads within an operator, on the CPU.
        dtype: of the (first) floating parameter as it ran, or ``"amp-…"``.
        torch_version: of PyTorch.
        repeats: timed steps of each kind.
        rows: in the order of the table, and joined to it by address.
        between: time between operators, longest first.
        optimizer: the whole optimizer step, clipping and zeroing of gradients included; 0 for inference.
        seconds: the sum.
        unwatched: a whole step that nothing watched.
        unwatched_forward, unwatched_backward: its parts, the loss in the first; the optimizer is the rest.
        added_seconds: how much longer a watched step took than an unwatched one (difference of medians); what
            the watching itself is known to have taken isn't in ``seconds``.
    """

    network: str
    input_shapes: tuple[tuple[int, ...], ...]
    plan: str
    device: str
    num_threads: int
    dtype: str
    torch_version: str
    repeats: int
    rows: tuple[RowTiming, ...]
    between: tuple[Between, ...]
    optimizer: Seconds
    seconds: float
    unwatched: Seconds
    unwatched_forward: Seconds
    unwatched_backward: Seconds
    added_seconds: float

    def row(self, address: str) -> RowTiming | None:
        """Return the row with this address or, for a bare module path, of that module's first call."""
        return next((row for row in self.rows if row.address in (address, f"{address}#1")), None)
