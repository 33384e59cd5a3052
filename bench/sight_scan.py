"""Scanning images for every unit's strongest ones, beside the network alone.

Networks with batch norms as after training, batches of 32 random images of 224 × 224 pixels in memory, the
nine strongest images of all units of all convolutions. A run is a scan of 1,024 images from its beginning,
or the same batches through the plain network in evaluation and inference mode. The runs take turns; the
numbers are ratios of processor time within a turn, median and range. A scan's first batches cost most, since
every image enters a list that is short; the part of the probe alone is that of a scan that watches no layer.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from bench.clock import markdown
from bench.fold_networks import untrained
from bench.fold_statistics import randomise
from convscope.sight.collecting.scan import ScanOptions, scan
from convscope.sight.images import ImageSource
from convscope.sight.units.maps import units_of
from convscope.tape import record

BATCH, BATCHES, ROUNDS, TOP = 32, 32, 2, 9
NETWORKS = ("tv/resnet18", "tv/mobilenet_v2")


def table() -> str:
    """Return the ratios for each network."""
    rows = []
    for name in NETWORKS:
        runs = _runs(name)
        taken: dict[str, list[float]] = {way: [] for way in runs}
        runs["plain"]()
        for _ in range(ROUNDS):
            for way, run in runs.items():
                started = time.process_time()
                run()
                taken[way].append(time.process_time() - started)
        plain = taken.pop("plain")
        ratios = [_text([a / b for a, b in zip(seconds, plain, strict=True)]) for seconds in taken.values()]
        rows.append((name.removeprefix("tv/"), f"{BATCH * BATCHES / median(plain):.1f}", *ratios))
    return markdown(("network", "images a second", "probe alone", "top nine", "with all statistics"), rows)


def _runs(name: str) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    model = untrained(name)
    randomise(model, torch.randn(4, 3, 224, 224))
    model.eval()
    images = torch.randn(BATCH * BATCHES, 3, 224, 224)
    source = ImageSource(images, batch_size=BATCH)
    units, _ = units_of(record(model, (2, 3, 224, 224)))
    return {
        "plain": lambda: _plain(model, source),
        "probe": lambda: scan(model, source, (), TOP),
        "top": lambda: scan(model, source, units, TOP, ScanOptions(statistics=False)),
        "statistics": lambda: scan(model, source, units, TOP),
    }


def _plain(model: nn.Module, source: ImageSource) -> None:
    with torch.inference_mode():
        for _, batch in source.batches():
            model(batch)


def _text(ratios: list[float]) -> str:
    return f"{median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"
