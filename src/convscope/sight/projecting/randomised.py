"""Random weights for the layers above the first: what stays of a projection is not what the network learnt.

Source: Adebayo et al. 2018, "Sanity checks for saliency maps" (arXiv 1810.03292), section 3.
"""

import torch
from torch import Tensor, nn

from convscope.tape import Tape


def upper_weights(model: nn.Module, tape: Tape) -> dict[Tensor, Tensor]:
    """Return random weights for every layer but the first convolutions, by the parameter that they replace.

    Weights are parameters of two axes or more. Each filter (slice along the first axis) is drawn from a
    normal distribution with its own mean and deviation, so that activations keep their order of magnitude;
    the draw is the same each time. The model isn't touched.

    Args:
        model: the network.
        tape: of a run of it in evaluation mode.

    Example:
        >>> from convscope.tape import record
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
        >>> [tuple(weight.shape) for weight in upper_weights(net, record(net, (1, 3, 8, 8))).values()]
        [(5, 4, 3, 3)]
    """
    first = _first_weights(tape)
    generator = torch.Generator().manual_seed(0)
    found: dict[Tensor, Tensor] = {}
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and weight.is_floating_point() and name not in first:
            found[weight] = _drawn(weight.detach(), generator)
    return found


def _drawn(weight: Tensor, generator: torch.Generator) -> Tensor:
    filters = weight.flatten(1).to(torch.promote_types(weight.dtype, torch.float32))
    noise = torch.randn(filters.shape, generator=generator).to(filters)
    deviation = filters.std(1, correction=0, keepdim=True)
    return (noise * deviation + filters.mean(1, keepdim=True)).reshape(weight.shape).to(weight.dtype)


def _first_weights(tape: Tape) -> set[str]:
    """The names of the parameters that convolutions without a convolution below them take."""
    above, found = set[int](), set[str]()
    reached = set(tape.inputs)
    for call in tape.in_phase("forward"):
        outputs = [output for output in call.outputs if output is not None]
        if call.op == "convolution" and call.inputs[0] in reached and call.inputs[0] not in above:
            found |= _parameters_behind(tape, call.inputs[1])
            above.update(outputs)
        if not above.isdisjoint(call.inputs):
            above.update(outputs)
        if not reached.isdisjoint(call.inputs):
            reached.update(outputs)
    return found


def _parameters_behind(tape: Tape, value: int) -> set[str]:
    """The names of the parameters that a value is made of, a standardised weight for one."""
    pending, seen, found = [value], set[int](), set[str]()
    while pending:
        current = pending.pop()
        storage = tape.storages[tape.values[current].storage]
        found |= _names(tape, current) if storage.role == "parameter" else set()
        producer = tape.producer(current)
        if producer is not None and producer.index not in seen:
            seen.add(producer.index)
            pending += producer.inputs
    return found


def _names(tape: Tape, value: int) -> set[str]:
    storage = tape.values[value].storage
    return {parameter.name for parameter in tape.parameters if parameter.storage == storage}
