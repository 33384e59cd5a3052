"""A network as an ONNX graph, and ONNX Runtime to run it.

The exporter's own graph computes each bias that a convolution lacks at run time, behind which no program that
reads it finds a constant; its constants are folded here, so that every convolution has its weights, and its
bias if there is one, as initialisers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.fold.export.check import Runner
from convscope.fold.export.program import open_axes, program_of, quiet
from convscope.fold.export.result import NotExportable


def write_graph(
    network: nn.Module, inputs: Any, any_batch: bool, metadata: Mapping[str, str], path: Path
) -> None:
    """Write a network's graph, its weights in the same file.

    Args:
        network: in evaluation mode.
        inputs: as :func:`convscope.fold.proof.trials.described` returns them.
        any_batch: whether the number of samples shall stay open; its axis is then called ``batch``.
        metadata: what the graph's ``metadata_props`` shall hold.
        path: the file.

    Raises:
        NotExportable: the network can't be traced, has an operator that ONNX doesn't have, or is larger than
            the 2 GiB that a file of this format holds.
    """
    program = program_of(network, inputs, any_batch=any_batch)
    try:
        with quiet(), torch.no_grad():
            graph = torch.onnx.export(
                program,
                dynamo=True,
                optimize=True,
                verbose=False,
                dynamic_shapes=open_axes(inputs) if any_batch else None,
            )
            assert graph is not None
            graph.model.metadata_props.update(metadata)
            graph.save(path, external_data=False)
    except OSError:
        raise  # about the file
    except Exception as error:  # whatever the exporter makes of the program
        raise NotExportable.because(error) from error


def runtime() -> str:
    """Return ONNX Runtime's name and version; "" if it isn't installed."""
    try:
        import onnxruntime
    except ImportError:
        return ""
    return f"onnxruntime {onnxruntime.__version__}"


def run_graph(_network: nn.Module, path: Path) -> Runner:
    """Return what runs a graph by ONNX Runtime on a network's arguments.

    Raises:
        NotExportable: ONNX Runtime refuses the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions, which have no class in common
        raise NotExportable.because(error) from error
    names = [each.name for each in session.get_inputs()]

    def run(*args: Any, **kwargs: Any) -> list[Tensor]:
        given = {name: tensor.cpu().numpy() for name, tensor in _by_name(names, args, kwargs).items()}
        return [torch.from_numpy(array) for array in session.run(None, given)]

    return run


def _by_name(names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors that a graph's inputs are; those that aren't called by their names follow one another."""
    named = {name: kwargs[name] for name in names if isinstance(kwargs.get(name), Tensor)}
    rest = (args, {name: value for name, value in kwargs.items() if name not in named})
    others = [leaf for leaf in tree_leaves(rest) if isinstance(leaf, Tensor)]
    return {**named, **dict(zip((name for name in names if name not in named), others, strict=True))}
