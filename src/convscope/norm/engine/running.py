"""The running averages that batch statistics leave behind for test time.

    μ_running ← (1 − w) μ_running + w μ,        v_running ← (1 − w) v_running + w v

w, the weight of the new value, is the layer's ``momentum`` m (0.1 unless told otherwise), or 1/n at the n-th
batch if that is None: the plain average over all batches so far. With a warm start it is max(m, 1/n): the
plain average as long as that moves faster, so that the starting values 0 and 1 leave no trace. The batch is
normalised by the biased variance Σ(x − μ)²/m; the running average stores the unbiased one, Σ(x − μ)²/(m − 1),
since it stands for data beyond the batch. Both are PyTorch's conventions.

Two things would spoil the averages, and don't: a forward pass that activation checkpointing runs again during
backward moves nothing, and neither does a batch with a value that isn't finite.
"""

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.modules.batchnorm import _NormBase

from convscope.norm.engine.statistics import accumulated_in
from convscope.norm.naming import named


class NotFiniteWarning(UserWarning):
    """A normalisation layer met NaN or infinite values, and left its running averages as they were."""


class Averages(NamedTuple):
    """A layer's running averages; each is None where the layer keeps none.

    Attributes:
        mean: running mean, shape (C,).
        variance: running unbiased variance, shape (C,).
        num_batches: how many batches they have seen.
    """

    mean: Float[Tensor, " c"] | None
    variance: Float[Tensor, " c"] | None
    num_batches: Int[Tensor, ""] | None


def new_value_weight(
    momentum: float | None, num_batches: Int[Tensor, ""] | None, warm_start: bool = False
) -> float | Tensor:
    """Return w, the weight of the new value in the running averages.

    Args:
        momentum: that weight itself, or None for the average over all batches so far.
        num_batches: n, how many batches the averages have seen, the new one included; None if nobody
            counts, which leaves a cumulative average unmoved, as PyTorch does.
        warm_start: whether to use max(momentum, 1/n).

    Returns:
        A number, or a float64 tensor where w depends on n: reading the counter's value would fail on
        simulated tensors and stall an accelerator.

    Example:
        >>> new_value_weight(0.1, None), new_value_weight(None, torch.tensor(4)).item()
        (0.1, 0.25)
        >>> [new_value_weight(0.1, torch.tensor(n), warm_start=True).item() for n in (1, 4, 40)]
        [1.0, 0.25, 0.1]
    """
    if num_batches is None or not (warm_start or momentum is None):
        return 0.0 if momentum is None else momentum
    plain = num_batches.double().reciprocal()
    return plain if momentum is None else plain.clamp_min(momentum)


@torch.no_grad()
def move(
    layer: _NormBase,
    averages: Averages,
    mean: Float[Tensor, " c"],
    variance: Float[Tensor, " c"],
    warm_start: bool = False,
) -> None:
    """Move a layer's running averages towards a batch's statistics, in place, and count the batch.

    Nothing moves while backward runs a checkpointed block again (the first run has moved them), nor for a
    batch with statistics that aren't finite: that is reported once a layer.

    Args:
        layer: whose ``momentum`` is used, and who is named in the report.
        averages: its buffers.
        mean: the batch's mean, shape (C,).
        variance: the batch's unbiased variance, shape (C,).
        warm_start: see :func:`new_value_weight`.

    Warns:
        NotFiniteWarning: the first time that the batch's statistics aren't finite. Not on accelerators, where
            looking would stall them, nor in compiled code.
    """
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        return
    finite = (mean - mean == variance - variance).all()  # 0 == 0; isfinite() is three times as slow
    if _readable(finite):
        if not finite:
            _report_once(layer)
            return
    else:
        mean, variance = (value.where(finite, 0) for value in (mean, variance))
    if averages.num_batches is not None:
        averages.num_batches.add_(finite)
    weight = new_value_weight(layer.momentum, averages.num_batches, warm_start)
    if not _readable(finite):
        weight = torch.as_tensor(weight, device=mean.device).where(finite, 0)
    for running, value in ((averages.mean, mean), (averages.variance, variance)):
        if running is not None:
            update_running(running, value, weight)


@torch.no_grad()
def update_running(running: Float[Tensor, " c"], value: Float[Tensor, " c"], weight: float | Tensor) -> None:
    """Move a running average towards a new value, in place: (1 − w) running + w value.

    The arithmetic is done in the wider of the two dtypes; the buffer keeps its own.

    Args:
        running: the buffer.
        value: the statistic of the new batch.
        weight: w, from :func:`new_value_weight`.

    Example:
        >>> running = torch.zeros(2)
        >>> update_running(running, torch.tensor([1.0, 2.0]), 0.1)
        >>> running
        tensor([0.1000, 0.2000])
    """
    if running.dtype == value.dtype and not isinstance(weight, Tensor):
        running.lerp_(value, weight)
        return
    dtype = torch.promote_types(running.dtype, value.dtype)
    if isinstance(weight, Tensor):
        weight = weight.to(dtype)
    running.copy_(torch.lerp(running.to(dtype), value.to(dtype), weight))


def unbiased(variance: Float[Tensor, "*sets"], count: int | Tensor) -> Float[Tensor, "*sets"]:
    """Return Σ(x − μ)²/(m − 1) from Σ(x − μ)²/m, for m = ``count`` values; m must be at least 2.

    Example:
        >>> unbiased(torch.tensor([1.0]), 2)
        tensor([2.])
    """
    return variance + variance / (count - 1)  # v m might overflow


class WideAverages(nn.Module):
    """Keeps a layer's running averages in float32 (or wider) whatever dtype the layer is turned to.

    In bfloat16 an average stops moving once w times the difference is under half a unit in its last place:
    with momentum 0.01 a mean of 3 is never approached closer than 2.03. So ``.half()`` and ``.bfloat16()``
    leave them, ``.double()`` widens them, and half-precision checkpoints are widened as they load.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._widen()

    def _apply(self, fn: object, recurse: bool = True) -> "WideAverages":
        before = {name: self._buffers.get(name) for name in ("running_mean", "running_var")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            new = self._buffers.get(name)
            if old is not None and new is not None and accumulated_in(new.dtype) != new.dtype:
                self._buffers[name] = _widened_again(old, new)
        return self

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._widen()  # ``assign=True`` puts the checkpoint's own tensors in place

    def _widen(self) -> None:
        for name in ("running_mean", "running_var"):
            buffer = self._buffers.get(name)
            if buffer is not None:
                self._buffers[name] = buffer.to(accumulated_in(buffer.dtype))


def _widened_again(old: Tensor, new: Tensor) -> Tensor:
    wide = accumulated_in(old.dtype)
    return new.to(wide) if old.is_meta else old.to(new.device, wide)


def _readable(flag: Tensor) -> bool:
    """Whether a number can be looked at without stalling an accelerator or failing on a simulated tensor."""
    if torch.compiler.is_compiling() or isinstance(flag, FakeTensor) or flag.device.type != "cpu":
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(flag)


def _report_once(layer: nn.Module) -> None:
    if not getattr(layer, "_reported_not_finite", False):
        layer.__dict__["_reported_not_finite"] = True
        warnings.warn(
            f"{named(layer)} met values that are NaN or infinite; its running averages stay as they were; "
            "look for what makes them before this layer",
            NotFiniteWarning,
            stacklevel=6,
        )
