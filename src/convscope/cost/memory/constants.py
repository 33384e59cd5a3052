"""Figures of GPUs and of PyTorch's versions that a memory forecast needs, each with its source.

They are data: ``constants.json`` beside this file. Where a figure wasn't published for an architecture, its
range spans what was published for the others, and ``context_measured`` is False.

Limits: the CUDA context depends on the driver and on which kernels have run; versions of PyTorch after those
that are listed are taken to be like the newest one listed.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from convscope.core.errors import ConvscopeError


@dataclass(frozen=True)
class GpuFigures:
    """What is known of a GPU's architecture under one version of PyTorch.

    Attributes:
        gpu: the architecture, such as ``"sm90"``.
        multiprocessors: of the largest GPU of this architecture.
        cublas_workspace_bytes: what cuBLAS keeps per handle, from its first matrix product on.
        cublaslt_workspace_bytes: what cuBLASLt keeps besides; 0 if it shares cuBLAS's.
        context_range_bytes: (low, high) of the CUDA context, outside of PyTorch's statistics.
        context_measured: whether it was published for this architecture.
    """

    gpu: str
    multiprocessors: int
    cublas_workspace_bytes: int
    cublaslt_workspace_bytes: int
    context_range_bytes: tuple[int, int]
    context_measured: bool

    @property
    def compute_capability(self) -> int:
        """The architecture as a number: 90 for ``sm90``."""
        return int(self.gpu.removeprefix("sm"))


def gpu_figures(gpu: str, torch_version: str | None = None) -> GpuFigures:
    """Return the figures of a GPU.

    Args:
        gpu: an architecture (``"sm90"``) or a model (``"H100"``, ``"RTX 4090"``); case, spaces, hyphens and
            underscores don't matter.
        torch_version: such as ``"2.11"``; None: the installed one.

    Raises:
        ConvscopeError: the GPU isn't known.

    Example:
        >>> gpu_figures("T4").gpu, gpu_figures("sm_90").cublas_workspace_bytes
        ('sm75', 33554432)
    """
    data = _data()
    key = "".join(letter for letter in gpu.lower() if letter.isalnum())
    key = data["aliases"].get(key, key)
    if key not in data["architectures"]:
        raise ConvscopeError(
            f"gpu={gpu!r}",
            f"one of {', '.join(data['architectures'])}, {', '.join(data['aliases'])}",
            "name its architecture, sm and the compute capability without the dot",
        )
    known = data["architectures"][key]
    cublas = _cublas(data["cublas"], torch_version)
    sizes = cublas["workspace_bytes"]
    low, high = known["context_bytes"]
    return GpuFigures(
        gpu=key,
        multiprocessors=known["multiprocessors"],
        cublas_workspace_bytes=sizes.get(key, sizes["default"]),
        cublaslt_workspace_bytes=cublas["lt_workspace_bytes"],
        context_range_bytes=(low, high),
        context_measured=known["context_measured"],
    )


def _cublas(eras: list[dict[str, Any]], torch_version: str | None) -> dict[str, Any]:
    """The newest era that the version has reached; the oldest one for versions before all."""
    if torch_version is None:
        import torch

        torch_version = torch.__version__
    version = _number(torch_version)
    return max((era for era in eras if _number(era["since"]) <= version), key=_since, default=eras[0])


def _since(era: dict[str, Any]) -> tuple[int, int]:
    return _number(era["since"])


def _number(version: str) -> tuple[int, int]:
    major, minor = version.split("+")[0].split(".")[:2]
    return int(major), int("".join(letter for letter in minor if letter.isdigit()) or 0)


@cache
def _data() -> dict[str, Any]:
    text = files("convscope.cost.memory").joinpath("constants.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data
