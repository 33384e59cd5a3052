"""One row of the table of layers, and the sums over all rows; only numbers."""

from dataclasses import dataclass

from convscope.tape.receptive_field import ReceptiveField


@dataclass(frozen=True)
class Row:
    """One layer's call, or one functional operator's, with what it costs for the whole batch.

    A table that was rolled up (:mod:`convscope.cost.views.rollup`) has rows that each sum several of these.

    Attributes:
        address: ``PATH#CALL`` where the row is a module's whole call, ``PATH#CALL:OP.NUMBER`` otherwise;
            rolled up: ``PATH``, or ``PATH:OP`` for operators that run directly in a module.
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
        receptive_field: of its output in the network's first input; None where it isn't one window: the
            output depends on the whole image (``sees_whole_image``), windows differ from position to
            position, or an operator before it has no rule.
        calls: how often the module or operator ran; 1 unless the row was rolled up.
        sees_whole_image: whether its output depends on the whole image, as behind a global pool.
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
    calls: int = 1
    sees_whole_image: bool = False

    @property
    def backward_flops(self) -> int:
        """FLOPs of its gradients, with respect to inputs and parameters."""
        return self.backward_input_flops + self.backward_weight_flops

    @property
    def step_flops(self) -> int:
        """FLOPs of its forward and backward pass."""
        return self.forward_flops + self.backward_flops


@dataclass(frozen=True)
class ModuleCalls:
    """A module of the network that ran.

    Attributes:
        path: see :class:`Row`.
        type_name: its class name.
        calls: how often it was called in the forward pass.
    """

    path: str
    type_name: str
    calls: int


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
