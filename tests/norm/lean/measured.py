"""What autograd saves, counted without convscope; and a step's results, to be compared bit by bit."""

import torch
from torch.utils._pytree import tree_leaves


def saved_bytes(net, *inputs):
    """Bytes of the storages that one forward pass has autograd save, parameters and buffers apart."""
    standing = {tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers())}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in standing:
            found[storage._cdata] = storage  # alive, so that no other one takes its number
        return tensor if tensor.grad_fn is None else tensor.detach()

    with torch.random.fork_rng(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        torch.manual_seed(3)
        _results = net(*inputs)
        return sum(storage.nbytes() for storage in found.values())


def step(net, *inputs, seed=3):
    """Outputs, gradients and all buffers of one step, from a state of the random numbers."""
    torch.manual_seed(seed)
    net.zero_grad()
    outputs = [leaf for leaf in tree_leaves(net(*inputs)) if isinstance(leaf, torch.Tensor)]
    weights = [torch.linspace(-1, 1, leaf.numel()).view(leaf.shape) for leaf in outputs]
    sum((leaf.float() * weight).sum() for leaf, weight in zip(outputs, weights, strict=True)).backward()
    gradients = [tensor.grad for tensor in (*net.parameters(), *inputs)]
    return [*outputs, *gradients, *net.buffers(), torch.get_rng_state()]


def assert_same_bits(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours.stride() == theirs.stride() and torch.equal(ours, theirs))
