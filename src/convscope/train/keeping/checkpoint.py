"""Checkpoints: everything that a run needs to go on, in one safetensors file that is whole or absent.

Tensors are stored under ``model.NAME`` and ``optimizer.PARAMETER.STATE``; the place in the run is JSON in the
file's metadata. Nothing is pickled, and loading copies tensors into those of the model.
"""

import dataclasses
import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from convscope import networks
from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.networks import Extras
from convscope.train.learning.optimizer import parameter_names

_FORMAT = "convscope training checkpoint 1"


@dataclass
class Position:
    """Where a run is; mutable, and the part of a checkpoint that isn't tensors.

    Attributes:
        epoch: finished epochs.
        batch: batches done in the running epoch.
        step: optimizer steps done.
        epoch_loss: sum of the running epoch's losses over its images.
        epoch_correct: images of the running epoch that the network got right.
        epoch_images: images of the running epoch so far.
        epoch_seconds: time spent on the running epoch's training steps.
        best_accuracy: highest validation accuracy so far; -1 before the first epoch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    epoch_loss: float = 0.0
    epoch_correct: int = 0
    epoch_images: int = 0
    epoch_seconds: float = 0.0
    best_accuracy: float = -1.0


@dataclass(frozen=True)
class Identity:
    """What a checkpoint must agree with to be of the same run.

    Attributes:
        network: the network's reference or class name.
        data: name of the data.
        num_images: training images.
        steps_per_epoch: optimizer steps in an epoch; the number of processes can change it.
        classes: class names.
        config: the settings that decide about the weights.
    """

    network: str
    data: str
    num_images: int
    steps_per_epoch: int
    classes: list[str]
    config: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position, identity: Identity
) -> None:
    """Write a checkpoint; the file at ``path`` is the old one or the new one at every moment.

    Raises:
        ConvscopeError: the file can't be written.
    """
    tensors = {f"model.{name}": tensor for name, tensor in state_of(model).items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in _optimizer_state(optimizer).items()}
    metadata = {
        "convscope-training": _FORMAT,
        "position": json.dumps(dataclasses.asdict(position)),
        "identity": json.dumps(dataclasses.asdict(identity)),
    }
    separate = _separate(tensors)
    _write(path, separate, {**metadata, "crc32": str(_crc32(separate))})


def save_weights(path: Path, model: nn.Module, extras: Extras) -> None:
    """Write a model's state dict under its plain names, as :func:`convscope.networks.save_weights` does.

    Raises:
        ConvscopeError: the file can't be written.
    """
    try:
        networks.save_weights(model, path, extras)
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: Identity
) -> Position:
    """Copy a checkpoint into a model and its optimizer, and return the place in the run.

    Everything is compared before the first tensor is copied, so one that doesn't fit changes nothing.

    Raises:
        ConvscopeError: the file is damaged, isn't a checkpoint, or is one of another network or run.
    """
    stored, position, tensors = _read(path)
    _check_identity(path, stored, identity)
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    _check_weights(path, weights, state_of(model))
    _load_optimizer(path, optimizer, {n: t for n, t in tensors.items() if n.startswith("optimizer.")})
    model.load_state_dict(weights)
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
    if metadata.get("convscope-training") != _FORMAT:
        raise ConvscopeError(
            f"{str(path)!r} isn't a training checkpoint of convscope",
            f"a file that says {_FORMAT!r}",
            "give the folder of a run; plain weights are loaded with the network",
        )
    if metadata.get("crc32") != str(_crc32(tensors)):
        raise ConvscopeError(
            f"checkpoint {str(path)!r} is damaged (its checksum is wrong)",
            "the file as it was written",
            "restore it, or delete it and start again",
        )
    try:
        identity, position = json.loads(metadata["identity"]), json.loads(metadata["position"])
        return Identity(**identity), Position(**position), tensors
    except (KeyError, ValueError, TypeError) as error:
        raise ConvscopeError(
            f"checkpoint {str(path)!r} has a header that can't be understood ({error})",
            "one that this version of convscope wrote",
            "resume it with the version that wrote it, or start again",
        ) from error


def _check_identity(path: Path, stored: Identity, wanted: Identity) -> None:
    theirs, ours = ({**vars(identity), **identity.config} for identity in (stored, wanted))
    differing = sorted(
        name
        for name in theirs.keys() | ours.keys()
        if name != "config" and theirs.get(name) != ours.get(name)
    )
    # Weights speak for themselves: a network may have another name as long as its tensors fit.
    differing = [name for name in differing if name != "network"]
    if differing:
        raise ConvscopeError(
            f"checkpoint {str(path)!r} is of another run: "
            + ", ".join(f"{name} was {_short(theirs.get(name))}" for name in differing),
            ", ".join(f"{name} {_short(ours.get(name))}" for name in differing),
            "resume with the run's own settings and data, or choose another output folder",
        )


def _check_weights(path: Path, stored: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    problems = [f"lacks {name}" for name in own if name not in stored]
    problems += [f"has {name} too many" for name in stored if name not in own]
    problems += [
        f"{name} is {_form(stored[name])}, not {_form(own[name])}"
        for name in own
        if name in stored and _form(stored[name]) != _form(own[name])
    ]
    if problems:
        shown = ", ".join(problems[:4]) + (f" and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise ConvscopeError(
            f"checkpoint {str(path)!r} doesn't fit the network: it {shown}",
            "the network that the run trained",
            "give that network, or choose another output folder",
        )


def _load_optimizer(path: Path, optimizer: torch.optim.Optimizer, stored: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    numbers = {name: number for number, name in enumerate(parameter_names(optimizer))}
    shapes = {name: p.shape for name, p in zip(numbers, _parameters(optimizer))}
    for key, tensor in stored.items():
        name, _, entry = key.removeprefix("optimizer.").rpartition(".")
        if name not in numbers or tensor.shape not in (shapes[name], torch.Size()):
            raise ConvscopeError(
                f"checkpoint {str(path)!r} has {key} of shape {tuple(tensor.shape)}",
                "the state of a trainable parameter of this network",
                "freeze the same parameters as in the run, or choose another output folder",
            )
        state.setdefault(numbers[name], {})[entry] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unwritable(path: Path, error: Exception) -> ConvscopeError:
    return ConvscopeError(
        f"{str(path)!r} can't be written ({error})",
        "room on the disk and the right to write",
        "make room, then resume: the last whole checkpoint is still there",
    )
