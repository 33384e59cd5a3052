"""A gallery's memory doesn't depend on the number of images."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, tempfile
import torch
from torch import nn
from convscope.sight import gallery
from convscope.sight.picturing.options import GalleryOptions

class Images:
    def __init__(self, count):
        self.count = count
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError
        return torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(index))

torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU())
for count in (200, 2000):
    gallery(net, Images(count), top=3, out=tempfile.mkdtemp() + "/out", options=GalleryOptions(judge=0))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_ten_times_the_images_need_no_more_memory():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    few, many = (int(line) / 1024 for line in done.stdout.split())
    assert many - few < 20  # MiB; the 1,800 further images are 84 MiB
