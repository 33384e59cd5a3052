"""The whole verb: networks, the result as an ordinary module, and the user's model left alone."""

import io
import pickle
import threading

import pytest
import torch
from torch import nn

from cases import state_of
from convscope.core.errors import ConvscopeError
from convscope.fold import FoldedBatchNormAct, fold
from fold.nets import IMAGE, Functional, conv


def test_dictionary_outputs_and_several_inputs(randomised):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = conv(), nn.BatchNorm2d(4)

        def forward(self, image, scale):
            return {"maps": self.bn(self.conv(image)) * scale, "labels": scale.long()}

    folded = fold(randomised(Net()), {"image": torch.randn(IMAGE), "scale": torch.tensor(2.0)})
    assert folded.ledger.folded == 1
    assert folded.proof.passed


def test_network_that_runs_in_float32_only_is_proved_there(randomised):
    net = Functional(lambda s, x: s.bn(s.conv(x.float())), conv=conv(), bn=nn.BatchNorm2d(4))
    folded = fold(randomised(net), IMAGE)
    assert folded.ledger.folded == 1
    assert [error.dtype for error in folded.proof.errors] == ["float32"]


def test_residual_network(randomised, relative_error):
    torchvision = pytest.importorskip("torchvision")
    net = randomised(torchvision.models.resnet18())
    folded = fold(net, (2, 3, 40, 33))
    assert (folded.ledger.folded, folded.ledger.kept) == (20, 0)
    assert folded.ledger.entries[3].into == "layer1.1.conv1#1"
    assert relative_error(net, folded.model, 2, 3, 40, 33) < 1e-4
    assert type(folded.model) is type(net)
    assert max(entry.max_error for entry in folded.ledger.entries) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folded", "kept"), [("mobilenet_v2", 52, 0), ("densenet121", 62, 7), ("googlenet", 57, 0)]
)
def test_networks_of_torchvision(name, folded, kept, randomised):
    torchvision = pytest.importorskip("torchvision")
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    result = fold(randomised(torchvision.models.get_model(name, weights=None, **options)), (2, 3, 64, 64))
    assert (result.ledger.folded, result.ledger.kept) == (folded, kept)
    assert result.max_error < 1e-9


@pytest.mark.slow
def test_timm_network_with_activating_batch_norms(randomised):
    timm = pytest.importorskip("timm")
    net = randomised(timm.create_model("efficientnet_lite0"))
    result = fold(net, (2, 3, 64, 64))
    assert (result.ledger.folded, result.ledger.kept) == (49, 0)
    assert isinstance(result.model.bn1, FoldedBatchNormAct)


def test_layers_with_colons_in_their_names_fold(randomised):
    class Colons(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("stage:1", conv())
            self.add_module("bn:1", nn.BatchNorm2d(4))
            self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self._modules["bn:1"](self._modules["stage:1"](x))
            return self.a(x) + self.b(x)

    ledger = fold(randomised(Colons()), IMAGE).ledger
    (entry,) = ledger.entries
    assert (entry.address, entry.verdict, entry.into) == ("bn:1#1", "folded", "stage:1#1")


def test_folded_model_is_an_ordinary_module(randomised):
    net = randomised(nn.Sequential(conv(bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(120, 2)))
    folded = fold(net, IMAGE).model
    x = torch.randn(IMAGE)
    loaded = pickle.loads(pickle.dumps(folded))
    assert torch.equal(loaded(x), folded(x))
    file = io.BytesIO()
    torch.save(folded.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert list(folded.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    folded.train()
    before = folded[0].bias.detach().clone()
    optimizer = torch.optim.SGD(folded.parameters(), lr=0.1)
    folded(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(folded[0].bias, before)
    assert "FoldedBatchNorm(was BatchNorm2d(4, eps=1e-05" in repr(folded)


def test_frozen_weights_get_a_frozen_bias(randomised):
    net = randomised(nn.Sequential(conv(bias=False), nn.BatchNorm2d(4))).requires_grad_(False)
    assert not fold(net, IMAGE).model[0].bias.requires_grad


@pytest.mark.parametrize("mode", [False, True])
def test_the_users_model_stays_as_it_was(mode, randomised):
    net = randomised(
        nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Dropout(), conv(4, 4), nn.BatchNorm2d(4)), mode
    )
    net[1].eval()
    net(torch.randn(IMAGE)).sum().backward()
    kept = state_of(net)
    folded = fold(net, IMAGE)
    assert state_of(net) == kept
    assert [module.training for module in folded.model] == [module.training for module in net]
    assert not {id(p) for p in folded.model.parameters()} & {id(p) for p in net.parameters()}
    with pytest.raises(ConvscopeError):
        fold(net, (2, 5, 6, 5))
    assert state_of(net) == kept


def test_users_model_survives_an_exception_in_the_proof(randomised, monkeypatch):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4)))
    kept = state_of(net)

    def fail(network, edits):
        raise KeyboardInterrupt

    monkeypatch.setattr("convscope.fold.planning.plan.carry_out", fail)
    with pytest.raises(KeyboardInterrupt):
        fold(net, IMAGE)
    assert state_of(net) == kept


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("model", "given"),
    [
        (lambda: nn.DataParallel(nn.Sequential(conv(), nn.BatchNorm2d(4))), "wrapped in DataParallel"),
        pytest.param(
            lambda: torch.compile(nn.Sequential(conv(), nn.BatchNorm2d(4))),
            "wrapped in OptimizedModule",
            marks=pytest.mark.slow,
        ),
        (lambda: nn.Sequential(conv(device="meta")), "on the meta device"),
    ],
)
def test_wrappers_and_absent_weights_are_refused(model, given):
    with pytest.raises(ConvscopeError, match=given):
        fold(model().eval(), IMAGE)


