"""Simulated tensors: a model and its inputs on fake CPU tensors, with nothing allocated.

Parameters and buffers are replaced for the time of a recording; ties survive. Fake CPU tensors are used
on every host, so that tapes agree across machines.
"""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, UnsupportedFakeTensorException
from torch.utils._pytree import tree_leaves, tree_map

from convscope.core.errors import ConvscopeError
from convscope.core.modes import set_modes
from convscope.core.preserved import preserved_rng, preserved_structure
from convscope.tape.accepted import require_eager, require_shapes, require_values

Inputs = Any
"""A tensor, a tuple, list or dict of tensors, or a shape tuple such as ``(128, 3, 227, 227)``."""


@dataclass
class Simulated:
    """A model whose tensors are fake for now.

    Attributes:
        mode: the fake tensors' mode.
        real: whether the tensors are copies on the CPU instead.
        args, kwargs: the fake inputs.
        parameters, buffers: the fake tensors by name, tied names included.
        originals: the real parameters.
        twin_of: returns the fake twin of a real parameter or buffer, or None for other tensors.
        original_of: returns the real tensor that a twin stands for, or None for other tensors.
        copied: returns a fake twin of any tensor.
    """

    mode: FakeTensorMode
    real: bool = False
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, torch.Tensor] = field(default_factory=dict)
    buffers: dict[str, torch.Tensor] = field(default_factory=dict)
    originals: list[torch.Tensor] = field(default_factory=list)
    twin_of: Callable[[torch.Tensor], torch.Tensor | None] = lambda _: None
    original_of: Callable[[torch.Tensor], torch.Tensor | None] = lambda _: None
    copied: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor


