"""Which value of a step is the first that isn't finite: one step run again, every operator looked at.

Every operator's result is looked at as soon as it is there, in forward, loss, backward and update. Where a
result isn't finite although what it was computed from is, a cause begins; later values that were computed
from it inherit the earliest cause. So infinities that a network means (the mask of an attention) count only
where they reach the loss or the weights.

Limits: gradients are followed through autograd's operators, not through communication between processes;
an infinity that a network means and that makes a NaN later is itself named as the cause.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.core.address import ROOT, Address
from convscope.probe import Visit, probing
from convscope.tape import operator_name

What = Literal["input", "output", "weight", "gradient", "running statistics", "buffer", "loss"]
"""What a value was that stopped being finite."""

Value = Literal["nan", "inf", "-inf"]
"""How it isn't."""

_UNDEFINED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
"""Operators whose results mean nothing yet: what lay in memory before may be infinite."""
STATISTICS = ("running_mean", "running_var")
_PHASES: dict[str, What] = {"forward": "output", "loss": "loss", "optimizer": "weight"}


@dataclass(frozen=True)
class Cause:
    """The first value that isn't finite, of those that a loss or a weight was computed from.

    Attributes:
        order: how many operators ran before the one that met it; decides which of two causes was first.
        address: of the operator, of its module if that is one of PyTorch's own layers; of a weight, running
            statistic or buffer its name in the network; of an image the network's own, ``self#1``.
        what: see :data:`What`.
        value: see :data:`Value`.
        index: its position in its tensor.
        largest_finite: the largest finite magnitude in what the operator was given (in the tensor itself for
            inputs, weights and buffers); None if there was none.
    """

    order: int
    address: str
    what: What
    value: Value
    index: tuple[int, ...]
    largest_finite: float | None


def examined(model: nn.Module, pixels: Tensor, step: Callable[[], Tensor]) -> Cause | None:
    """Return the first value of a step that isn't finite and reached the loss, the weights or the statistics.

    The model is as it was before, afterwards; what else ``step`` changes is not looked after.

    Args:
        model: the network that ``step`` trains.
        pixels: the images that ``step`` hands it.
        step: takes the step, or its part up to a loss that isn't finite, and returns the loss.

    Returns:
        The cause, or None if every value is finite.
    """
    with probing(model, training=True) as probe:
        causes = _Causes(model, pixels)
        for name in _operator_names():
            probe.around(name, causes.around)
        loss = step()
        with probe.paused():
            learnt = [tensor for _, tensor in learnt_by(model)]
            return min(causes.of([loss, *learnt]), key=lambda cause: cause.order, default=None)


