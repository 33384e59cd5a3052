"""The formats that a folded network is written in, told by the ending of a file's name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.fold.export.check import Runner
from convscope.fold.export.onnx_graph import run_graph, runtime, write_graph
from convscope.fold.export.program import read_program, write_program
from convscope.fold.export.weights import read_weights, write_weights


@dataclass(frozen=True)
class Format:
    """One way to write a network, and to read it back.

    Attributes:
        holds: what is in the file, in a few words.
        has_program: whether the file says what is computed, for inputs of a kind, or only by which weights.
        write: writes a network, for inputs of a kind and any batch or only theirs, with metadata, to a path.
        read: returns what runs a written file of a network; called only if there is a reader.
        reader: the name of that; "" if nothing that can is installed.
        packages: without which it can't be written.
        extra: the extra of convscope that brings them.
    """

    holds: str
    has_program: bool
    write: Callable[[nn.Module, Any, bool, Mapping[str, str], Path], None]
    read: Callable[[nn.Module, Path], Runner]
    reader: Callable[[], str]
    packages: tuple[str, ...] = ()
    extra: str = ""


def _torch() -> str:
    return f"torch.export.load of PyTorch {torch.__version__}"


FORMATS: Mapping[str, Format] = {
    ".safetensors": Format(
        "weights", False, write_weights, read_weights, lambda: "load_state_dict of the folded network"
    ),
    ".pt2": Format("program and weights", True, write_program, read_program, _torch),
    ".onnx": Format(
        "graph and weights",
        True,
        write_graph,
        run_graph,
        runtime,
        ("onnx", "onnxscript"),
        "onnx",
    ),
}


def check_format(path: str | Path) -> Format:
    """Return the format of a file by its name.

    Raises:
        ConvscopeError: the ending is another one, or packages that write it aren't installed.

    Example:
        >>> check_format("net.pt2").holds
        'program and weights'
    """
    path = Path(path)
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise ConvscopeError(
            f"output {str(path)!r}", f"a name that ends with {', '.join(FORMATS)}", "choose another name"
        )
    absent = [name for name in found.packages if find_spec(name) is None]
    if absent:
        raise ConvscopeError(
            f"output {str(path)!r} without {' and '.join(absent)}",
            f"the packages {' and '.join(found.packages)}",
            f"install convscope[{found.extra}], or choose a name that ends with .pt2 or .safetensors",
        )
    return found
