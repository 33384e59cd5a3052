"""Reading a file of tensors: safetensors, or a PyTorch checkpoint of which only tensors are read.

Checkpoints of training scripts nest their tensors in dictionaries (``{"state_dict": …, "ema": …}``); every
such dictionary is a :class:`TensorSet` here, and :mod:`convscope.networks.weights` chooses among them. A
PyTorch file is a pickle, which can run code when it is read; PyTorch's weights-only reader refuses
everything but tensors and plain containers, and there is no way around it here.
"""

import pickle
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from convscope.core.errors import ConvscopeError

_DEEPEST = 3
_TENSORS = "a safetensors file or a PyTorch checkpoint of tensors"


@dataclass(frozen=True)
class TensorSet:
    """Tensors that lie together in a file.

    Attributes:
        place: keys that lead to them, such as ``"checkpoint.model_ema"``; empty for the top of the file.
        tensors: by name.
    """

    place: str
    tensors: dict[str, Tensor]

    @property
    def is_average(self) -> bool:
        """Whether these are an exponential moving average of the weights, judged by their place's name."""
        return any("ema" in key.lower().split("_") for key in self.place.split("."))


@dataclass(frozen=True)
class Checkpoint:
    """What a file of tensors holds.

    Attributes:
        sets: every dictionary of tensors in it, the top one first; at least one.
        metadata: safetensors' own text entries; empty for PyTorch's files.
    """

    sets: tuple[TensorSet, ...]
    metadata: dict[str, str]


def read_checkpoint(file: str | Path) -> Checkpoint:
    """Return the tensors in a file, on the CPU.

    The format is told by the content, not by the name.

    Args:
        file: safetensors, or a PyTorch checkpoint that PyTorch's weights-only reader accepts.

    Raises:
        ConvscopeError: the file is absent, truncated, of another format, holds no tensors, or would need
            objects other than tensors and plain containers, which could run code.
    """
    path = Path(file)
    try:
        with path.open("rb") as opened:
            is_safetensors = opened.read(9)[8:] == b"{"
    except OSError as error:
        raise _refused(path, f"can't be read ({error.strerror})", "check the path") from error
    checkpoint = _safetensors(path) if is_safetensors else _pytorch(path)
    if not checkpoint.sets:
        raise _refused(path, "holds no tensors", "save a state_dict")
    return checkpoint


def checkpoint_of(content: Any) -> Checkpoint:
    """Return the tensors in a state dict, or in dictionaries of such as training scripts save them.

    Raises:
        ConvscopeError: it holds no tensors.

    Example:
        >>> [each.place for each in checkpoint_of({"epoch": 3, "state_dict": {"bias": torch.ones(1)}}).sets]
        ['state_dict']
    """
    sets = tuple(_tensor_sets(content, "", _DEEPEST))
    if not sets:
        raise ConvscopeError(
            f"a {type(content).__name__} without tensors", "a state dict", "pass model.state_dict()"
        )
    return Checkpoint(sets, {})


def _safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise _refused(path, f"is corrupt or truncated ({error})", "copy or download it again") from error
    return Checkpoint(tuple(_tensor_sets(tensors, "", _DEEPEST)), metadata)


def _pytorch(path: Path) -> Checkpoint:
    try:
        with warnings.catch_warnings():
            # About pickle protocols and TorchScript archives; what matters of it becomes an error below.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch raises this for a broken file too; only a refused object carries the advice to allow it.
        if "weights_only" not in str(error) or "GLOBAL" not in str(error):
            raise _refused(
                path, "is corrupt, or no checkpoint of tensors", "copy or download it again"
            ) from error
        raise _refused(
            path,
            f"holds objects that could run code when read ({_first_global(error)})",
            "save the model's state_dict alone, best as safetensors",
        ) from error
    except Exception as error:  # broken bytes make the reader raise almost anything
        raise _refused(
            path, "is corrupt, or no checkpoint of tensors", "copy or download it again"
        ) from error
    return Checkpoint(tuple(_tensor_sets(content, "", _DEEPEST)), {})


def _tensor_sets(content: Any, place: str, depth: int) -> Iterator[TensorSet]:
    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield TensorSet(place, tensors)
    if depth:
        for name, value in content.items():
            yield from _tensor_sets(value, f"{place}.{name}".lstrip("."), depth - 1)


def _first_global(error: Exception) -> str:
    """The name of the refused object, from PyTorch's message ``… GLOBAL package.name …``."""
    words = str(error).split("GLOBAL", 1)[1].split()
    return words[0].rstrip(".,") if words else "unnamed"


def _refused(path: Path, what: str, action: str) -> ConvscopeError:
    return ConvscopeError(f"weights {str(path)!r} {what}", _TENSORS, action)
