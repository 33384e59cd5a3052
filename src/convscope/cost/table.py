"""What a cost reading consists of: the table of layers, its totals, and findings.

Only numbers live here; the terminal table, the JSON and the page are renderings of :class:`Cost`.
"""

from dataclasses import dataclass, field

from convscope.core.finding import Finding
from convscope.core.result import Result
from convscope.cost.memory.values import Forecast
from convscope.tape.receptive_field import ReceptiveField


@dataclass(frozen=True)
class Row:
    """One layer's call, or one functional operator's, with what it costs for the whole batch.

    Attributes:
        address: ``PATH#CALL`` where the row is a module's whole call, ``PATH#CALL:OP.NUMBER`` otherwise.
        path: the module's path; ``"self"`` is the network itself.
        type_name: the module's class name.
        op: a readable operator name: ``"convolution"``, ``"linear"``, ``"max_pool2d"``, ``"batch_norm"`` …
        phase: ``"forward"``, or ``"loss"`` for the training plan's loss.
        output_shape: of its (first) output, batch included.
        activations: elements of that output.
        activation_bytes: the same in bytes. An in-place or view output takes no memory of its own; what
            is kept is ``saved_bytes``.
        params: elements of the parameters that no earlier row reads, so that shared ones count once.
        parameter_bytes: the same in bytes.
        macs: multiply–accumulates of its forward pass.
        forward_flops: ``2 · macs``.
        backward_input_flops: of the gradients with respect to its inputs.
        backward_weight_flops: of the gradients with respect to its parameters.
        recompute_flops: spent in backward to compute forward values again (checkpointing, flash attention).
        elementwise_ops: forward operations that aren't multiply–accumulates of a product: activations,
            normalisation, pooling, softmax, sums.
        saved_bytes: bytes of the storages that it keeps for backward and no earlier row keeps.
        index_bytes: the part of ``saved_bytes`` that is integers: switches of max-pools, classes of a loss.
        receptive_field: of its output in the network's first input; None where it isn't a window.
    """

    address: str
    path: str
    type_name: str
    op: str
    phase: str
    output_shape: tuple[int, ...]
    activations: int
    activation_bytes: int
    params: int
    parameter_bytes: int
    macs: int
    forward_flops: int
    backward_input_flops: int
    backward_weight_flops: int
    recompute_flops: int
    elementwise_ops: int
    saved_bytes: int
    index_bytes: int
    receptive_field: ReceptiveField | None


@dataclass(frozen=True)
class Totals:
    """Sums over the rows; ``params`` has the unused parameters too.

    Attributes:
        params: elements of all parameters, tied ones once.
        parameter_bytes: the same in bytes.
        activations: elements of the rows' outputs, whole batch.
        macs: multiply–accumulates of the forward pass, whole batch.
        forward_flops: ``2 · macs``.
        backward_input_flops, backward_weight_flops: the two parts of ``backward_flops``.
        backward_flops: of all gradients, recomputation excluded.
        step_flops: ``forward_flops + backward_flops``.
        recompute_flops: the additional FLOPs of recomputation; the hardware does ``step_flops`` and these.
        elementwise_ops: of the forward pass and the loss.
        saved_bytes: kept for backward by autograd or by checkpoints; parameters and buffers excluded.
        index_bytes: the part of ``saved_bytes`` that is integers.
    """

    params: int
    parameter_bytes: int
    activations: int
    macs: int
    forward_flops: int
    backward_input_flops: int
    backward_weight_flops: int
    backward_flops: int
    step_flops: int
    recompute_flops: int
    elementwise_ops: int
    saved_bytes: int
    index_bytes: int


@dataclass(frozen=True)
class Uncounted:
    """An operator without a rule: its work is in no number of the table.

    Attributes:
        op: the tape's name of the operator.
        calls: how often it ran.
        phase: ``"forward"``, ``"loss"``, ``"backward"`` or ``"recompute"``.
        address: its first call.
    """

    op: str
    calls: int
    phase: str
    address: str


@dataclass(frozen=True)
class UnusedParameter:
    """A parameter that no operator of the recorded forward pass reads.

    Attributes:
        name: its (first) name.
        params: its elements.
    """

    name: str
    params: int


@dataclass(frozen=True)
class RuleOfThumb:
    """The estimate of training memory that courses teach, as a lower bound.

    Attributes:
        activations: elements of the outputs of convolution, linear and pooling layers, whole batch.
        values_per_activation: 2 (value and gradient); 1 for inference.
        activation_bytes: bytes of those outputs times ``values_per_activation``.
        values_per_parameter: value and gradient, and the optimizer's state: 2 for SGD, 3 with momentum,
            4 for Adam; 1 for inference. Parameters that don't require gradients take 1.
        parameter_bytes: bytes of the parameters times that.
    """

    activations: int
    values_per_activation: int
    activation_bytes: int
    values_per_parameter: int
    parameter_bytes: int


@dataclass(frozen=True)
class Cost(Result):
    """What every layer of a network costs, for one batch and one step.

    Attributes:
        network: its name.
        input_shapes: shapes of the network's input tensors.
        batch_size: first size of the first input.
        plan: the training plan in words; ``"inference"`` without one.
        device: whose memory rules the forecast follows.
        totals: sums over the network.
        rows: one per layer's call or functional operator, in order of execution.
        unused_parameters: parameters in no row; with the rows' they add up to ``totals.params``.
        uncounted: operators without a rule.
        rule_of_thumb: the notes' estimate of training memory.
        forecast: memory over the step.
        findings: trends, each with its numbers.
        assumptions: what the simulation had to assume.
    """

    network: str
    input_shapes: tuple[tuple[int, ...], ...]
    batch_size: int
    plan: str
    device: str
    totals: Totals
    rows: tuple[Row, ...]
    unused_parameters: tuple[UnusedParameter, ...]
    uncounted: tuple[Uncounted, ...]
    rule_of_thumb: RuleOfThumb
    forecast: Forecast
    findings: tuple[Finding, ...]
    assumptions: tuple[str, ...] = field(default=())

    def row(self, address: str) -> Row | None:
        """Return the row with this address or, for a bare module path, of that module's first call."""
        return next((row for row in self.rows if row.address in (address, f"{address}#1")), None)
