"""What a folded network computes and runs, seen from outside: nothing here is the library's."""

import copy

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Counts the operators that run, by their names without ``aten::`` and underscores at the ends."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function._schema.name.removeprefix("aten::").strip("_"))
        return function(*args, **(kwargs or {}))

    def batch_norms(self):
        return [name for name in self.names if "batch_norm" in name]


def operators_of(net, shape, dtype):
    """Return the operators that a network runs in evaluation."""
    with torch.no_grad(), Operators() as seen:
        net(torch.zeros(shape, dtype=dtype))
    return seen


def tensors(outputs):
    """Return the tensors of nested outputs, in order."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    items = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for item in items for tensor in tensors(item)]


def outputs_of(net, x):
    with torch.no_grad():
        return tensors(net(x))


def relative_error(before, after, shapes, runs=3):
    """Return the largest max|y − y₀| / max|y₀| of float64 copies, over random inputs of some shapes."""
    before, after = (copy.deepcopy(net).double() for net in (before, after))
    generator = torch.Generator().manual_seed(13)
    worst = 0.0
    for shape in shapes:
        for _ in range(runs):
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            expected, given = outputs_of(before, x.clone()), outputs_of(after, x.clone())
            assert [y.shape for y in expected] == [y.shape for y in given]
            assert expected
            errors = [
                ((y - y0).abs().max() / y0.abs().max()).item() for y0, y in zip(expected, given, strict=True)
            ]
            assert all(error == error for error in errors), "not a number"
            worst = max(worst, *errors)
    return worst


def first_dtype(net):
    """The dtype of a network's input: that of its first floating tensor."""
    tensors_of_net = (*net.parameters(), *net.buffers())
    return next((t.dtype for t in tensors_of_net if t.is_floating_point()), torch.float32)


def trained(net: nn.Module, x):
    """Take one step of gradient descent, and return the names of the parameters that it changed."""
    net.train()
    old = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.01)
    sum(y.float().square().sum() for y in tensors(net(x))).backward()
    optimizer.step()
    return [name for name, p in net.named_parameters() if not torch.equal(p, old[name])]
