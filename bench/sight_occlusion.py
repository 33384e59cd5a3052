"""Occlusion with reuse of what the window doesn't change.

Seconds of a whole occlusion (a 32-pixel window over a 224 × 224 image with a step of 32, 49 places, batches
of 16), as ratios: ours with reuse to the same batched loop without it, and to Captum's ``Occlusion`` with as
many perturbations a run, inside the image as Captum's windows are. ``work`` is the share of the plain work
that was estimated; difference: the largest of the probabilities to the loop without reuse, in float32 and in
float64.
"""

import sys
from functools import partial
from importlib.util import find_spec
from unittest.mock import MagicMock

import torch
from torch import nn

import bench.fold_networks  # makes torchvision importable
from bench.clock import interleaved, markdown
from convscope.sight import OcclusionPlan, occlusion

NETWORKS = ("tv/resnet18", "tv/vgg11", "tv/alexnet")
WINDOW, STEP, SIZE, BATCH, ROUNDS = 32, 32, 224, 16, 3


def table() -> str:
    """Return the ratios for each network."""
    return markdown(
        ("network", "with reuse / without", "with reuse / Captum", "work", "float32 difference", "float64"),
        [_row(name) for name in NETWORKS],
    )


def _row(name: str) -> tuple[str, ...]:
    torch.manual_seed(0)
    network = bench.fold_networks.untrained(name).eval()
    image = torch.randn(3, SIZE, SIZE)
    plans = {
        reuse: OcclusionPlan(WINDOW, STEP, "zero", overhang=False, batch_size=BATCH, reuse=reuse)
        for reuse in (True, False)
    }
    seconds = interleaved(
        {
            "reuse": partial(occlusion, network, image, 0, plan=plans[True]),
            "plain": partial(occlusion, network, image, 0, plan=plans[False]),
            "captum": partial(_captum, network, image),
        },
        rounds=ROUNDS,
    )
    found = occlusion(network, image, 0, plan=plans[True])
    return (
        name.removeprefix("tv/"),
        f"{seconds['reuse'] / seconds['plain']:.2f}",
        f"{seconds['reuse'] / seconds['captum']:.2f}",
        f"{found.reuse.share_of_work:.2f}",
        f"{_difference(network, image, plans):.1g}",
        f"{_difference(network.double(), image.double(), plans):.1g}",
    )


def _difference(network: nn.Module, image: torch.Tensor, plans: dict[bool, OcclusionPlan]) -> float:
    one, other = (occlusion(network, image, 0, plan=plans[reuse]).classes for reuse in (True, False))
    assert one is not None
    assert other is not None
    return float((one.probability - other.probability).abs().max())


def _captum(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    # It imports its plots, which aren't needed here, with its methods.
    if find_spec("matplotlib") is None:
        for module in ("captum.attr._utils.visualization", "captum.attr._core.llm_attr"):
            sys.modules.setdefault(module, MagicMock())
    from captum.attr import Occlusion

    with torch.no_grad():
        return Occlusion(lambda images: network(images).softmax(1)).attribute(
            image[None],
            sliding_window_shapes=(3, WINDOW, WINDOW),
            strides=(3, STEP, STEP),
            target=0,
            perturbations_per_eval=BATCH,
        )
