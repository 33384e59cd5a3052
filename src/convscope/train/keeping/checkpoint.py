"""Checkpoints: everything that a run needs to go on, in one safetensors file that is whole or absent.

Tensors are stored under ``model.NAME``, ``optimizer.PARAMETER.STATE`` and, of whatever else has state,
``PART.NAME``; the place in the run is JSON in the file's metadata. Nothing is pickled, and loading copies
tensors into those of the model.
"""

import dataclasses
import json
import os
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from convscope import networks
from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.networks import Extras
from convscope.train.keeping.fitting import check_fits, check_identity
from convscope.train.keeping.position import Identity as Identity
from convscope.train.keeping.position import Position as Position
from convscope.train.learning.learner import Learner
from convscope.train.learning.optimizer import parameter_names

_KIND = "convscope training checkpoint"
_FORMAT = f"{_KIND} 2"


def save_checkpoint(path: Path, learner: Learner, position: Position, identity: Identity) -> None:
    """Write a checkpoint; the file at ``path`` is the old one or the new one at every moment.

    Raises:
        ConvscopeError: the file can't be written.
    """
    parts = {"model": state_of(learner.model), "optimizer": _optimizer_state(learner.optimizer)}
    parts |= {part: stateful.state_dict() for part, stateful in learner.stateful.items()}
    tensors = {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
    metadata = {
        "convscope-training": _FORMAT,
        "position": json.dumps(dataclasses.asdict(position)),
        "identity": json.dumps(dataclasses.asdict(identity)),
    }
    separate = _separate(tensors)
    _write(path, separate, {**metadata, "crc32": str(_with_place(_crc32(separate), metadata))})


def save_weights(path: Path, model: nn.Module, extras: Extras) -> None:
    """Write a model's state dict under its plain names, as :func:`convscope.networks.save_weights` does.

    Raises:
        ConvscopeError: the file can't be written.
    """
    try:
        networks.save_weights(model, path, extras)
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error


def load_checkpoint(path: Path, learner: Learner, identity: Identity) -> Position:
    """Copy a checkpoint into a network and what trains it, and return the place in the run.

    Everything is compared before the first tensor is copied, so one that doesn't fit changes nothing.

    Raises:
        ConvscopeError: the file is damaged, isn't a checkpoint, or is one of another network or run.
    """
    stored, position, tensors = _read(path)
    check_identity(path, stored, identity)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    check_fits(path, parts["model"], state_of(learner.model))
    for part, stateful in learner.stateful.items():
        check_fits(path, parts.get(part, {}), stateful.state_dict(), part)
    _load_optimizer(path, learner.optimizer, parts["optimizer"])
    for part, stateful in learner.stateful.items():
        stateful.load_state_dict(parts[part])
    learner.model.load_state_dict(parts["model"])
    return position


def read_position(path: Path) -> Position:
    """Return the place in the run that a checkpoint was written at.

    Raises:
        ConvscopeError: the file is damaged or isn't a checkpoint.
    """
    return _read(path)[1]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state dict.

    Raises:
        ConvscopeError: it holds something that isn't a tensor, which can't be stored without pickling.
    """
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ConvscopeError(
                f"{type(model).__name__}: {name} in its state is a {type(value).__name__}",
                "tensors only",
                "keep it out of the state dict, or make it a buffer",
            )
    return state


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = parameter_names(optimizer)
    return {
        f"{names[number]}.{entry}": torch.as_tensor(value)
        for number, state in optimizer.state_dict()["state"].items()
        for entry, value in state.items()
        if value is not None
    }


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU copies: safetensors takes neither tensors that share memory nor strided ones."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _crc32(tensors: dict[str, Tensor]) -> int:
    """Checksum of the tensors' bytes, which safetensors itself doesn't keep."""
    checksum = 0
    for name in sorted(tensors):
        content = tensors[name].reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(content, checksum)  # type: ignore[arg-type]
    return checksum


def _with_place(checksum: int, metadata: dict[str, str]) -> int:
    """The checksum of the tensors, gone on with over the place in the run and the run's identity."""
    return zlib.crc32(f"{metadata.get('position')}{metadata.get('identity')}".encode(), checksum)


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        with whole_file(path) as temporary:
            save_file(tensors, temporary, metadata)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error


def _read(path: Path) -> tuple[Identity, Position, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConvscopeError(
            f"checkpoint {str(path)!r} can't be read ({error})",
            "a whole safetensors file",
            "restore it, or delete it and start again",
        ) from error
    found = metadata.get("convscope-training", "")
    if found.startswith(_KIND) and found != _FORMAT:
        raise ConvscopeError(
            f"{str(path)!r} is a {found!r}, of another version of convscope",
            f"a {_FORMAT!r}",
            "resume it with the version that wrote it, or start again",
        )
    if found != _FORMAT:
        raise ConvscopeError(
            f"{str(path)!r} isn't a training checkpoint of convscope",
            f"a file that says {_FORMAT!r}",
            "give the folder of a run; plain weights are loaded with the network",
        )
    checksum = _crc32(tensors)  # alone in earlier checkpoints
    if metadata.get("crc32") not in (str(checksum), str(_with_place(checksum, metadata))):
        raise ConvscopeError(
            f"checkpoint {str(path)!r} is damaged (its checksum is wrong)",
            "the file as it was written",
            "restore it, or delete it and start again",
        )
    try:
        identity, position = json.loads(metadata["identity"]), json.loads(metadata["position"])
        return Identity(**identity), Position(**position), tensors
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ConvscopeError(
            f"checkpoint {str(path)!r} has a header that can't be understood ({error})",
            "one that this version of convscope wrote",
            "resume it with the version that wrote it, or start again",
        ) from error


def _load_optimizer(path: Path, optimizer: torch.optim.Optimizer, stored: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    numbers = {name: number for number, name in enumerate(parameter_names(optimizer))}
    shapes = {name: p.shape for name, p in zip(numbers, _parameters(optimizer))}
    for key, tensor in stored.items():
        name, _, entry = key.rpartition(".")
        if name not in numbers or tensor.shape not in (shapes[name], torch.Size()):
            raise ConvscopeError(
                f"checkpoint {str(path)!r} has optimizer.{key} of shape {tuple(tensor.shape)}",
                "the state of a trainable parameter of this network",
                "freeze the same parameters as in the run, or choose another output folder",
            )
        state.setdefault(numbers[name], {})[entry] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _unwritable(path: Path, error: Exception) -> ConvscopeError:
    return ConvscopeError(
        f"{str(path)!r} can't be written ({error})",
        "room on the disk and the right to write",
        "make room, then resume: the last whole checkpoint is still there",
    )
