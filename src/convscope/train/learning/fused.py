"""PyTorch's fused optimizers, where they are right: one pass over memory in place of several.

Their kernels walk through parameter, gradient and state as they lie in memory, and check nothing: with a
gradient of other strides than its parameter (``channels_last`` weights, say) PyTorch 2.13 adds the wrong
elements to one another, without a word. And on the CPU their bfloat16 steps are wrong by several percent,
from 16 elements on. In the last bit a step depends on the number of threads, which share out each tensor.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_EXACT_ON_CPU = (torch.float32, torch.float64)


def can_fuse(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether fused kernels are right for these parameters, once :func:`keep_layouts` minds the rest."""
    return all(_is_plain(p) and _is_dense(p) for p in parameters)


def keep_layouts(optimizer: Optimizer) -> None:
    """Let every step and every loaded state of an optimizer have its parameters' strides."""
    optimizer.register_step_pre_hook(_lay_out_gradients)
    optimizer.register_load_state_dict_post_hook(_lay_out_state)


def _is_plain(parameter: nn.Parameter) -> bool:
    if type(parameter) is not nn.Parameter:
        return False
    if parameter.device.type == "cpu":
        return parameter.dtype in _EXACT_ON_CPU
    return parameter.device.type == "cuda" and parameter.is_floating_point()


def _is_dense(parameter: nn.Parameter) -> bool:
    """Whether its elements fill one piece of memory; a slice of something larger doesn't."""
    return torch.empty_like(parameter, device="meta").stride() == parameter.stride()


def _lay_out_gradients(optimizer: Optimizer, *_: object) -> None:
    for parameter in _parameters(optimizer):
        if parameter.grad is not None:
            parameter.grad = _laid_out(parameter.grad, parameter)


def _lay_out_state(optimizer: Optimizer) -> None:
    for parameter in _parameters(optimizer):
        state = optimizer.state.get(parameter, {})
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = _laid_out(value, parameter)


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.layout is torch.strided and tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype, requires_grad=False).copy_(tensor.to_dense())


def _parameters(optimizer: Optimizer) -> Iterable[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])
