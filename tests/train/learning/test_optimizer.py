import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig
from convscope.train.learning.optimizer import build_optimizer, decay_groups, parameter_names


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.layer_norm = nn.LayerNorm((4, 5, 5))
        self.group_norm = nn.GroupNorm(2, 4)
        self.slopes = nn.PReLU(4)
        self.head = nn.Linear(4, 4, bias=False)
        self.tied = self.head
        self.frozen = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)


def test_only_weights_of_convolutions_and_linear_layers_decay():
    decayed, free = decay_groups(_Network())
    assert list(decayed) == ["conv.weight", "head.weight"]
    assert set(free) == {
        "conv.bias", "norm.weight", "norm.bias", "layer_norm.weight", "layer_norm.bias",
        "group_norm.weight", "group_norm.bias", "slopes.weight",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "peer"),
    [
        ({"optimizer": "sgd"}, lambda groups: torch.optim.SGD(groups, lr=0.01)),
        ({"momentum": 0.8}, lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.8)),
        ({"nesterov": True}, lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)),
        ({"optimizer": "adam"}, lambda groups: torch.optim.Adam(groups, lr=0.01)),
        ({"optimizer": "adamw"}, lambda groups: torch.optim.AdamW(groups, lr=0.01)),
        ({"optimizer": "rmsprop"}, lambda groups: torch.optim.RMSprop(groups, lr=0.01)),
    ],
)
def test_steps_equal_those_of_pytorchs_own_optimizer(settings, peer):
    ours, theirs = _Network().double(), _Network().double()
    theirs.load_state_dict(ours.state_dict())
    config = TrainConfig(learning_rate=0.01, weight_decay=0.03, **settings)
    weights = [theirs.conv.weight, theirs.head.weight]
    others = [p for p in theirs.parameters() if p.requires_grad and all(p is not w for w in weights)]
    groups = [{"params": weights, "weight_decay": 0.03}, {"params": others, "weight_decay": 0.0}]
    optimizers = build_optimizer(ours, config), peer(groups)
    for _ in range(3):
        for mine, other in zip(ours.parameters(), theirs.parameters()):
            mine.grad = torch.randn_like(mine) if mine.requires_grad else None
            other.grad = None if mine.grad is None else mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("optimizer", ["sgd", "sgd-momentum", "adamw"])
def test_a_step_without_gradient_shrinks_only_the_decayed(optimizer):
    model = _Network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = TrainConfig(optimizer=optimizer, learning_rate=0.5, weight_decay=0.1)
    built = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    built.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.5 * 0.1 if name in ("conv.weight", "head.weight") else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, rtol=1e-6, atol=0)


def test_names_follow_the_numbers_of_the_state_dict():
    model = _Network()
    built = build_optimizer(model, TrainConfig())
    parameters = [p for group in built.param_groups for p in group["params"]]
    named = dict(model.named_parameters())
    assert [id(named[name]) for name in parameter_names(built)] == [id(p) for p in parameters]


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ConvscopeError, match="Linear without a trainable parameter"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), TrainConfig())
