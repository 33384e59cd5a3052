"""What a scan's numbers depend on: where any of it differs, two parts of a scan don't belong together.

Weights, layers and images decide what is measured; PyTorch's version, the device and the number of threads
decide in which order a convolution adds up, and so the last bits.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.fingerprint import weights_fingerprint
from convscope.sight.collecting.processes import home_of
from convscope.sight.images import ImageSource
from convscope.sight.units.maps import UnitMaps

Identity = Mapping[str, Any]
"""Facts by what they are about, in words; values that JSON knows."""


def identity_of(
    model: nn.Module, images: ImageSource, units: tuple[UnitMaps, ...], settings: Identity
) -> Identity:
    """Return what a scan's numbers depend on.

    Args:
        model: the network.
        images: that are scanned; see :meth:`~convscope.sight.images.ImageSource.fingerprint` for what of
            them is compared.
        units: the layers watched.
        settings: further facts, such as how many images are kept.
    """
    device = home_of(model)
    in_autocast = torch.is_autocast_enabled(device.type)
    return {
        **settings,
        "weights": weights_fingerprint(model),
        "layers": [[unit.unit_address, unit.num_units] for unit in units],
        "batch size": images.batch_size,
        "number of images": images.length,
        "images": images.fingerprint(),
        "PyTorch": torch.__version__,
        "device": _name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "autocast": str(torch.get_autocast_dtype(device.type)) if in_autocast else None,
        "precision of products": torch.get_float32_matmul_precision(),
    }


def check_same(found: Identity, own: Identity, whose: str) -> None:
    """Refuse a part of another scan.

    Args:
        found: what that part depends on.
        own: what this scan depends on.
        whose: where it was found.

    Raises:
        ConvscopeError: something differs; the message names it.
    """
    differing = [name for name in own if found.get(name) != own[name]]
    if not differing:
        return
    said = ", ".join(
        f"{name} ({found.get(name)} there, {own[name]} here)" if _is_short(own[name]) else name
        for name in differing
    )
    raise ConvscopeError(
        f"{whose} of another scan: other {said}",
        "a scan of the same network, images and settings, on the same kind of machine",
        "choose another folder, or delete this one",
    )


def _is_short(value: Any) -> bool:
    return len(str(value)) < 32


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type