@contextlib.contextmanager
def simulated(
    model: nn.Module,
    inputs: Inputs,
    *,
    training: bool,
    dtype: torch.dtype | None = None,
    real: bool = False,
    channels_last: bool = False,
) -> Iterator[Simulated]:
    """Run a block in which ``model`` holds fake tensors; afterwards it is as it was, whatever happened.

    Args:
        model: any eager module.
        inputs: see :data:`Inputs`; floating inputs given as a shape take the model's dtype.
        training: True leaves the modes of a model in training mode alone and puts one in evaluation mode
            into training; False puts all modules into evaluation mode.
        dtype: floating tensors are simulated in this dtype instead of their own.
        channels_last: tensors with four axes lie in ``channels_last`` order, those with five in
            ``channels_last_3d``.
        real: put copies on the CPU in the tensors' place, and random inputs, in place of fake tensors.

    Raises:
        ConvscopeError: the model can't be simulated, or the inputs aren't of the kinds above.
    """
    require_values(model) if real else require_shapes(model)
    require_eager(model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    mode.cache_enabled = False  # the recorder remembers more; this one forgets that results share a storage
    convert = _Converter(mode, dtype, real, channels_last)
    with preserved_rng(), preserved_structure(model), torch.compiler.set_stance("force_eager"), _quiet():
        state = Simulated(mode, real, originals=list(model.parameters()))
        state.twin_of, state.original_of, state.copied = convert.known, convert.original, convert
        for path, module in model.named_modules(remove_duplicate=False):
            _replace_tensors(module, path, convert)
        with contextlib.nullcontext() if real else mode:  # networks that write to their weights there
            set_modes(model, training=training)
        state.parameters = dict(model.named_parameters(remove_duplicate=False))
        state.buffers = dict(model.named_buffers(remove_duplicate=False))
        state.args, state.kwargs = _fake_inputs(inputs, convert, _floating_dtype(model))
        yield state


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch from logging a traceback for an operator that fails: the error is raised and named."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


class _Converter:
    """Makes the fake twin (or a real one) of a tensor; one twin per tensor and one storage per storage."""

    def __init__(
        self, mode: FakeTensorMode, dtype: torch.dtype | None, real: bool, channels_last: bool
    ) -> None:
        self._formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
        self.mode, self.dtype, self.real = mode, dtype, real
        self._copied: dict[Any, Any] = {}
        self._storages: dict[Any, torch.Tensor] = {}
        self._twins: dict[int, torch.Tensor] = {}
        self._originals: list[torch.Tensor] = []

    def known(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the twin of a tensor that has one already, and isn't one."""
        twin = self._twins.get(id(tensor))
        return None if twin is tensor else twin

    def original(self, twin: torch.Tensor) -> torch.Tensor | None:
        """Return the tensor that a twin stands for."""
        pairs = zip(self._originals[::2], self._originals[1::2])
        return next((original for original, made in pairs if made is twin), None)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in self._twins:
            return self._twins[id(tensor)]
        twin = self._copy(tensor) if self.real else self._twin(tensor)
        twin.grad = None
        self._twins[id(tensor)] = self._twins[id(twin)] = twin
        self._originals += [tensor, twin]
        return twin

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return an input of a shape."""
        if self.real:
            return self._reordered(torch.randn(shape).to(dtype))
        with self.mode:
            return torch.empty_strided(shape, self._stride(torch.empty(shape, device="meta")), dtype=dtype)

    def _stride(self, tensor: torch.Tensor) -> tuple[int, ...]:
        """The strides that a tensor's twin has."""
        format_ = self._formats.get(tensor.dim())
        empty = None if format_ is None else torch.empty(tensor.shape, device="meta", memory_format=format_)
        return tensor.stride() if empty is None else empty.stride()

    def _reordered(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(memory_format=self._formats.get(tensor.dim(), torch.preserve_format))

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        twin = copy.deepcopy(tensor.detach().cpu(), self._copied)
        if self.dtype is not None and tensor.is_floating_point():
            twin = twin.to(self.dtype)
        twin = self._reordered(twin)
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(twin, requires_grad=tensor.requires_grad)
        return twin.requires_grad_(tensor.requires_grad and tensor.is_leaf)

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor:
        recast = self.dtype is not None and tensor.is_floating_point() and tensor.dtype != self.dtype
        plain = tensor.layout is torch.strided and not tensor.is_inference()
        plain = plain and tensor.dim() not in self._formats
        if tensor.device.type == "cpu" and not recast and plain:
            if tensor.is_leaf:
                return self.mode.from_tensor(tensor)
            return self.mode.from_tensor(tensor.detach()).requires_grad_(tensor.requires_grad)
        with self.mode:
            twin = self._empty_twin(tensor, self.dtype if recast else tensor.dtype)
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(twin, requires_grad=tensor.requires_grad)
        return twin.requires_grad_(tensor.requires_grad and tensor.is_leaf)

    def _empty_twin(self, tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
        """A simulated tensor that lies in its storage's twin as the tensor does in its storage."""
        storage = tensor.untyped_storage() if tensor.layout is torch.strided else None
        if storage is None or tensor.dim() in self._formats:
            return torch.empty_strided(tensor.shape, self._stride(tensor), dtype=dtype, device="cpu")
        key = storage._cdata, tensor.dtype
        if key not in self._storages:
            self._storages[key] = torch.empty(storage.nbytes() // tensor.itemsize, dtype=dtype, device="cpu")
        return self._storages[key].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).detach()


def _replace_tensors(module: nn.Module, path: str, convert: _Converter) -> None:
    for kind in ("_parameters", "_buffers"):
        replaced = {}
        for name, tensor in getattr(module, kind).items():
            try:
                replaced[name] = None if tensor is None else convert(tensor)
            except UnsupportedFakeTensorException as error:
                raise ConvscopeError(
                    f"tensor {'.'.join(filter(None, (path, name)))!r} can't be simulated ({error})",
                    "dense tensors of numbers",
                    "record the network before it is quantised or made sparse",
                ) from error
        module.__dict__[kind] = replaced


def _floating_dtype(model: nn.Module) -> torch.dtype:
    floating = (t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    return next(floating, torch.get_default_dtype())


def _fake_inputs(
    inputs: Inputs, convert: _Converter, dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that the model is called with."""

    def fake(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            if not item.numel():
                raise ConvscopeError(
                    f"an input of shape {tuple(item.shape)}", "sizes of at least 1", "give at least one item"
                )
            return convert(item)
        if _is_shape(item):
            return convert.empty(tuple(item), convert.dtype or dtype)
        raise _bad_inputs(item)

    if isinstance(inputs, Mapping):
        return (), {str(name): _nested(item, fake) for name, item in inputs.items()}
    if isinstance(inputs, torch.Tensor) or _is_shape(inputs):
        return (fake(inputs),), {}
    if isinstance(inputs, Sequence) and not isinstance(inputs, str) and inputs:
        return tuple(_nested(item, fake) for item in inputs), {}
    raise _bad_inputs(inputs)


def _nested(item: Any, fake: Any) -> Any:
    if isinstance(item, torch.Tensor) or _is_shape(item):
        return fake(item)
    if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(item)):
        return item
    return tree_map(lambda leaf: fake(leaf) if isinstance(leaf, torch.Tensor) else leaf, item)


def _is_shape(item: Any) -> bool:
    if isinstance(item, torch.Size):
        item = tuple(item)
    whole = isinstance(item, tuple) and bool(item) and all(type(size) is int for size in item)
    if whole and min(item) < 1:
        raise ConvscopeError(
            f"input shape {item}", "sizes of at least 1", "give batch, channels, height, width"
        )
    return whole


def _bad_inputs(item: Any) -> ConvscopeError:
    return ConvscopeError(
        f"inputs of type {type(item).__name__} ({str(item)[:60]})",
        "a tensor, a tuple or dict of tensors, or a shape such as (1, 3, 224, 224)",
        "pass one of these",
    )
