"""The CUDA device at hand: which it is, and what else the memory of a step on it depends on."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from convscope.core.errors import ConvscopeError


@dataclass(frozen=True)
class Device:
    """Where something was measured.

    Attributes:
        name: of the GPU, such as ``"NVIDIA H200"``.
        compute_capability: such as ``"9.0"``.
        memory_bytes: all of it.
        driver: version of NVIDIA's driver; empty if nobody says.
        torch, cuda, cudnn: versions.
        settings: what else memory depends on: cuDNN's benchmark, TF32, environment variables.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str
    torch: str
    cuda: str
    cudnn: str
    settings: Mapping[str, str]

    @property
    def architecture(self) -> str:
        """Such as ``"sm90"``."""
        return "sm" + self.compute_capability.replace(".", "")


def require_cuda() -> None:
    """Refuse to go on where PyTorch sees no CUDA device.

    Raises:
        ConvscopeError: there is none.
    """
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise ConvscopeError(
            f"no CUDA device (PyTorch {torch.__version__}, {built})",
            "an NVIDIA GPU that PyTorch sees",
            "measure on a machine that has one",
        )


def device_in_use() -> Device:
    """Return what the current CUDA device is, and the versions and settings in force.

    Raises:
        ConvscopeError: there is no CUDA device.
    """
    require_cuda()
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Device(
        name=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_bytes=properties.total_memory,
        driver=_driver(),
        torch=torch.__version__,
        cuda=torch.version.cuda or "",
        cudnn=str(torch.backends.cudnn.version() or ""),  # type: ignore[no-untyped-call]
        settings=_settings(),
    )


def _settings() -> dict[str, str]:
    return {
        "cudnn.benchmark": str(torch.backends.cudnn.benchmark),
        "cudnn.deterministic": str(torch.backends.cudnn.deterministic),
        "cudnn.allow_tf32": str(torch.backends.cudnn.allow_tf32),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        **{
            name: os.environ.get(name, "")
            for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG")
        },
    }


def _driver() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return answer.stdout.split("\n")[0].strip() if answer.returncode == 0 else ""
