"""A network as one program of operators, by ``torch.export``: a ``.pt2`` file, and where a graph begins.

The number of samples is left open where the network's code allows it. All other sizes are fixed.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves, tree_map

from convscope.fold.export.check import Runner
from convscope.fold.export.result import NotExportable
from convscope.fold.proof.trials import Trial

BATCH = "batch"


def program_of(network: nn.Module, inputs: Any, *, any_batch: bool) -> ExportedProgram:
    """Return a network's program.

    Args:
        network: in evaluation mode.
        inputs: as :func:`convscope.fold.proof.trials.described` returns them.
        any_batch: whether the number of samples shall stay open.

    Raises:
        NotExportable: ``torch.export`` refuses the network, or can't leave its number of samples open.
    """
    # One sample would be taken for a constant.
    trial = Trial(inputs, None, max(2, num_samples(inputs))) if any_batch else Trial(inputs, None)
    device = next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    args, kwargs = trial.call(device)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(
                network, args, kwargs, dynamic_shapes=open_axes(inputs) if any_batch else None
            )
    except Exception as error:  # whatever the network's code and the tracer make of one another
        raise NotExportable.because(error) from error


def write_program(
    network: nn.Module, inputs: Any, any_batch: bool, metadata: Mapping[str, str], path: Path
) -> None:
    """Write a network's program; the arguments are those of :func:`program_of`.

    ``metadata`` becomes extra files, which ``torch.export.load(path, extra_files={"convscope.folded": ""})``
    fills in.

    Raises:
        NotExportable: as :func:`program_of`, or the program can't be saved.
    """
    program = program_of(network, inputs, any_batch=any_batch)
    try:
        with quiet(), path.open("wb") as file:
            torch.export.save(program, file, extra_files=dict(metadata))
    except OSError:
        raise  # about the file
    except Exception as error:
        raise NotExportable.because(error) from error


def read_program(_network: nn.Module, path: Path) -> Runner:
    """Return what runs a written program.

    Raises:
        NotExportable: PyTorch can't read it back.
    """
    try:
        with quiet(), path.open("rb") as file:
            return torch.export.load(file).module()
    except Exception as error:
        raise NotExportable.because(error) from error


def open_axes(inputs: Any) -> Any:
    """Return which axes of which inputs are the batch, as ``torch.export`` takes it."""
    batch, samples = Dim(BATCH), num_samples(inputs)

    def axes(leaf: Any) -> dict[int, Any] | None:
        is_batch = isinstance(leaf, Tensor) and leaf.shape[:1] == (samples,)
        return {0: batch} if is_batch else None

    return tree_map(axes, inputs)


def sizes_of(inputs: Any, any_batch: bool) -> tuple[tuple[int | None, ...], ...]:
    """Return the sizes of the tensors that a program takes, None where any number of samples is taken."""
    samples = num_samples(inputs)
    shapes = [tuple(leaf.shape) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return tuple((None, *sizes[1:]) if any_batch and sizes[:1] == (samples,) else sizes for sizes in shapes)


def num_samples(inputs: Any) -> int:
    """Return the first size of the first tensor."""
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()]
    return tensors[0].shape[0] if tensors else 1


@contextmanager
def quiet() -> Iterator[None]:
    """Keep exporters from talking to the user: what goes wrong becomes one line, what doesn't is checked."""
    disabled = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # failures print half a graph there
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
