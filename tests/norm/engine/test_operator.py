import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.core.errors import ConvscopeError
from convscope.norm.engine import kernels, operator, reductions, statistics
from convscope.norm.layers.group import GroupNorm

CASES = {
    "batch": ((4, 3, 5, 2), (1, 3, 1, 1), (0, 2, 3)),
    "layer": ((2, 3, 4), (1, 1, 4), (2,)),
    "one sample's features": ((5,), (5,), (0,)),
    "not affine": ((4, 3, 5), None, (0, 2)),
}


def arguments(name, dtype=torch.float32):
    shape, affine, dims = CASES[name]
    x = torch.randn(shape).to(dtype)
    weight, bias = (None if affine is None else torch.randn(affine) for _ in range(2))
    return x, weight, bias, dims


@pytest.mark.usefixtures("any_blocks")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("with_mask", [False, True])
def test_operators_keep_their_schemas_and_simulate_faithfully(name, dtype, with_mask):
    """PyTorch's own checks: no aliases, nothing mutated, simulated strides as real ones."""
    x, weight, bias, dims = arguments(name, dtype)
    mask = torch.rand([1 if dim == 1 else size for dim, size in enumerate(x.shape)]) > 0.2
    mask = mask if with_mask else None
    dy = torch.randn_like(x)
    found = operator.moments(x, mask, dims)
    terms = [found.shift, *(torch.rand_like(found.shift) for _ in range(3))]
    calls = {
        "moments": (x, mask, dims),
        "normalise": (x, weight, bias, mask, list(found[:3]), 1e-5),
        "normalise_sums": (dy, x, weight, mask, terms[:3], dims),
        "normalise_backward": (dy, x, weight, mask, terms),
    }
    for operation, given in calls.items():
        torch.library.opcheck(
            getattr(torch.ops.convscope, operation).default,
            given,
            test_utils=("test_schema", "test_faketensor"),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_nothing_of_the_input_s_size_is_allocated_but_the_result(dtype, affine, layout):
    """Whatever is allocated is at most a block, however large the input, in half precision too."""

    class Large(TorchDispatchMode):
        """Notes the storage of every operator's result that is larger than two float32 blocks."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.untyped_storage().nbytes() > 2**22:
                large.append(out.untyped_storage())
            return out

    x = torch.randn(24, 64, 64, 64).to(dtype, memory_format=layout)  # 12 or 24 MiB
    dy, large = torch.randn_like(x), []
    weight = bias = torch.rand(1, 64, 1, 1) if affine else None
    with Large():
        found = statistics.moments(x, (0, 2, 3))
        output = kernels.normalised(x, weight, bias, None, found[:3], 1e-5)
        sums = reductions.sums(dy, x, weight, None, found[:3], (0, 2, 3))
        dx = kernels.gradient(dy, x, weight, None, (found.shift, *sums[:2], found.variance))
    given = {t.untyped_storage().data_ptr() for t in (x, dy)}
    results = {t.untyped_storage().data_ptr() for t in (output, dx)}
    assert {storage.data_ptr() for storage in large} - given == results


def test_an_exported_program_infers_and_says_that_it_has_no_gradients():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), GroupNorm(2, 4)).eval()
    x = torch.randn(2, 3, 6, 6)
    program = torch.export.export(network, (x,)).module()
    with torch.no_grad():
        assert torch.equal(program(x), network(x))
    with pytest.raises(ConvscopeError, match=r"under torch\.no_grad\(\)"):
        program(x)
