"""Networks that many tests run: small, and each with a trait that trips tools up."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class ResidualNet(nn.Module):
    """Two residual blocks with batch norm, in-place ReLUs, a strided shortcut, dropout and a linear head."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.conv1 = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.shortcut = nn.Conv2d(6, 8, 1, stride=2)
        self.pool = nn.MaxPool2d(3, 2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
        return self.head(self.drop(self.pool(y).mean((2, 3))))


class FunctionalNet(nn.Module):
    """Convolutions, batch norm and linear as functions on bare parameters: no submodule at all."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 5) * 0.1)
        self.gamma = nn.Parameter(torch.rand(4) + 0.5)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))
        self.matrix = nn.Parameter(torch.randn(4, 7) * 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(x, self.kernel, stride=(1, 2))
        y = F.batch_norm(y, self.mean, self.var, self.gamma, training=self.training)
        return y.clamp(min=0).mean((2, 3)) @ self.matrix


class SharedNet(nn.Module):
    """One convolution and one ReLU module, each called twice, and two linear layers with one tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.conv(self.relu(self.conv(x))))
        return self.second(self.first(y.amax((2, 3))))


class CheckpointedNet(nn.Module):
    """A block whose forward runs a second time during backward."""

    def __init__(self, reentrant: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.block = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
        self.head = nn.Linear(5, 2)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = checkpoint(self.block, self.stem(x), use_reentrant=self.reentrant)
        return self.head(y.mean((2, 3)))


class DictNet(nn.Module):
    """Takes its input by name and returns a dictionary with a nested tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, *, image: torch.Tensor) -> dict[str, object]:
        y = self.conv(image).relu()
        return {"logits": self.head(y.mean((2, 3))), "maps": (y, y.shape)}


class ForgetfulNet(nn.Module):
    """Changes itself whenever it runs: a counter, a list, a lazily made buffer and a reassigned buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.runs = 0
        self.seen: list[int] = []
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        self.seen.append(x.shape[0])
        y = self.conv(x)
        self.total = self.total + y.detach().mean((0, 2, 3))
        if not hasattr(self, "cache"):
            self.register_buffer("cache", torch.ones(1))
        return (y * self.cache).mean((2, 3)) + torch.rand(4)


class NestedNet(nn.Module):
    """A module with parameters and buffers of its own beside those of its submodules."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 1, 1))
        self.inner = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        self.register_buffer("shift", torch.zeros(2, 1, 1))
        self.last = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last((self.inner(x * self.scale) + self.shift).mean((2, 3)))


@dataclass(frozen=True)
class Case:
    """A network and the shape of one input."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


CASES = (
    Case("residual", ResidualNet, (4, 3, 17, 13)),
    Case("functional", FunctionalNet, (4, 3, 9, 14)),
    Case("shared", SharedNet, (3, 3, 6, 6)),
    Case("checkpointed", CheckpointedNet, (4, 3, 11, 9)),
    Case("forgetful", ForgetfulNet, (2, 3, 7, 7)),
)


def state_of(model: nn.Module) -> dict[str, object]:
    """Everything a tool could change in a model, in a form that ``==`` compares exactly."""
    state: dict[str, object] = {}
    for path, module in model.named_modules():
        state[f"{path}!modes"] = module.training
        state[f"{path}!attributes"] = sorted(module.__dict__)
        state[f"{path}!plain"] = repr(
            {k: v for k, v in module.__dict__.items() if isinstance(v, int | float | str | list | tuple)}
        )
        for kind in ("_parameters", "_buffers"):
            for name, tensor in module.__dict__[kind].items():
                key = f"{path}.{kind}.{name}"
                state[f"{key}!identity"] = id(tensor)
                if tensor is not None:
                    state[key] = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).tolist()
                    state[f"{key}!kind"] = (
                        type(tensor),
                        tensor.requires_grad,
                        tensor._version,
                        tensor.device,
                    )
                    state[f"{key}!grad"] = None if tensor.grad is None else tensor.grad.tolist()
        for kind, hooks in module.__dict__.items():
            if kind.endswith("hooks"):
                state[f"{path}.{kind}"] = list(hooks)
    state["rng"] = torch.get_rng_state().tolist()
    return state
