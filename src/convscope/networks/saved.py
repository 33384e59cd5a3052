"""Our own weight files: safetensors whose header says which network they belong to.

So that a network that was trained here can be shown again from one file: with its options, the mean and
deviation of the images that it was trained on, and the names of its classes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.networks.preprocessing import Preprocessing

_KEY = "convscope"


@dataclass(frozen=True)
class Extras:
    """What a checkpoint of ours says about its network besides the weights.

    Attributes:
        preprocessing: as the network was trained; None if the file doesn't say.
        class_names: None if the file doesn't say.
        network: the reference and options that build the network, such as
            ``{"reference": "zfnet", "norm": "batch", "width": 0.25}``; None if the file doesn't say.
    """

    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None
    network: Mapping[str, Any] | None = None


def save_weights(model: nn.Module, file: str | Path, extras: Extras | None = None) -> None:
    """Write a network's parameters and buffers as safetensors, with what belongs to them in the header.

    Args:
        model: the network. Tensors that share memory are written once each.
        file: is replaced only when everything has been written.
        extras: read back by :func:`~convscope.networks.load.load`.

    Raises:
        ConvscopeError: the file can't be written.
    """
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    with whole_file(file) as temporary:
        save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, _metadata(extras or Extras()))


def _metadata(extras: Extras) -> dict[str, str]:
    content: dict[str, object] = {}
    if extras.preprocessing is not None:
        content["preprocessing"] = vars(extras.preprocessing)
    if extras.class_names is not None:
        content["class_names"] = extras.class_names
    if extras.network is not None:
        content["network"] = dict(extras.network)
    return {_KEY: json.dumps(content)}


def read_extras(path: Path, metadata: Mapping[str, str]) -> Extras:
    """Return what a checkpoint's header says about its network; all None in other programs' files.

    Raises:
        ConvscopeError: the header is ours and broken.
    """
    if _KEY not in metadata:
        return Extras()
    try:
        content = json.loads(metadata[_KEY])
        values = content.get("preprocessing")
        if values is not None:
            values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        names, network = content.get("class_names"), content.get("network")
        preprocessing = Preprocessing(**values) if values is not None else None
        _check_kinds(preprocessing, names, network)
        return Extras(preprocessing, tuple(names) if names is not None else None, network)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConvscopeError(
            f"weights {str(path)!r}: its header is broken ({error})", "what convscope wrote", "save it again"
        ) from error


def _check_kinds(preprocessing: Preprocessing | None, names: Any, network: Any) -> None:
    """Refuse what other parts would trip over: JSON may hold anything anywhere.

    Raises:
        TypeError: what isn't as it should be.
    """
    if preprocessing is not None:
        told, sides = preprocessing, preprocessing.size
        constants = (*told.mean, *told.std, told.crop_pct)
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise TypeError(f"size {sides!r}")
        if len(told.mean) != len(told.std) or not all(isinstance(each, int | float) for each in constants):
            raise TypeError(f"mean {told.mean!r}, std {told.std!r}, crop_pct {told.crop_pct!r}")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise TypeError("class_names")
    if network is None:
        return
    shape, num_classes = network.get("input_shape"), network.get("num_classes")
    if not isinstance(network.get("reference"), str) or not isinstance(num_classes, int | None):
        raise TypeError("network")
    if shape is not None and not all(isinstance(size, int) for size in shape):
        raise TypeError(f"input_shape {shape!r}")
