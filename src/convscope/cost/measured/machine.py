"""What a measurement ran on: the device's name, in the words of its maker."""

import platform
from pathlib import Path

import torch


def device_name(device: torch.device) -> str:
    """Return the name of a device: of the GPU, or of the processor as far as the system tells it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return str(device)
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = next(iter(names), "") or platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
