"""Devices and processes, by Hugging Face accelerate.

accelerate finds the device, joins the processes that ``torchrun`` or ``accelerate launch`` started, and
wraps the network so that gradients are averaged over them. It also keeps state for the whole Python
process and marks on the model; both are taken away again here.

Its prepared data loaders aren't used: they repeat images to fill the last batch, load one batch ahead of
the checkpoint, and can't be entered in the middle of an epoch. Its mixed precision isn't either: it replaces
the model's ``forward``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


@contextmanager
def running_engine(config: TrainConfig) -> Iterator["Accelerator"]:
    """Yield an Accelerator; afterwards accelerate is as it was before.

    The process group of a distributed run stays: it belongs to the launched process.

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


@contextmanager
def lent(model: nn.Module, accelerator: "Accelerator") -> Iterator[nn.Module]:
    """Yield the model made ready for training on the accelerator's device.

    Afterwards the model is on its own device again, without gradients, every module in its own mode; its
    parameters and buffers have changed by what the block did.
    """
    modes = [(module, module.training) for module in model.modules()]
    home = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)
    marked = hasattr(model, "_is_accelerate_prepared")
    try:
        yield accelerator.prepare_model(model)
    finally:
        if not marked and hasattr(model, "_is_accelerate_prepared"):
            delattr(model, "_is_accelerate_prepared")
        model.zero_grad(set_to_none=True)
        for module, training in modes:
            module.training = training
        if home is not None:
            model.to(home)


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
