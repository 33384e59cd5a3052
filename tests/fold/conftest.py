"""Batch norms with statistics that make wrong folds visible: fresh ones (mean 0, variance 1) hide most."""

import copy

import pytest
import torch


@pytest.fixture
def randomised():
    """Return a function that gives every batch norm distinct values per channel, some gammas negative."""

    def randomise(model, mode=False):
        generator = torch.Generator().manual_seed(7)

        def normal(like):
            return torch.randn(like.shape, generator=generator).to(like)

        for module in model.modules():
            for name, tensor in (*module._buffers.items(), *module._parameters.items()):
                if tensor is None or not hasattr(module, "running_mean") or not tensor.is_floating_point():
                    continue
                with torch.no_grad():
                    noise = normal(tensor)
                    positive = name == "running_var"
                    tensor.copy_(0.3 + noise.abs() if positive else 0.2 * noise + (name == "weight"))
                    if name == "weight":
                        tensor[::3] *= -1
        return model.train(mode)

    return randomise


@pytest.fixture
def relative_error():
    """Return a function that compares two models in float64 on a random input: the oracle for every fold."""

    def compare(before, after, *shape, seed=11):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with torch.no_grad():
            y0, y = (tensors(copy.deepcopy(model).double().eval()(x)) for model in (before, after))
        assert len(y0) == len(y) > 0
        return max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(y0, y, strict=True))

    def tensors(outputs):
        if isinstance(outputs, torch.Tensor):
            return [outputs]
        return list(outputs.values() if isinstance(outputs, dict) else outputs)

    return compare
