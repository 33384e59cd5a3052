"""A network's numbers alone, as safetensors."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from convscope.fold.export.check import Runner


def write_weights(
    network: nn.Module, _inputs: Any, _any_batch: bool, metadata: Mapping[str, str], path: Path
) -> None:
    """Write parameters and buffers, and a header; tensors that share memory are written once each."""
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
        if isinstance(tensor, Tensor)
    }
    safetensors.torch.save_file(tensors, path, dict(metadata))


def add_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Write entries into the header of a file of weights besides those that are there."""
    with safe_open(path, "pt") as file:
        held = file.metadata() or {}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {**held, **metadata})


def read_weights(network: nn.Module, path: Path) -> Runner:
    """Return a copy of a network that has lost all its numbers and read them back from a file."""
    emptied = copy.deepcopy(network)
    for tensor in emptied.state_dict().values():
        if isinstance(tensor, Tensor):
            tensor.zero_()
    emptied.load_state_dict(safetensors.torch.load_file(path), strict=False)
    return emptied
