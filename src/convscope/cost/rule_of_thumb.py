"""The estimate of training memory that courses teach, beside which the forecast can be read.

Activations: the outputs of convolution, linear and pooling layers, each with its gradient, so twice.
Parameters: value, gradient and the optimizer's state, so 2 (SGD), 3 (momentum) or 4 (Adam) numbers each.
The course notes give it as a lower bound. It leaves out what other layers keep, pools' switches, and
libraries' memory, and it counts gradients of activations that never live at one time.
"""

from convscope.cost.parameters import distinct_parameters, nbytes
from convscope.cost.row import Row, RuleOfThumb
from convscope.tape import Tape, TrainingPlan

_COUNTED = ("convolution", "transposed_convolution", "linear")


def is_pool(row: Row) -> bool:
    """Whether a row is a pooling layer."""
    return "pool" in row.op


def rule_of_thumb(tape: Tape, rows: tuple[Row, ...], plan: TrainingPlan | None) -> RuleOfThumb:
    """Return the estimate; without a plan, for inference, every number counts once.

    Args:
        tape: the recording, for its parameters; those that don't require gradients count once.
        rows: its table.
        plan: the training plan, for its optimizer.

    Example:
        >>> from convscope.cost import cost
        >>> from torch import nn
        >>> estimate = cost(nn.Conv2d(3, 96, 11, 4), (128, 3, 227, 227)).rule_of_thumb
        >>> round(estimate.activation_bytes / 2**20, 1), round(estimate.parameter_bytes / 2**20, 1)
        (283.6, 0.4)
    """
    counted = [row for row in rows if row.op in _COUNTED or is_pool(row)]
    per_activation = 1 if plan is None else 2
    per_parameter = 1 if plan is None else 2 + plan.state_values_per_parameter
    return RuleOfThumb(
        activations=sum(row.activations for row in counted),
        values_per_activation=per_activation,
        activation_bytes=per_activation * sum(row.activation_bytes for row in counted),
        values_per_parameter=per_parameter,
        parameter_bytes=sum(
            nbytes(parameter) * (per_parameter if parameter.requires_grad else 1)
            for parameter in distinct_parameters(tape)
        ),
    )
