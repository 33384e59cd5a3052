import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.norm import operator

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
    return x, weight, bias, dims, 1e-5


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_operators_keep_their_schemas_and_simulate_faithfully(name, dtype):
    """PyTorch's own checks: no aliases, nothing mutated, simulated strides as real ones."""
    forward, backward = torch.ops.convscope.normalise.default, torch.ops.convscope.normalise_backward.default
    x, weight, bias, dims, eps = arguments(name, dtype)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(forward, (x, weight, bias, dims, eps), test_utils=checks)
    _, *statistics = forward(x, weight, bias, dims, eps)
    torch.library.opcheck(
        backward, (torch.randn_like(x), x, weight, statistics, dims, eps), test_utils=checks
    )


@pytest.mark.parametrize("name", ["batch", "not affine"])
def test_nothing_of_the_input_s_size_is_allocated_but_the_result(name):
    class Large(TorchDispatchMode):
        """Notes the storage of every operator's result that is as large as the input."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.numel() >= x.numel():
                large.append(out.untyped_storage())
            return out

    x, weight, bias, dims, eps = arguments(name)
    dy, large = torch.randn_like(x), []
    with Large():
        output, *statistics = operator.forward(x, weight, bias, dims, eps)
        dx, _, _ = operator.backward(dy, x, weight, statistics, dims, eps)
    given = {t.untyped_storage().data_ptr() for t in (x, dy)}
    results = {t.untyped_storage().data_ptr() for t in (output, dx)}
    assert {storage.data_ptr() for storage in large} - given == results
