"""A finished run's network and images, from its folder alone."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from safetensors import safe_open
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.data import ImageData, load_data
from convscope.networks import load
from convscope.networks.saved import read_extras
from convscope.train.keeping.folder import RunFolder, read_run
from convscope.train.run import Run


@dataclass(frozen=True)
class Finished:
    """What a run has come to.

    Attributes:
        run: its records.
        model: its network with the final weights, in evaluation mode.
        data: the images that it was trained on.
    """

    run: Run
    model: nn.Module
    data: ImageData


def finished(folder: Path) -> Finished:
    """Return the network and the images of a run that has come to its end.

    Raises:
        ConvscopeError: it has no final weights (it isn't done, or it diverged), or they don't say which
            network and images they belong to.
    """
    run, path = read_run(folder), RunFolder(folder).final
    if run.weights is None:
        raise ConvscopeError(
            f"run {str(folder)!r} without final weights", "a run that has come to its end", "finish it first"
        )
    with safe_open(path, framework="pt") as file:
        extras = read_extras(path, file.metadata() or {})
    if extras.network is None or extras.preprocessing is None:
        raise ConvscopeError(
            f"{str(path)!r} doesn't say which network it belongs to",
            "weights of a network that was given by reference",
            "train it by reference",
        )
    model = load(weights=path, **extras.network).model
    prepared = extras.preprocessing
    return Finished(run, model.eval(), _images(run.data, prepared.size, len(prepared.mean)))


@lru_cache(maxsize=1)
def _images(data: str, size: tuple[int, int], channels: int) -> ImageData:
    return load_data(data, size=size, channels=channels)