def test_model_that_cannot_be_copied_is_named(randomised):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4)))
    net.lock = threading.Lock()
    with pytest.raises(ConvscopeError, match="can't be copied"):
        fold(net, IMAGE)


def test_nothing_to_fold():
    folded = fold(nn.Sequential(conv()).eval(), IMAGE)
    assert (len(folded.ledger), folded.max_error, folded.proof.passed) == (0, 0.0, True)


@pytest.mark.parametrize("least", [2, 3, 5])
def test_a_batch_norm_that_only_small_batches_have_is_kept(least, randomised, relative_error):
    net = Functional(
        lambda s, x: s.bn(s.conv(x)) if x.shape[0] < least else s.conv(x), conv=conv(), bn=nn.BatchNorm2d(4)
    )
    folded = fold(randomised(net), (least - 1, *IMAGE[1:]))
    assert folded.ledger.folded == 0
    assert folded.ledger.entries[0].reason.startswith("taken back")
    assert relative_error(net, folded.model, least + 2, *IMAGE[1:]) == 0


def test_inside_inference_mode_the_copy_still_trains(randomised):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4)))
    with torch.inference_mode():
        folded = fold(net, torch.randn(IMAGE))
    assert folded.ledger.folded == 1
    assert not any(parameter.is_inference() for parameter in folded.model.parameters())
    folded.model(torch.randn(IMAGE)).sum().backward()


def test_outputs_that_are_never_finite_prove_nothing(randomised):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4), conv(4, 4), nn.BatchNorm2d(4)))
    net[3].running_mean[:] = float("nan")
    folded = fold(net, IMAGE)
    assert folded.ledger.kept == 2
    assert "none of its outputs is a finite number" in folded.ledger.entries[0].reason


def test_unknown_border_is_refused(randomised):
    with pytest.raises(ConvscopeError, match="'keep', 'map' or 'pad'"):
        fold(nn.Sequential(conv()).eval(), IMAGE, border="zero")


def test_a_copy_that_runs_the_original_is_no_proof(randomised):
    """A closure over the network survives the copy, which then calls the original's modules."""
    net = Functional(lambda s, x: s.block(x), conv=conv(), bn=nn.BatchNorm2d(4))
    net.block = lambda x: net.bn(net.conv(x))
    assert fold(randomised(net), IMAGE).ledger.folded == 0


def test_a_module_that_writes_in_place_whatever_it_says(randomised):
    class Doubling(nn.Module):
        inplace = True

        def forward(self, x):
            x *= 2
            return x

    net = randomised(nn.Sequential(nn.BatchNorm2d(3), Doubling(), nn.Conv2d(3, 2, 3)))
    x = torch.randn(IMAGE)
    kept = x.clone()
    fold(net, IMAGE).model(x)
    assert torch.equal(x, kept)


def test_a_sum_in_place_into_the_branch_without_the_convolution(randomised, relative_error):
    def forward(self, x):
        y = self.identity(x)
        y += self.bn(self.conv(x))
        return torch.relu_(y)

    net = Functional(forward, conv=conv(4, 4), bn=nn.BatchNorm2d(4), identity=nn.BatchNorm2d(4))
    folded = fold(randomised(net), (2, 4, 6, 5))
    assert folded.ledger.kept == 0
    assert relative_error(net, folded.model, 2, 4, 6, 5) < 1e-6
