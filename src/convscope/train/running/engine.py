"""Devices and processes, by Hugging Face accelerate.

accelerate finds the device, joins the processes that ``torchrun`` or ``accelerate launch`` started, and
wraps the network so that gradients are averaged over them. It also keeps state for the whole Python
process and marks on the model; both are taken away again here.

Its prepared data loaders aren't used: they repeat images to fill the last batch, load one batch ahead of
the checkpoint, and can't be entered in the middle of an epoch. Its mixed precision isn't either: it replaces
the model's ``forward``. Nor is its prepared optimizer: gradients are accumulated and scaled by ours.
"""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convscope.core.errors import ConvscopeError
from convscope.norm.freezing.frozen import _MODE
from convscope.train.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch._C._distributed_c10d import GradBucket


@contextmanager
def running_engine(config: TrainConfig) -> Iterator["Accelerator"]:
    """Yield an Accelerator; afterwards accelerate is as it was before.

    The process group of a distributed run stays until the process ends: a second one couldn't be joined at
    the launcher's store.

    Raises:
        ConvscopeError: accelerate isn't installed, or is in use with another precision or device.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, GradientState, PartialState
    except ImportError as error:
        raise ConvscopeError(
            f"training without accelerate ({error})",
            "the training extra",
            "run: pip install 'convscope[train]'",
        ) from error
    shared = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    before = [dict(state) for state in shared]
    was_joined = _is_joined()
    # accelerate joins CPU processes only when it is told to stay on the CPU.
    on_cpu = config.device == "cpu" or not torch.accelerator.is_available()
    try:
        yield Accelerator(cpu=on_cpu, mixed_precision="no")
    except ValueError as error:
        if "already been initialized" not in str(error):
            raise
        raise ConvscopeError(
            "an Accelerator with another device or mixed precision is in use",
            "none, or one on the same device without mixed precision",
            "train in a fresh process",
        ) from error
    finally:
        for state, content in zip(shared, before):
            state.clear()
            state.update(content)
        if _is_joined() and not was_joined:
            # Its threads run Python; one that still did while the interpreter ends would abort the process.
            atexit.register(_part)


def _is_joined() -> bool:
    """Whether this process is in a process group."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _part() -> None:
    if _is_joined():
        torch.distributed.destroy_process_group()


@contextmanager
def lent(model: nn.Module, accelerator: "Accelerator") -> Iterator[nn.Module]:
    """Yield the model made ready for training on the accelerator's device.

    On CPU, processes add up their gradients in one order always, so that a resumed run has the same bits.

    Afterwards the model is on its own device again, without gradients, every module in its own mode; its
    parameters and buffers have changed by what the block did.
    """
    modes = [(module, _modes_of(module)) for module in model.modules()]
    home = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)
    marked = hasattr(model, "_is_accelerate_prepared")
    try:
        prepared = accelerator.prepare_model(model)
        if isinstance(prepared, DistributedDataParallel) and accelerator.device.type == "cpu":
            # A hook with annotations would have to name DDP's bucket, which not every build of PyTorch has.
            prepared.register_comm_hook(None, lambda _, bucket: _mean_in_rank_order(bucket))
        yield prepared
    finally:
        if not marked and hasattr(model, "_is_accelerate_prepared"):
            delattr(model, "_is_accelerate_prepared")
        model.zero_grad(set_to_none=True)
        for module, mode in modes:
            vars(module).update(mode)  # as an attribute, a frozen layer's mode would be one to remember
        if home is not None:
            model.to(home)


def _mean_in_rank_order(bucket: "GradBucket") -> torch.futures.Future[Tensor]:
    """The mean of all processes' gradients, added up in the order of ranks.

    All-reduce adds in an order that depends on an element's place in its bucket, and DDP fills its buckets
    anew after its first backward pass: with three processes, a resumed run would have other bits.
    """
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    work = torch.distributed.all_gather(parts, own, async_op=True)
    assert work is not None

    def mean(_: object) -> Tensor:
        total = parts[0]
        for part in parts[1:]:
            total += part
        return total.div_(len(parts))

    future: torch.futures.Future[Tensor] = work.get_future().then(mean)
    return future


def _modes_of(module: nn.Module) -> dict[str, bool]:
    """A module's mode; of a frozen layer also the mode that it takes once it is unfrozen."""
    return {name: vars(module)[name] for name in ("training", _MODE) if name in vars(module)}


def summed(values: Tensor, accelerator: "Accelerator") -> Tensor:
    """Return a tensor's sum over all processes, on the CPU."""
    if accelerator.num_processes == 1:
        return values.cpu()
    total: Tensor = accelerator.reduce(values.to(accelerator.device), reduction="sum")
    return total.cpu()


def agreed(text: str, accelerator: "Accelerator") -> str:
    """Return the main process's text, on every process."""
    if accelerator.num_processes == 1:
        return text
    from accelerate.utils import broadcast_object_list

    texts: list[str] = broadcast_object_list([text])
    return texts[0]


def share_buffers(model: nn.Module, accelerator: "Accelerator") -> None:
    """Give every process the main process's buffers (running statistics), the ones that are saved."""
    if accelerator.num_processes == 1:
        return
    for buffer in model.buffers():
        torch.distributed.broadcast(buffer, src=0)
