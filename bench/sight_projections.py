"""Projections of a gallery's winners, in forward passes.

ResNet-18, images of 224 × 224 pixels with the spectrum of photographs (1/f), the nine strongest of 192 for
every unit of all 20 convolutions. The number is the processor time of the second look, from the images in
memory to the projections, over that of a forward pass per image (batches of 32), for each pair of a unit and
an image, in six images from the middle of the data set. Shallow layers are projected in windows, deep ones
in whole images; the forward pass that the latter share is counted where it is first needed.

``scores``: the same for the four scores of a unit, which a gallery measures at its strongest image; their
share of a whole gallery is a ninth of that number, since a unit has nine pictures and one set of scores.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bench.clock import markdown
from convscope.networks import load
from convscope.sight import ImageSource
from convscope.sight.collecting.scan import ScanOptions, scan
from convscope.sight.picturing.judged import judged
from convscope.sight.picturing.places import LayerLook
from convscope.sight.picturing.plan import plan
from convscope.sight.picturing.winners import look
from convscope.sight.projecting.projector import projecting
from convscope.sight.units.maps import units_of
from convscope.tape import record

NUM_IMAGES, SIZE, TOP = 192, 224, 9
RULES = ("gated", "deconvnet")
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


def table() -> str:
    """Return the cost for each stage of the network and each rule."""
    torch.manual_seed(0)
    model = load("torchvision:resnet18")[0].eval()
    images = natural(NUM_IMAGES, SIZE)
    rows: dict[str, list[str]] = {}
    for rule in RULES:
        for stage, num_pairs, *found in costs(model, images, rule):
            row = rows.setdefault(stage, [stage, f"{num_pairs:,}"])
            row.extend("–" if cost is None else f"{cost:.3f}" for cost in found)
    titles = [title for rule in RULES for title in (rule, f"{rule}: scores")]
    return markdown(("layers", "pairs", *titles), [tuple(row) for row in rows.values()])


def costs(model: nn.Module, images: Tensor, rule: str) -> list[tuple[str, int, float, float | None]]:
    """Return stage, pairs in the whole gallery, forward passes for a pair, and for a unit's scores."""
    source = ImageSource(images)
    tape = record(model, images[:1].repeat(2, 1, 1, 1))
    planned = plan(model, tape, units_of(tape)[0], rule, source)  # type: ignore[arg-type]
    tallies = scan(model, source, planned.units, TOP, ScanOptions(statistics=False)).tallies
    layers = [drawing.look for drawing in planned.drawings(tallies, None)]
    winners = sorted({image for layer in layers for image in layer.places})
    middle = winners[len(winners) // 2 - 3 : len(winners) // 2 + 3]
    before = _forward(model, images[:32])
    with projecting(model, tape, planned.rule, narrow=True) as projector:
        pictures = _mean_seconds(look(projector, layers, middle, images[middle]))
        pixels = dict(zip(middle, images[middle], strict=True))
        scores = _mean_seconds(judged(projector, layers, pixels))
    forward = (before + _forward(model, images[:32])) / 2
    found = []
    for name in (*STAGES, "all"):
        own = [layer for layer in layers if name in ("all", _stage(layer))]
        num_pairs = sum(len(places) for layer in own for places in layer.places.values())
        score = scores[name] / forward if name in scores else None
        found.append((name, num_pairs, pictures[name] / forward, score))
    return found


def _mean_seconds(steps: Iterable[tuple[Any, ...]]) -> dict[str, float]:
    """Mean seconds of the processor that a step took, for each stage of the layers that steps begin with."""
    seconds: defaultdict[str, float] = defaultdict(float)
    counts = Counter[str]()
    last = time.process_time()
    for layer, *_ in steps:
        for name in (_stage(layer), "all"):
            seconds[name] += time.process_time() - last
            counts[name] += 1
        last = time.process_time()
    return {name: seconds[name] / counts[name] for name in counts}


def natural(count: int, size: int) -> Tensor:
    """Return random images (n, 3, size, size) with the amplitude spectrum 1/f, mean 0 and deviation 1."""
    frequency = torch.fft.fftfreq(size)[:, None].hypot(torch.fft.rfftfreq(size)[None])
    spectrum = torch.fft.rfft2(torch.randn(count, 3, size, size)) / frequency.clamp(min=1 / size)
    images = torch.fft.irfft2(spectrum, s=(size, size))
    return (images - images.mean((2, 3), keepdim=True)) / images.std((2, 3), keepdim=True)


def _stage(layer: LayerLook) -> str:
    first = layer.maps.name.partition(".")[0]
    return first if first.startswith("layer") else "stem"


def _forward(model: nn.Module, images: Tensor) -> float:
    """Seconds of the processor for one image."""
    taken = []
    with torch.no_grad():
        for _ in range(3):
            started = time.process_time()
            model(images)
            taken.append((time.process_time() - started) / len(images))
    return sorted(taken)[1]
