"""What operators return for which forms of arguments, remembered.

The form of a tensor is all that a simulation needs, and a network repeats few forms many times. PyTorch's own
cache of simulated results spends most of its time on finding out whether two calls are alike; the recorder
has written the forms of all arguments down already. Only operators of PyTorch and of convscope are
remembered, whose results follow from the forms alone.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager

from convscope.tape.calls import Ref, Value
from convscope.tape.operators import Operator
from convscope.tape.stated_forms import Fresh, stated

_MOST = 200_000
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class _View:
    """A result that lies in the storage of one of the tensors given."""

    of: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _Given:
    """A result that is one of the tensors given."""

    position: int


_Form = Fresh | _View | _Given | None


@dataclass(frozen=True)
class _Forms:
    """The results of a call: their container (None for a single one) and their forms."""

    container: type | None
    forms: tuple[_Form, ...]


_remembered: dict[Any, _Forms] = {}


def key_of(
    known: Operator, arguments: dict[str, Any], values: list[Value], tensors: list[torch.Tensor]
) -> Any:
    """Return what a call's results follow from, or None if they don't follow from forms alone.

    Args:
        known: the operator.
        arguments: by name, tensors as references.
        values: of the recording.
        tensors: those among the arguments, in order.
    """
    if not known.follows_from_forms or torch.is_inference_mode_enabled():
        return None
    for tensor in tensors:
        if type(tensor) is not FakeTensor or tensor.constant is not None or tensor.dtype.is_complex:
            return None
        if tensor.layout is not torch.strided or tensor.fake_device != _CPU:
            return None

    try:
        key = (
            known.overload,
            torch.get_default_dtype(),
            *[_key(item, values) for item in arguments.values()],
        )
        hash(key)
    except TypeError:
        return None
    return key


def recall(
    key: Any, known: Operator, arguments: dict[str, Any], mode: FakeTensorMode, tensors: list[torch.Tensor]
) -> tuple[bool, Any]:
    """Return whether the forms of a call's results are known, and its result on these tensors."""
    if key is None:
        return False, None
    forms = _remembered.get(key) or _plain(key, known, arguments, tensors)
    if forms is None:
        return False, None
    made = [_make(form, mode, tensors) for form in forms.forms]
    return True, made[0] if forms.container is None else forms.container(made)


def _plain(
    key: Any, known: Operator, arguments: dict[str, Any], tensors: list[torch.Tensor]
) -> _Forms | None:
    found = stated(known.overload, arguments, tensors)
    if found is None:
        return None
    forms = _Forms(tuple, found) if isinstance(found, tuple) else _Forms(None, (found,))
    _keep(key, forms)
    return forms


def _keep(key: Any, forms: _Forms) -> None:
    if len(_remembered) >= _MOST:
        _remembered.clear()
    _remembered[key] = forms


def remember(key: Any, result: Any, tensors: list[torch.Tensor]) -> None:
    """Note the forms of a result for the next call like this one."""
    single = isinstance(result, torch.Tensor)
    if key is None or not (single or type(result) in (tuple, list)):
        return
    try:
        forms = tuple(_form_of(leaf, tensors) for leaf in ([result] if single else result))
    except _NotAForm:
        return
    fresh = [leaf for leaf, form in zip([result] if single else result, forms) if isinstance(form, Fresh)]
    if len({leaf.untyped_storage()._cdata for leaf in fresh}) < len(fresh):
        return  # results that share a storage
    _keep(key, _Forms(None if single else type(result), forms))


def detached(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    """Return a simulated tensor over the same storage that autograd knows nothing of."""
    with in_kernel_invocation_manager(mode):
        view = tensor.detach()
    return FakeTensor(mode, view, _CPU)


def _key(item: Any, values: list[Value]) -> Any:
    if type(item) is Ref:
        value = values[item.value]
        return value.shape, value.stride, value.dtype, value.offset
    if type(item) is tuple:
        return tuple([_key(element, values) for element in item])
    return type(item), item  # 1, 1.0 and True are equal, but promote differently


class _NotAForm(Exception):  # noqa: N818
    """A result that forms don't describe."""


def _form_of(leaf: Any, tensors: list[torch.Tensor]) -> _Form:
    if leaf is None:
        return None
    if type(leaf) is not FakeTensor or leaf.constant is not None or leaf.layout is not torch.strided:
        raise _NotAForm
    if leaf.fake_device != _CPU or leaf.is_neg() or leaf.is_conj():
        raise _NotAForm
    for position, tensor in enumerate(tensors):
        if leaf is tensor:
            return _Given(position)
    storage = leaf.untyped_storage()
    shape, stride, offset = tuple(leaf.shape), leaf.stride(), int(leaf.storage_offset())
    for position, tensor in enumerate(tensors):
        if tensor.untyped_storage()._cdata == storage._cdata:
            if leaf.dtype != tensor.dtype:
                raise _NotAForm
            return _View(position, shape, stride, offset)
    if offset or storage.nbytes() != _extent(shape, stride) * leaf.dtype.itemsize or leaf.dtype.is_complex:
        raise _NotAForm
    return Fresh(shape, stride, leaf.dtype)


def _extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements that a storage must have."""
    return 0 if 0 in shape else 1 + sum((size - 1) * step for size, step in zip(shape, stride))


def _make(form: _Form, mode: FakeTensorMode, tensors: list[torch.Tensor]) -> torch.Tensor | None:
    if form is None:
        return None
    if isinstance(form, _Given):
        return tensors[form.position]
    with in_kernel_invocation_manager(mode):
        if isinstance(form, Fresh):
            meta = torch.empty_strided(form.shape, form.stride, dtype=form.dtype, device="meta")
        else:
            meta = torch.as_strided(tensors[form.of], form.shape, form.stride, form.offset)
    return FakeTensor(mode, meta, _CPU)
