"""A network, images and a scan of them, for tests in this process and in others."""

import os
import signal
import threading
import time

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.sight.collecting.scan import ScanOptions, scan
from convscope.sight.images import ImageSource
from convscope.sight.units.maps import units_of
from convscope.tape import record

TOP = 5


def network(seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, 2)
    ).eval()


def pixels(count=83):
    """With duplicates, so that there are ties across batches."""
    images = torch.randn(count, 3, 19, 16, generator=torch.Generator().manual_seed(1))
    images[count // 2] = images[count // 9]
    return images


class Slow:
    """Images that take their time; a scan of them can be killed anywhere."""

    def __init__(self, images, seconds):
        self.images, self.seconds = images, seconds

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return self.images[index]


def scanned(images=None, model=None, **options):
    model = model or network()
    source = (
        images
        if isinstance(images, ImageSource)
        else ImageSource(pixels() if images is None else images, batch_size=4)
    )
    units, _ = units_of(record(model, (2, 3, 19, 16)))
    return scan(model, source, units, TOP, ScanOptions(**options))


def together(rank, folder):
    """What a scan of several processes finds: anew, from a folder, and where something is wrong."""
    found = {"plain": scanned()}
    found["resumed"] = scanned(folder=folder / "states")
    found["again"] = scanned(folder=folder / "states")
    broken = pixels()
    broken[-1] = torch.nan  # in the last process's share
    for name, run in {
        "nan": lambda: scanned(broken),
        "other weights": lambda: scanned(model=network(3 + rank)),
        "loader": lambda: scanned(list(pixels().split(4))),
    }.items():
        try:
            run()
        except ConvscopeError as error:
            found[name] = str(error)
    return found


def until_killed(folder, seconds):
    """Scan, saving after every batch, and be killed some time after the first; for a process of its own."""
    torch.set_num_threads(1)
    started = []

    def start(done, total):
        if not started:
            started.append(threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGKILL)))
            started[0].start()

    scanned(ImageSource(Slow(pixels(), 0.003), batch_size=4), folder=folder, save_every=0, progress=start)
    started[0].cancel()
