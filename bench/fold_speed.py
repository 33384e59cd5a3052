"""How fast a folded network runs, beside the network as it was and a twin that never had a batch norm."""

import copy
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from types import MappingProxyType

import torch
from torch import Tensor, nn

import convscope as cs
from bench.clock import markdown
from bench.fold_networks import untrained
from bench.fold_peers import quietly
from bench.fold_statistics import randomise
from convscope.networks import zfnet

SIZE = 224
BATCHES = (1, 4)
_COMPILED_BATCH = 1
_ROUNDS = 15

SPEED_NETWORKS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "ResNet-50": lambda: untrained("tv/resnet50"),
        "VGG-11-BN": lambda: untrained("tv/vgg11_bn"),
        "MobileNetV2": lambda: untrained("tv/mobilenet_v2"),
        "RepVGG-A0": lambda: untrained("repvgg_a0"),
        "EfficientNet-lite0": lambda: untrained("efficientnet_lite0"),
        "ZFNet with batch norm": lambda: zfnet(norm="batch"),
    }
)

Trio = tuple[nn.Module, nn.Module, nn.Module]
"""Folded, as it was, twin."""


def table() -> str:
    """Return the ratios, folded to each of the two others."""
    rows = [row for name in SPEED_NETWORKS for row in _rows(name, trio(name))]
    header = ("network", "batch", "how", "folded / unfolded", "folded / twin")
    return markdown(header, rows)


def trio(name: str) -> Trio:
    """Return a network folded, as it was, and its twin."""
    torch.manual_seed(0)
    before = SPEED_NETWORKS[name]()
    randomise(before, torch.randn(2, 3, SIZE, SIZE))
    before.eval()
    after = cs.fold(before, (1, 3, SIZE, SIZE)).model
    return after, before, twin(before, after)


def twin(before: nn.Module, after: nn.Module) -> nn.Module:
    """Return what the network would be if it had been made without batch norm.

    Convolutions have a bias; branches that only training needs are one convolution, as timm's own
    ``reparameterize_model`` makes it. Weights are those of the folded network where it has the same ones:
    numbers near zero, which untrained networks without batch norm run into, are slow to compute with.
    """
    from timm.layers import BatchNormAct2d
    from timm.utils.model import reparameterize_model

    bare = reparameterize_model(before)
    for module in list(bare.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                rest = child.act if isinstance(child, BatchNormAct2d) else nn.Identity()
                setattr(module, name, rest)
    for module in bare.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    have = bare.state_dict()
    same = {name: t for name, t in after.state_dict().items() if name in have and t.shape == have[name].shape}
    bare.load_state_dict(same, strict=False)
    return bare.eval()


def _rows(name: str, networks: Trio) -> list[tuple[str, ...]]:
    rows = [
        _row(name, batch, "eager", _ratios(networks, torch.randn(batch, 3, SIZE, SIZE), _ROUNDS))
        for batch in BATCHES
    ]
    inputs = torch.randn(_COMPILED_BATCH, 3, SIZE, SIZE)
    torch.compiler.reset()
    try:
        with quietly():
            compiled = [torch.compile(copy.deepcopy(network)) for network in networks]
            found = _ratios(compiled, inputs, _ROUNDS)
    except Exception as error:  # no compiler on this machine, for one
        return [*rows, (name, str(_COMPILED_BATCH), f"torch.compile: {type(error).__name__}", "–", "–")]
    return [*rows, _row(name, _COMPILED_BATCH, "torch.compile", found)]


def _row(name: str, batch: int, how: str, ratios: tuple[float, float]) -> tuple[str, ...]:
    return (name, str(batch), how, *(f"{ratio:.3f}" for ratio in ratios))


def _ratios(networks: Sequence[nn.Module], inputs: Tensor, rounds: int) -> tuple[float, float]:
    """Return median ratios of neighbours in time: the first network's to each of the two others.

    Time is the thread's own, which other work on the machine doesn't lengthen by taking turns.
    """
    for network in networks:
        _seconds(network, inputs)
        _seconds(network, inputs)
    gc.collect()
    gc.disable()
    try:
        taken = [_round(networks, inputs, number) for number in range(rounds)]
    finally:
        gc.enable()
    return median(ours / other for ours, other, _ in taken), median(ours / other for ours, _, other in taken)


def _round(networks: Sequence[nn.Module], inputs: Tensor, number: int) -> list[float]:
    """Seconds of every network once, in an order that rotates."""
    order = [(number + step) % len(networks) for step in range(len(networks))]
    seconds = {at: _seconds(networks[at], inputs) for at in order}
    return [seconds[at] for at in range(len(networks))]


@torch.no_grad()
def _seconds(network: nn.Module, inputs: Tensor) -> float:
    started = time.thread_time()
    network(inputs)
    return time.thread_time() - started
