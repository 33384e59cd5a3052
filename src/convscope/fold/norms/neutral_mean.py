"""The running mean of a folded batch norm that is called as a function: such a call returns its input.

A tensor of zeros whose class answers for the functions that are given it, as every subclass of tensor can:
``batch_norm`` and ``instance_norm`` return what they were to normalise. Whoever makes the call, in whatever
method and how often, no operator runs. For everything else it is a tensor of zeros.

Source: PyTorch's documentation, "Extending torch with a Tensor-like type" (``__torch_function__``).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NORMALISING = (F.batch_norm, torch.batch_norm, F.instance_norm, torch.instance_norm)
"""The functions that run a batch norm by running statistics; their first argument is ``input``."""
# What copies and casts of it are one too.
_COPYING = (
    Tensor.detach, Tensor.clone, Tensor.contiguous, Tensor.to, Tensor.type_as, Tensor.cpu, Tensor.cuda,
    Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16,
)  # fmt: skip
_BIAS_AT = {F.batch_norm: 4, torch.batch_norm: 2, F.instance_norm: 4, torch.instance_norm: 2}


class NeutralMean(Tensor):
    """Zeros, by which a batch norm returns its input.

    Example:
        >>> mean = torch.zeros(2).as_subclass(NeutralMean)
        >>> F.batch_norm(torch.ones(1, 2), mean, torch.ones(2) * 4)
        tensor([[1., 1.]])
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in NORMALISING:
            return cls.normalised(func, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        return result.as_subclass(cls) if func in _COPYING and isinstance(args[0], cls) else result

    @classmethod
    def normalised(cls, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of a batch norm."""
        del func
        return args[0] if args else kwargs["input"]

    def __deepcopy__(self, memo: Any) -> Tensor:
        if id(self) not in memo:
            memo[id(self)] = self.detach().clone()
        copied: Tensor = memo[id(self)]
        return copied


class NeutralMeanBeforeBias(NeutralMean):
    """Zeros, by which a batch norm adds its bias and nothing else.

    Example:
        >>> mean = torch.zeros(2).as_subclass(NeutralMeanBeforeBias)
        >>> F.batch_norm(torch.ones(1, 2), mean, torch.ones(2) * 4, bias=torch.tensor([3.0, 4.0]))
        tensor([[4., 5.]])
    """

    @classmethod
    def normalised(cls, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of a batch norm."""
        value = args[0] if args else kwargs["input"]
        bias = args[_BIAS_AT[func]] if len(args) > _BIAS_AT[func] else kwargs.get("bias")
        return value if bias is None else value + bias.reshape((-1,) + (1,) * (value.dim() - 2))
