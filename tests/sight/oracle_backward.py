"""What stands in for activations, gates and norms in the oracle's runs."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sight.oracle_gates import GATES, Gate, NoRuleError, hardtanh

# Constants to the rules: gates and statistics.
_CONSTANT = {"sigmoid", "hardsigmoid", "softmax", "norm", "var", "std", "var_mean", "std_mean", "vector_norm"}
# Linear, or a choice of values. Whatever is neither here nor above has no rule.
_LINEAR = {
    "__get__", "__getitem__", "__set__", "__setitem__", "adaptive_avg_pool2d", "adaptive_max_pool2d", "add",
    "amax", "avg_pool2d", "cat", "chunk", "clone", "contiguous", "copy", "detach", "double", "dropout",
    "expand", "expand_as", "flatten", "flip", "float", "interpolate", "masked_fill", "max", "max_pool2d",
    "maximum", "mean", "movedim", "narrow", "neg", "pad", "permute", "pixel_shuffle", "pixel_unshuffle",
    "repeat", "reshape", "reshape_as", "roll", "rsub", "select", "split", "squeeze", "stack", "sub", "sum",
    "t", "to", "transpose", "type_as", "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as",
    "where",
}  # fmt: skip
_PRODUCTS = {
    "mul", "multiply", "matmul", "bmm", "mm", "baddbmm", "einsum", "conv1d", "conv2d", "conv3d", "linear",
    "addcmul", "conv_transpose2d", "bilinear", "div", "divide", "true_divide", "addcdiv",
}  # fmt: skip
_MAY_BE_RELU = {"relu", "clamp", "clip", "clamp_min", "threshold", "maximum", "max", "where"}
_OPERATORS = {
    "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul_", "__truediv__": "div", "__itruediv__": "div_",
    "__rtruediv__": "reciprocal", "__matmul__": "matmul", "__rmatmul__": "matmul", "__pow__": "pow",
    "__ipow__": "pow_", "__rpow__": "exp",
}  # fmt: skip


class _Passed(torch.autograd.Function):
    """Any function of x forward, any rule backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]):
        ctx.back = back
        return value(x)

    @staticmethod
    def backward(ctx: Any, signal: Tensor):
        return ctx.back(signal), None, None


