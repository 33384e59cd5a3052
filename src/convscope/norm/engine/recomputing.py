"""What a layer used the first time it saw a batch, for when activation checkpointing has it run again.

A checkpointed block runs in the forward pass and, to get its activations back, in the backward pass. A layer
that depends on its running averages, which the first run has moved, would compute something else the second
time, and the gradients would be those of another function. So what it used is kept for a few batches, with
their statistics to know them by: a second run on the same numbers finds the same statistics to the last bit.

Limits: the last eight batches of a layer are known, which is enough unless more forward passes of one layer
wait for their backward pass; compiled code has its own recomputation and isn't covered.
"""

from collections import deque
from collections.abc import MutableMapping
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from convscope.norm.engine.statistics import Moments

KEPT = 8
"""How many batches of a layer are known again."""

Correction = tuple[Float[Tensor, " c"], Float[Tensor, " c"]]

_RECENT: MutableMapping[nn.Module, deque[tuple[Tensor, Correction]]] = WeakKeyDictionary()


@torch.no_grad()
def as_at_first(layer: nn.Module, found: Moments, correction: Correction) -> Correction:
    """Return what a layer used when it first saw a batch: in a forward pass, what it is about to use.

    Args:
        layer: the layer.
        found: the batch's statistics.
        correction: two tensors of shape (C,) that the layer would use now.

    Returns:
        The correction given; in a forward pass within a backward pass the one of the forward pass with the
        same statistics, if it is still known.
    """
    if not _lasting(found.shift):
        return correction
    recent = _RECENT.setdefault(layer, deque(maxlen=KEPT))
    seen = torch.stack([found.mean, found.variance])
    if torch._C._current_graph_task_id() == -1:
        recent.append((seen, correction))
        return correction
    r, d = correction
    for known, (r_then, d_then) in recent:
        if known.device == seen.device and known.shape == seen.shape:
            same = (known == seen).all()  # not looked at: that would stall an accelerator
            r, d = r_then.where(same, r), d_then.where(same, d)
    return r, d


def _lasting(values: Tensor) -> bool:
    """Whether values are there, and will be: not simulated, traced or inside a functional transformation."""
    if torch.compiler.is_compiling() or isinstance(values, FakeTensor) or values.is_meta:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(values)
