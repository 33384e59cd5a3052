"""Why a real step failed, in one line: in which phase, of what, and what to do."""

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.tape import TrainingPlan
from convscope.tape.failures import first_line

SETTING_UP = "preparation"
"""What comes before the first phase: copies of the tensors, random inputs, the optimizer."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def step_failed(
    phase: str, error: Exception, model: nn.Module, plan: TrainingPlan | None, device: torch.device
) -> ConvscopeError:
    """Return the error for a real step that raised one.

    Args:
        phase: of the step, or :data:`SETTING_UP`.
        error: what was raised.
        model: the network.
        plan: the training step; None for inference.
        device: where the step ran.
    """
    path = _module_of(error, model)
    place = f"{phase}, at {path}" if path else phase
    given = f"a real step on {device.type} fails in {place} ({type(error).__name__}: {first_line(error)})"
    if _is_out_of_memory(error):
        return ConvscopeError(given, "memory for a step with copies of its tensors", "take a smaller batch")
    action = "check the network with these inputs, or leave the real step out"
    if plan is not None and plan.precision != "fp32":
        action = f"try another precision than {plan.precision}, such as fp32, or leave the real step out"
    return ConvscopeError(given, "a network and a plan that really run there", action)


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in text for words in _OUT_OF_MEMORY
    )


def _module_of(error: Exception, model: nn.Module) -> str:
    """The path of the innermost submodule whose code the exception went through; empty if there is none."""
    names = {id(module): name for name, module in model.named_modules()}
    path, trace = "", error.__traceback__
    while trace is not None:
        path = names.get(id(trace.tb_frame.f_locals.get("self")), "") or path
        trace = trace.tb_next
    return path