class Rewritten(TorchFunctionMode):
    """Runs of a network in which activations, gates and norms are passed on the way back by a rule.

    Args:
        rule: one that isn't the gradient.
        only_relus: leave everything but ReLUs to its own derivative, as tools do that know nothing else.
    """

    def __init__(self, rule: str, only_relus: bool = False) -> None:
        super().__init__()
        assert rule in ("deconvnet", "guided", "gated")
        self.rule, self.only_relus = rule, only_relus

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        operands = list(flat([*args, *kwargs.values()]))
        if not torch.is_grad_enabled() or not any(map(_leads_back, operands)):
            return func(*args, **kwargs)
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        name = getattr(func, "__name__", "")
        name = _OPERATORS.get(name, name)
        plain = name if name.startswith("__") else name.strip("_")
        if self.only_relus and plain not in _MAY_BE_RELU:
            return func(*args, **kwargs)
        if own := getattr(self, f"_on_{plain}", None):
            return own(func, *args, **kwargs)
        if plain in ("relu", *GATES):
            gate = None if plain == "relu" else GATES[plain]
            return self._activation(func, name, args, kwargs, gate)
        if plain in _CONSTANT:
            return detached(func(*args, **kwargs))
        if plain in _LINEAR or (plain in _PRODUCTS and not self._is_product(plain, args, operands)):
            return func(*args, **kwargs)
        return _refused(func, name, args, kwargs)

    def _is_product(self, plain: str, args: tuple, operands: list[Any]) -> bool:
        """Whether it isn't linear in what leads to the image."""
        by_image = plain.endswith(("div", "divide")) and _leads_back(args[-1])
        return by_image or sum(map(_leads_back, operands)) > 1

    # Activations -------------------------------------------------------------------------------------

    def _activation(self, func: Any, name: str, args: tuple, kwargs: dict, gate: Gate | None) -> Tensor:
        if gate is not None and self.only_relus:
            return func(*args, **kwargs)
        x = args[0].detach().clone()
        rest = [value.detach() if isinstance(value, Tensor) else value for value in args[1:]]
        options = {key: value for key, value in kwargs.items() if key != "training"}

        def back(signal: Tensor) -> Tensor:
            rectified = torch.maximum(signal, torch.zeros_like(signal))
            if gate is None:
                return rectified if self.rule == "deconvnet" else rectified * (x > 0)
            if self.rule != "gated":
                raise NoRuleError(name)
            return rectified * gate(x, *rest, **options)

        made = _Passed.apply(args[0].clone(), lambda x: func(x.clone(), *args[1:], **kwargs), back)
        in_place = name.endswith("_") or kwargs.get("inplace", False) or args[-1] is True
        return args[0].copy_(made) if in_place else made

    def _on_clamp(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        bounds = dict(zip(("min", "max"), args)) | kwargs
        low, high = bounds.get("min"), bounds.get("max")
        if low == 0 and high is None:
            return self._activation(func, func.__name__, (x, *args), kwargs, None)
        low, high = -torch.inf if low is None else low, torch.inf if high is None else high
        return self._activation(
            func, func.__name__, (x, *args), kwargs, lambda x, *_, **__: hardtanh(x, low, high)
        )

    _on_clip = _on_clamp_min = _on_clamp

    def _on_threshold(self, func: Any, x: Tensor, threshold: float, value: float, inplace: bool = False):
        gate = None if threshold == value == 0 else GATES["threshold"]
        return self._activation(func, func.__name__, (x, threshold, value, inplace), {}, gate)

    def _on_maximum(self, func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        other = args[0] if args else None
        if isinstance(other, Tensor) and not _leads_back(other) and not bool(other.any()):
            return self._activation(func, func.__name__, (x, other), kwargs, None)
        return func(x, *args, **kwargs)

    _on_max = _on_maximum

    def _on_where(self, func: Any, condition: Tensor, *choices: Any) -> Any:
        if len(choices) == 2 and condition.dtype is not torch.bool:  # x.where(condition, other)
            condition, choices = choices[0], (condition, choices[1])
        if len(choices) == 2 and _leads_back(choices[0]) and not _leads_back(choices[1]):
            kept, other = choices
            is_zero = not bool(torch.as_tensor(other).any())
            if is_zero and torch.equal(condition.expand_as(kept), kept.detach() > 0):
                return self._activation(lambda x: torch.where(condition, x, other), "relu", (kept,), {}, None)
        return torch.where(condition, *choices)

    # Gates -------------------------------------------------------------------------------------------

    def _on_glu(self, func: Any, x: Tensor, dim: int = -1) -> Tensor:
        value, gate = x.chunk(2, dim)
        return _as(func(x, dim), value * torch.sigmoid(gate.detach()))

    def _on_scaled_dot_product_attention(
        self, func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The weights are what one-hot values would give."""
        exact = func(query, key, value, *args, **kwargs)
        one_hot = torch.eye(key.shape[-2], dtype=value.dtype).expand(*value.shape[:-1], -1)
        weights = func(query.detach(), key.detach(), one_hot.contiguous(), *args, **kwargs)
        return _as(exact, weights @ value)

    # Norms -------------------------------------------------------------------------------------------

    def _on_local_response_norm(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _Passed.apply(x, lambda y: func(y, *args, **kwargs), lambda signal: signal)

    def _on_normalize(
        self, func: Any, x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
    ):
        length = x.detach().norm(p, dim, keepdim=True).clamp(min=eps)
        return _as(func(x, p, dim, eps), x / length)

    def _on_layer_norm(
        self,
        func: Any,
        x: Tensor,
        normalized_shape: Any,
        weight: Any = None,
        bias: Any = None,
        eps: float = 1e-5,
    ) -> Tensor:
        over = tuple(range(-len(normalized_shape), 0))
        exact = func(x, normalized_shape, weight, bias, eps)
        return _as(exact, _scaled(_standard(x, over, eps), weight, bias))

    def _on_rms_norm(
        self, func: Any, x: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None
    ) -> Tensor:
        over = tuple(range(-len(normalized_shape), 0))
        size = (x.detach() ** 2).mean(over, keepdim=True)
        scale = torch.rsqrt(size + (torch.finfo(x.dtype).eps if eps is None else eps))
        return _as(func(x, normalized_shape, weight, eps), _scaled(x * scale, weight, None))

    def _on_group_norm(self, func: Any, x: Tensor, num_groups: int, weight: Any = None, bias: Any = None,
                    eps: float = 1e-5) -> Tensor:  # fmt: skip
        groups = x.reshape(x.shape[0], num_groups, -1)
        made = _standard(groups, (2,), eps).reshape(x.shape)
        by_channel = [None if t is None else t.reshape([-1] + [1] * (x.dim() - 2)) for t in (weight, bias)]
        return _as(func(x, num_groups, weight, bias, eps), _scaled(made, *by_channel))

    def _on_instance_norm(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
        given = dict(zip(names, args)) | kwargs
        exact = func(x, *args, **kwargs)
        if not given.get("use_input_stats", True):
            return exact
        over = tuple(range(2, x.dim()))
        ends = [1] * (x.dim() - 2)
        by_channel = [None if t is None else t.reshape(-1, *ends) for t in (given["weight"], given["bias"])]
        return _as(exact, _scaled(_standard(x, over, given.get("eps", 1e-5)), *by_channel))

    def _on_batch_norm(
        self,
        func: Any,
        x: Tensor,
        mean: Any,
        var: Any,
        weight: Any = None,
        bias: Any = None,
        training: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        given = (x, mean, var, weight, bias, training, *args)
        return _refused(func, "batch_norm", given, kwargs) if training else func(*given, **kwargs)


def _refused(func: Any, name: str, args: tuple, kwargs: dict) -> Any:
    """What a function gives, which no signal passes."""

    def back(signal: Tensor) -> Tensor:
        raise NoRuleError(name)

    if not name.endswith("_") or name.endswith("__"):
        made = func(*args, **kwargs)
        if isinstance(made, tuple) and any(map(_leads_back, made)):
            return type(made)([_Passed.apply(part, lambda y: y.clone(), back) for part in made])
        return _Passed.apply(made, lambda y: y.clone(), back) if _leads_back(made) else made
    return args[0].copy_(_Passed.apply(args[0].clone(), lambda x: func(x.clone(), *args[1:], **kwargs), back))


def _standard(x: Tensor, over: tuple[int, ...], eps: float) -> Tensor:
    values = x.detach()
    mean = values.mean(over, keepdim=True)
    variance = ((values - mean) ** 2).mean(over, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _as(exact: Tensor, made: Tensor) -> Tensor:
    """The values of a function exactly as it computes them, on the way back through the formula ``made``."""
    torch.testing.assert_close(made.detach(), exact.detach(), rtol=1e-9, atol=1e-9)
    values = exact.detach()
    return _Passed.apply(made, lambda _: values.clone(), lambda signal: signal)


def flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from flat(value)
        else:
            yield value


def _leads_back(value: Any) -> bool:
    """Whether a value depends on the image: parameters don't require gradients here."""
    return isinstance(value, Tensor) and value.requires_grad


def detached(made: Any) -> Any:
    return tuple(part.detach() for part in made) if isinstance(made, tuple) else made.detach()
