"""Did a tool leave a model as it was? Hashes of everything that running a model could change.

Two fingerprints are equal if parameters, buffers, modes, hooks and random generators are: bit for bit, and by
name, shape, dtype and ``requires_grad``. Not seen: gradients, plain attributes, and what lies outside the
model, such as an optimizer.
"""

import hashlib
import os
import pickle
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_forward_hooks_always_called",
    "_global_forward_hooks_with_kwargs",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
    "_global_buffer_registration_hooks",
    "_global_module_registration_hooks",
    "_global_parameter_registration_hooks",
)
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 in hexadecimal digits, of each part of a model's state.

    Attributes:
        parameters: names, shapes, dtypes, ``requires_grad`` and bytes of the parameters.
        buffers: the same of the buffers.
        modes: class and ``training`` flag of every module, by name.
        hooks: which hooks hang on every module, and on all modules at once.
        rng: states of the generators of Python, NumPy and PyTorch (CPU; CUDA where it is in use).
    """

    parameters: str
    buffers: str
    modes: str
    hooks: str
    rng: str


def fingerprint(model: nn.Module) -> Fingerprint:
    """Return hashes of a model's state: parameters, buffers, modes, hooks, and random generators.

    Hooks count by module, kind, function and the number that PyTorch gives every hook of a process. The
    tensors of a model on a device are copied to the CPU, one after the other.

    Args:
        model: any module; tensors that aren't there yet (lazy, or on the meta device) count by shape alone.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> before = fingerprint(norm)
        >>> _ = norm(torch.ones(4, 2))
        >>> after = fingerprint(norm)
        >>> before.buffers == after.buffers, before.parameters == after.parameters
        (False, True)
    """
    modules = list(model.named_modules(remove_duplicate=False))
    parameters = list(model.named_parameters(remove_duplicate=False))
    buffers = list(model.named_buffers(remove_duplicate=False))
    digests = _digests(tensor for _, tensor in (*parameters, *buffers))
    return Fingerprint(
        parameters=_hash(_tensor_line(name, t, digests) for name, t in parameters),
        buffers=_hash(_tensor_line(name, t, digests) for name, t in buffers),
        modes=_hash(f"{name} {type(m).__qualname__} {m.training}" for name, m in modules),
        hooks=_hash(
            chain(
                _module_hooks(modules),
                _tensor_hooks(parameters),
                _registered("everywhere", vars(nn_module), _GLOBAL_HOOKS),
            )
        ),
        rng=_hash(_generators()),
    )


def weights_fingerprint(model: nn.Module) -> str:
    """Return a hash of a model's parameters and buffers: names, shapes, strides, dtypes and bytes.

    Wherever the model lies, whichever mode it is in, and whether it is trained or not.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> weights_fingerprint(norm) == weights_fingerprint(norm.eval().requires_grad_(False))
        True
    """
    tensors = dict(
        chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    )
    digests = _digests(tensors.values())
    return _hash(
        f"{name} {tuple(t.shape)} {t.stride()} {t.dtype} {digests[id(t)]}" for name, t in tensors.items()
    )


def _digests(tensors: Iterable[Tensor]) -> dict[int, str]:
    """A hash of each tensor's bytes, by identity; in threads, since hashing lets go of Python's lock."""
    distinct = list({id(tensor): tensor for tensor in tensors}.values())
    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(map(id, distinct), threads.map(_digest, distinct), strict=True))


def _digest(tensor: Tensor) -> str:
    if nn.parameter.is_lazy(tensor) or tensor.is_meta:
        return "no data"
    content = tensor.detach()
    if is_traceable_wrapper_subclass(content):
        inner, _ = content.__tensor_flatten__()
        return _hash(_digest(getattr(content, name)) for name in inner)
    dense = content if content.layout is torch.strided else content.to_dense()
    flat = dense.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    content_bytes: Any = flat.view(torch.uint8).numpy()
    return hashlib.sha256(content_bytes).hexdigest()


def _tensor_line(name: str, tensor: Tensor, digests: dict[int, str]) -> str:
    shape = "lazy" if nn.parameter.is_lazy(tensor) else tuple(tensor.shape)
    facts = (type(tensor).__qualname__, shape, tensor.dtype, tensor.device, tensor.requires_grad)
    return f"{name} {facts} {digests[id(tensor)]}"


def _module_hooks(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[str]:
    for name, module in modules:
        yield from _registered(name, vars(module), _HOOKS)
        if "forward" in vars(module):
            yield f"{name} forward is {_named(vars(module)['forward'])}"


def _tensor_hooks(parameters: Iterable[tuple[str, Tensor]]) -> Iterator[str]:
    for name, parameter in parameters:
        for kind in _TENSOR_HOOKS:
            hooks = getattr(parameter, kind, None) or {}
            yield from (f"{name} {kind} {key} {_named(hook)}" for key, hook in hooks.items())


def _registered(owner: str, namespace: dict[str, Any], kinds: Iterable[str]) -> Iterator[str]:
    """One line for every hook in a module's, or in the module system's, own dictionaries."""
    for kind in kinds:
        for key, hook in (namespace.get(kind) or {}).items():
            yield f"{owner} {kind} {key} {_named(hook)}"


def _named(hook: Any) -> str:
    return f"{getattr(hook, '__module__', '')}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"


def _generators() -> Iterator[str | bytes]:
    yield repr(random.getstate())
    yield pickle.dumps(np.random.get_state())  # noqa: NPY002 (the user's global state)
    yield torch.get_rng_state().numpy().tobytes()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield from (state.numpy().tobytes() for state in torch.cuda.get_rng_state_all())


def _hash(parts: Iterable[str | bytes]) -> str:
    """One hash of all parts, each with its length, so that no two lists of parts read alike."""
    total = hashlib.sha256()
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        total.update(len(encoded).to_bytes(8, "little") + encoded)
    return total.hexdigest()
