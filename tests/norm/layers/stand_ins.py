"""Whether a layer stands in for another: the same outputs and gradients on the same batch, in float64."""

import torch


def assert_stands_in(ours, theirs, shape, atol=1e-11):
    """Run both layers on one random batch of a shape, forwards and backwards."""
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    dy = torch.randn_like(x)
    results = []
    for layer in (ours, theirs):
        y = layer(x)
        results.append((y, *torch.autograd.grad(y, [x, *layer.parameters()], dy)))
    assert all(torch.allclose(a, b, atol=atol) for a, b in zip(*results))