def learnt_by(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what training changes and saves, by name: trainable parameters and running statistics."""
    yield from ((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad)
    buffers = model.named_buffers()
    yield from ((name, tensor) for name, tensor in buffers if name.rpartition(".")[2] in STATISTICS)


def first_bad(tensor: Tensor) -> tuple[Value, tuple[int, ...]]:
    """Return what the first value of a tensor is that isn't finite, and where; there must be one.

    Example:
        >>> first_bad(torch.tensor([[1.0, 2.0], [-torch.inf, torch.nan]]))
        ('-inf', (1, 0))
    """
    place = (~tensor.detach().isfinite()).nonzero()[0].tolist()
    value = float(tensor.detach()[tuple(place)])
    return "nan" if value != value else "inf" if value > 0 else "-inf", tuple(place)


class _Causes:
    """What the values that aren't finite come from, by their storages; these are kept alive meanwhile."""

    def __init__(self, model: nn.Module, pixels: Tensor) -> None:
        self._modules = dict(model.named_modules())
        self._names = {id(tensor): name for name, tensor in model.named_parameters()}
        self._roots: dict[int, tuple[Tensor, Cause]] = {}
        self._statistics: dict[int, str] = {}
        later = 1 << 60  # the order is that of the first operator which meets it
        for name, tensor in (*model.named_buffers(), *model.named_parameters()):
            what: What = "weight" if id(tensor) in self._names else "buffer"
            if name.rpartition(".")[2] in STATISTICS:
                what = "running statistics"
                self._statistics[_key(tensor)] = name
            self._mark(tensor, Cause(later, name, what, "nan", (), None))
        self._mark(pixels, Cause(later, str(Address(ROOT)), "input", "nan", (), None))

    def around(self, visit: Visit) -> Any:
        """Run an operator; note where what isn't finite in its results comes from."""
        if visit.site.op in _UNDEFINED:
            return visit.run()
        given = list(_tensors((visit.args, visit.kwargs)))
        inherited = [self._met(cause, visit.site.index) for cause in self.of(self._counted(visit, given))]
        largest = largest_finite(given[:1])
        result = visit.run()
        written = _tensors(visit.args[:1]) if visit.site.op.endswith("_") else ()
        moved = [t for t in given if visit.site.op == "batch_norm" and self._is_newly_bad_statistic(t)]
        for tensor in (*_tensors(result), *written, *moved):
            if not _is_finite(tensor):
                cause = min(inherited, key=lambda each: each.order, default=None)
                self._roots[_key(tensor)] = (tensor, cause or self._begun(visit, tensor, largest))
        return result

    def of(self, tensors: list[Tensor]) -> list[Cause]:
        """Return the causes of those tensors that aren't finite."""
        known = [(tensor, self._roots[_key(tensor)][1]) for tensor in tensors if _key(tensor) in self._roots]
        return [cause for tensor, cause in known if not _is_finite(tensor)]

    def _mark(self, tensor: Tensor, cause: Cause) -> None:
        if tensor.is_floating_point() and not _is_finite(tensor):
            value, index = first_bad(tensor)
            found = Cause(cause.order, cause.address, cause.what, value, index, largest_finite([tensor]))
            self._roots[_key(tensor)] = (tensor, found)

    def _met(self, cause: Cause, order: int) -> Cause:
        """The cause itself, or, of a weight, image or buffer, with the operator that met it first."""
        if order >= cause.order:
            return cause
        met = Cause(order, cause.address, cause.what, cause.value, cause.index, cause.largest_finite)
        for key, (tensor, known) in self._roots.items():
            if known is cause:
                self._roots[key] = (tensor, met)
        return met

    def _counted(self, visit: Visit, given: list[Tensor]) -> list[Tensor]:
        """What decides about the results: in training, batch norm only moves its running statistics."""
        if visit.site.op != "batch_norm" or not _is_training(visit):
            return given
        return [tensor for tensor in given if _key(tensor) not in self._statistics]

    def _is_newly_bad_statistic(self, tensor: Tensor) -> bool:
        return _key(tensor) in self._statistics and _key(tensor) not in self._roots

    def _begun(self, visit: Visit, tensor: Tensor, largest: float | None) -> Cause:
        site = visit.site
        what = _PHASES.get(site.phase, "gradient")
        address = visit.forward or site.address
        value, index = first_bad(tensor)
        name = self._names.get(id(tensor)) if what == "weight" else self._statistics.get(_key(tensor))
        what = "running statistics" if _key(tensor) in self._statistics else what
        return Cause(site.index, name or self._named(address), what, value, index, largest)

    def _named(self, address: Address) -> str:
        """An operator's address, or that of its module call where the module is a layer of PyTorch's own."""
        module = self._modules.get("" if address.path == ROOT else address.path)
        is_layer = module is not None and type(module).__module__.startswith("torch.nn.modules.")
        if is_layer and address.path != ROOT and not any(True for _ in module.children()):  # type: ignore[union-attr]
            return str(address.module)
        return str(address)


def _is_training(visit: Visit) -> bool:
    name = visit.operator.name()  # type: ignore[attr-defined]
    if "no_training" in name or "no_update" in name:
        return False
    flags = [argument for argument in visit.args if isinstance(argument, bool)]
    return flags[0] if flags else True


def _operator_names() -> set[str]:
    """The names, as the probe says them, of all operators that PyTorch knows at this moment."""
    known = {operator_name(_Named(name)) for name in torch._C._dispatch_get_all_op_names()}
    return {name for name in known if name is not None}


@dataclass(frozen=True)
class _Named:
    """What :func:`convscope.tape.operator_name` asks of an operator."""

    text: str

    def name(self) -> str:
        return self.text


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point())


def _is_finite(tensor: Tensor) -> bool:
    return bool(tensor.detach().isfinite().all())


def largest_finite(tensors: list[Tensor]) -> float | None:
    """Return the largest finite magnitude in some tensors; None if there is none."""
    finite = [tensor.detach().abs().where(tensor.detach().isfinite(), -1) for tensor in tensors]
    largest = max((float(each.max()) for each in finite if each.numel()), default=-1.0)
    return largest if largest >= 0 else None


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
