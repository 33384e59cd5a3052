"""What the machine of the measurements is, and what its CUDA context takes.

The context is what ``nvidia-smi`` says is in use after a small network's training step, less what was in use
before and what PyTorch reserves; other programs on the GPU would falsify it.
"""

import shutil
import subprocess
from typing import Any

import torch
from torch import nn

from convscope.core.units import MIB
from convscope.cost.measured.cuda_device import device_in_use, require_cuda


def described() -> dict[str, Any]:
    """Return the head of a file of measurements: GPU, versions, settings and the context's bytes.

    Raises:
        ConvscopeError: there is no CUDA device.
    """
    require_cuda()
    before = _used_bytes()
    device = device_in_use()
    _small_step()
    after, reserved = _used_bytes(), torch.cuda.memory_reserved()
    known = before is not None and after is not None
    return {
        "gpu": device.name,
        "compute_capability": device.compute_capability,
        "memory_bytes": device.memory_bytes,
        "driver": device.driver,
        "torch": device.torch,
        "cuda": device.cuda,
        "cudnn": device.cudnn,
        "settings": dict(device.settings),
        "context_bytes": after - before - reserved if known else None,  # type: ignore[operator]
    }


def _small_step() -> None:
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.LazyLinear(100))
    net = net.cuda()
    net(torch.randn(8, 3, 32, 32, device="cuda")).logsumexp(1).sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9).step()
    torch.cuda.synchronize()


def _used_bytes() -> int | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    first = answer.stdout.split("\n")[0].strip()
    return int(first) * MIB if answer.returncode == 0 and first.isdigit() else None
