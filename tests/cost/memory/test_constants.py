"""The figures of GPUs: complete, each with its source, and those that PyTorch's code or an issue gives."""

import json
from importlib.resources import files

import pytest

from convscope.core.errors import ConvscopeError
from convscope.cost.memory.constants import gpu_figures

KIB, MIB = 2**10, 2**20
ARCHITECTURES = ("sm70", "sm75", "sm80", "sm86", "sm89", "sm90", "sm100", "sm120")
DATA = json.loads(files("convscope.cost.memory").joinpath("constants.json").read_text())


def test_every_figure_has_a_source():
    assert tuple(DATA["architectures"]) == ARCHITECTURES
    for known in DATA["architectures"].values():
        assert known["context_source"]
        assert known["multiprocessors_source"]
    for era in DATA["cublas"]:
        assert era["workspace_source"]
        assert era["lt_workspace_source"]


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        ("t4", "sm75"), ("T4", "sm75"), ("A100", "sm80"), ("h200", "sm90"), ("rtx4090", "sm89"),
        ("RTX 4090", "sm89"), ("rtx-3090", "sm86"), ("sm_90", "sm90"), ("SM120", "sm120"), ("B200", "sm100"),
    ],
)  # fmt: skip
def test_models_and_ways_of_writing(name, gpu):
    assert gpu_figures(name).gpu == gpu


def test_models_name_architectures_that_are_known():
    assert set(DATA["aliases"].values()) <= set(ARCHITECTURES)


def test_cublas_workspace_is_pytorchs_default():
    """Issue 95668: a linear layer leaves 8,519,680 B, which is :4096:2:16:8 in KiB; 32 MiB on Hopper."""
    assert gpu_figures("a10").cublas_workspace_bytes == 8_519_680 == (4096 * 2 + 16 * 8) * KIB
    assert gpu_figures("sm90").cublas_workspace_bytes == 32 * MIB


@pytest.mark.parametrize(
    ("version", "blackwell", "lt"),
    [
        ("2.9.1", 8_519_680, MIB),
        ("2.11.0+cu128", 8_519_680, MIB),
        ("2.12", 32 * MIB, 0),
        ("2.13.0+cpu", 32 * MIB, 0),
        ("2.14.0a0", 32 * MIB, 0),
    ],
)
def test_versions(version, blackwell, lt):
    found = gpu_figures("b200", version)
    assert (found.cublas_workspace_bytes, found.cublaslt_workspace_bytes) == (blackwell, lt)


def test_the_context_is_a_range_and_says_whether_it_was_measured():
    assert gpu_figures("t4").context_range_bytes == (141_426_688, 141_426_688)
    for gpu in ARCHITECTURES:
        low, high = gpu_figures(gpu).context_range_bytes
        assert 100 * MIB < low <= high < 1300 * MIB
    assert not gpu_figures("sm90").context_measured


def test_an_unknown_gpu_is_refused_with_the_known_ones():
    with pytest.raises(ConvscopeError, match=r"gpu='voodoo2'.*sm75.*sm120.*rtx4090"):
        gpu_figures("voodoo2")
