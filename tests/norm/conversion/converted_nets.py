"""Networks to convert, and what of a network must stay as it is."""

import torch
import torch.nn.functional as F
from torch import nn


class ReluBatchNorm(nn.BatchNorm2d):
    """A subclass that goes on after its batch norm, with a setting of its own."""

    slope = 0.25

    def forward(self, x):
        return F.leaky_relu(super().forward(x), self.slope)


class OwnBatchNorm(nn.BatchNorm2d):
    """A subclass that computes batch norm itself."""

    def forward(self, x):
        return 2 * F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training)


class Net(nn.Module):
    """Three batch norms, one under two paths and called twice, one with an activation."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), ReluBatchNorm(8)
        self.again = self.bn1
        self.head, self.bn3 = nn.Linear(8, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.again(self.bn2(self.conv2(x)))
        return self.bn3(self.head(x.mean((2, 3))))


def trained(net, *shape, steps=2):
    """Move running statistics, gamma and beta away from where they begin."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter))
        for _ in range(steps):
            like = [*net.parameters(), *net.buffers(), torch.empty(0)][0]
            net.train()(1 + 2 * torch.randn(shape, generator=generator).to(like))
    return net


def state(net):
    """Everything that can be seen of a network: classes, attributes, tensors and their identity, modes."""
    found = {}
    for path, module in net.named_modules(remove_duplicate=False):
        plain = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        hidden = sorted(key for key in vars(module) if key.startswith("_"))
        tensors = (*module._parameters.items(), *module._buffers.items())
        held = {name: (id(t), None if t is None else t.detach().clone()) for name, t in tensors}
        found[path] = type(module), id(module), plain, hidden, held
    return found


def assert_same_state(before, after, same_buffers=True):
    assert before.keys() == after.keys()
    for path, (cls, identity, plain, hidden, tensors) in before.items():
        assert after[path][:4] == (cls, identity, plain, hidden), path
        assert after[path][4].keys() == tensors.keys(), path
        for name, (which, value) in tensors.items():
            found = after[path][4][name]
            assert found[0] == which or not (same_buffers or name in ("weight", "bias")), (path, name)
            assert value is None or (found[1].dtype == value.dtype and torch.equal(found[1], value)), (
                path,
                name,
            )


def first_gradients(net, x):
    """Output and parameter gradients of one training pass, on copies of the network's tensors."""
    net.zero_grad(set_to_none=True)
    out = net(x)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return out.detach(), {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
