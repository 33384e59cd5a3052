"""One training step with a random loss: which biases have a gradient, and which batch norms train.

A batch norm that uses batch statistics takes away whatever constant was added to a channel before it, so that
the loss doesn't depend on that constant: dL/db = Σ dy = 0, whatever the loss. A random projection of the
outputs is a loss that depends on everything else. The ratio |Σ dy| / Σ |dy| is then rounding (4e-7 at most
in float32) for a redundant bias and 6e-3 or more for any other (measured on a dozen networks).

Where a zero gain cuts the gradient off, Σ |dy| = 0 and nothing can be said.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.flow import DROPS
from convscope.checkup.measuring.outputs import tensors_of
from convscope.checkup.measuring.population import spread_of_images
from convscope.core.address import Address
from convscope.probe import Probe, Visit, probing

# Forward operators that add a bias, and the position of that argument.
_ADDS_BIAS = {"convolution": 2, "addmm": 0}
_REENTRANT = "CheckpointFunction"  # PyTorch's, and those of libraries that are made like it
# Backward operators whose first argument is the gradient of a forward operator's result, by that operator.
_TELLS_GRADIENT = {"convolution_backward": "convolution", "sum": "addmm"}


@dataclass
class BiasSums:
    """Sums of the gradients that reach one bias, over all calls that add it.

    Attributes:
        name: the parameter.
        operators: forward operator calls that add it.
        signed, absolute: Σ dy and Σ |dy| per channel, in float64; None until a gradient arrives.
        dtype: the gradients' dtype.
    """

    name: str
    operators: list[Address] = field(default_factory=list)
    signed: Tensor | None = None
    absolute: Tensor | None = None
    dtype: torch.dtype | None = None

    def add(self, gradient: Tensor, axis: int) -> None:
        """Take in the gradient dy of one call's result, whose channels lie along ``axis``."""
        wide_CX = gradient.detach().double().movedim(axis, 0).flatten(1)
        signed_C, absolute_C = wide_CX.sum(1).cpu(), wide_CX.abs().sum(1).cpu()
        self.dtype = gradient.dtype
        self.signed = signed_C if self.signed is None else self.signed + signed_C
        self.absolute = absolute_C if self.absolute is None else self.absolute + absolute_C


@dataclass
class TrainingStep:
    """What one training step with a random loss has shown.

    Attributes:
        biases: by parameter name.
        by_batch: operator addresses of the batch norm calls, and whether they used batch statistics.
        drops: whether anything was drawn to drop by, as dropout does.
        spreads: of the batch norm calls after that which used batch statistics, by operator address: see
            :func:`~convscope.checkup.measuring.population.spread_of_images`.
    """

    biases: dict[str, BiasSums] = field(default_factory=dict)
    by_batch: dict[str, bool] = field(default_factory=dict)
    drops: bool = False
    spreads: dict[str, Tensor] = field(default_factory=dict)


def training_step(model: nn.Module, batch: Batch) -> TrainingStep:
    """Run one forward and backward pass in training mode; no optimizer, and the model comes back as it was.

    Raises:
        Exception: whatever the model raises in training mode, such as PyTorch's for one value per channel.
    """
    step = TrainingStep()
    with probing(model, training=True) as probe, torch.enable_grad():
        _listen(probe, model, step)
        outputs = batch.run(model)
        generator = torch.Generator().manual_seed(0)
        terms = [
            (out * torch.randn(out.shape, generator=generator).to(out)).sum()
            for out in tensors_of(outputs)
            if out.requires_grad
        ]
        if terms:
            _differentiate(torch.stack([term.double() for term in terms]).sum(), model)
    return step


def _differentiate(value: Tensor, model: nn.Module) -> None:
    """Run the backward pass for the model's own parameters, so that no tensor's ``.grad`` is written.

    Reentrant checkpoints can't do without ``backward()``; what it writes outside the model is put back.
    """
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    leaves, is_reentrant = _leaves_of(value)
    if not is_reentrant:
        if own:
            torch.autograd.grad(value, own, allow_unused=True)
        return
    kept = [(leaf, leaf.grad, None if leaf.grad is None else leaf.grad.clone()) for leaf in leaves]
    try:
        value.backward()  # type: ignore[no-untyped-call]
    finally:
        for leaf, gradient, content in kept:
            leaf.grad = gradient
            if gradient is not None and content is not None:
                gradient.copy_(content)


def _leaves_of(value: Tensor) -> tuple[list[Tensor], bool]:
    """The leaves that a value's gradient goes to, and whether a reentrant checkpoint lies on the way."""
    seen, ahead = set(), [value.grad_fn]
    leaves, is_reentrant = [], False
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        is_reentrant |= node.name().startswith(_REENTRANT)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            leaves.append(leaf)
        ahead.extend(behind for behind, _ in node.next_functions)
    return leaves, is_reentrant


def _listen(probe: Probe, model: nn.Module, step: TrainingStep) -> None:
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    adds: dict[str, BiasSums] = {}

    def note_bias(visit: Visit, _: object) -> None:
        bias = visit.args[_ADDS_BIAS[visit.site.op]]
        name = names.get(id(bias))
        if name is not None:
            sums = step.biases.setdefault(name, BiasSums(name))
            adds[str(visit.site.address)] = sums
            if visit.site.phase == "forward":
                sums.operators.append(visit.site.address)

    def note_gradient(visit: Visit, _: object) -> None:
        forward = visit.forward
        if forward is None or forward.op != _TELLS_GRADIENT[visit.site.op] or str(forward) not in adds:
            return
        gradient = visit.args[0]
        adds[str(forward)].add(gradient, axis=1 if forward.op == "convolution" else gradient.dim() - 1)

    def note_norm(visit: Visit, _: object) -> None:
        address, x = str(visit.site.address), visit.args[0]
        step.by_batch[address] = bool(visit.args[5])
        if step.drops and visit.args[5] and x.numel() > x.shape[1]:
            step.spreads[address] = spread_of_images(x)

    def note_drop(_: Visit, __: object) -> None:
        step.drops = True

    for op in DROPS:
        probe.read(op, note_drop)
    for op in _ADDS_BIAS:
        probe.read(op, note_bias)
    for op in _TELLS_GRADIENT:
        probe.read(op, note_gradient)
    probe.read("batch_norm", note_norm)
