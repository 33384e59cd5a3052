"""The bias test against float64 autograd, and against published and known counts."""

import pytest
import torch
from torch import nn

from checkup.grown import Small, bits_of, images
from convscope import checkup
from convscope.checkup.measuring.batches import batches_of
from convscope.checkup.measuring.bias import training_step
from convscope.core.preserved import preserved
from convscope.norm.layers.batch import BatchNorm1d, BatchNorm2d


class Mixed(nn.Module):
    """Biases that are redundant for different reasons, and some that aren't."""

    def __init__(self, norm2d=nn.BatchNorm2d, norm1d=nn.BatchNorm1d):
        super().__init__()
        self.direct = nn.Conv2d(3, 4, 3)
        self.bn1 = norm2d(4)
        self.useful = nn.Conv2d(4, 4, 3)
        self.shared = nn.Conv2d(4, 4, 1)
        self.bn2 = norm2d(4)
        self.linear = nn.Linear(4, 5)
        self.bn3 = norm1d(5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = torch.relu(self.useful(torch.relu(self.bn1(self.direct(x)))))
        # Through a sum: what the shared convolution adds both times is taken away by bn2.
        x = self.bn2(self.shared(x) + self.shared(x.flip(0)))
        return self.head(self.bn3(self.linear(torch.tanh(x).mean((2, 3)))))


def _gradients(step):
    return {name: (sums.signed, sums.absolute) for name, sums in step.biases.items()}


@pytest.mark.parametrize("norms", [(nn.BatchNorm2d, nn.BatchNorm1d), (BatchNorm2d, BatchNorm1d)])
def test_redundant_biases_are_found_whatever_is_between(norms):
    found = checkup(Mixed(*norms), torch.randn(8, 3, 9, 8))
    redundant = [finding for finding in found.findings if finding.fault == "redundant-bias"]
    assert sorted(finding.address for finding in redundant) == ["direct#1", "linear#1", "shared#1"]
    remedies = {finding.address: finding.remedy for finding in redundant}
    assert "('bn1').running_mean -= model.get_submodule('direct').bias" in remedies["direct#1"]
    assert "('bn3').running_mean -= model.get_submodule('linear').bias" in remedies["linear#1"]
    assert "running_mean -=" not in remedies["shared#1"]


def test_sums_are_the_gradients_of_the_biases():
    model = Mixed().double()
    (batch,) = batches_of(model, torch.randn(8, 3, 9, 8, dtype=torch.float64))
    step = training_step(model, batch)
    outputs = model.train()(batch.args[0])
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).double()
    (outputs * weights).sum().backward()
    assert set(step.biases) == {f"{name}.bias" for name in ("direct", "useful", "shared", "linear", "head")}
    for name, (signed, absolute) in _gradients(step).items():
        assert torch.allclose(signed, model.get_parameter(name).grad, atol=1e-12), name
        assert (absolute >= signed.abs()).all()


def test_the_remedy_is_exact_in_evaluation_mode():
    model = Mixed()
    with torch.no_grad():
        model.bn1.running_mean.normal_()
    x = torch.randn(4, 3, 9, 8)
    expected = model.eval()(x)
    with torch.no_grad():
        model.bn1.running_mean -= model.direct.bias
        model.direct.bias = None
    assert torch.allclose(model(x), expected, atol=1e-6)


def test_a_frozen_batch_norm_makes_no_bias_redundant():
    model = Mixed().train()
    model.bn1.eval()
    found = checkup(model, torch.randn(8, 3, 9, 8))
    redundant = {finding.address for finding in found.findings if finding.fault == "redundant-bias"}
    assert redundant == {"linear#1", "shared#1"}


def test_zero_gains_leave_it_undetermined():
    model = Mixed()
    nn.init.zeros_(model.bn1.weight)
    found = checkup(model, torch.randn(8, 3, 9, 8))
    assert any(u.what == "direct.bias" and "undetermined" in u.reason for u in found.unchecked)
    assert "direct#1" not in {finding.address for finding in found.findings}


class _Unused(nn.Module):
    """A head that the network doesn't return anything of."""

    def __init__(self):
        super().__init__()
        self.body, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.head, self.size = nn.Linear(4, 3), nn.Linear(4, 1)

    def forward(self, x):
        x = self.norm(self.body(x)).relu().mean((2, 3))
        scores, _ = self.head(x), self.size(x)
        return scores


def test_a_bias_that_no_output_depends_on_is_said_to_be_that():
    found = checkup(_Unused(), torch.randn(8, 3, 9, 8))
    assert {each.what: each.reason for each in found.unchecked}["size.bias"].startswith(
        "nothing that the network returns depends on this bias"
    )
    assert "head.bias" not in {each.what for each in found.unchecked}


@pytest.mark.parametrize(
    ("value", "moved", "told"), [(0.0, True, False), (0.0, False, True), (0.5, True, True)]
)
def test_a_bias_of_zeros_before_a_trained_norm_has_been_taken_out(value, moved, told):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    nn.init.constant_(net[0].bias, value)
    if moved:
        net[1].running_mean.fill_(0.25)
    found = checkup(net, torch.randn(8, 3, 9, 8)).findings
    assert ("redundant-bias" in {each.fault for each in found}) is told


def test_half_precision_is_too_coarse_to_tell():
    found = checkup(Mixed().bfloat16(), torch.randn(8, 3, 9, 8).bfloat16())
    assert any(u.what == "direct.bias" and "half precision" in u.reason for u in found.unchecked)


def test_a_training_step_leaves_no_trace():
    model = Small(bias=True).train()
    (batch,) = batches_of(model, images(8))
    before = bits_of(model)
    training_step(model, batch)
    assert bits_of(model) == before


def _outputs(model, x):
    with torch.no_grad(), preserved(model):
        return model.train()(x)


def _by_shifting(model, x):
    """The biases which can be shifted without any change of the training outputs, in float64."""
    expected = _outputs(model, x)
    redundant = set()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and parameter.dim() == 1:
            with preserved(model):
                with torch.no_grad():
                    parameter.add_(torch.rand_like(parameter) + 0.5)
                if float((_outputs(model, x) - expected).abs().max()) < 1e-10:
                    redundant.add(name.removesuffix(".bias") + "#1")
    return redundant


def _found(model, x):
    return {finding.address for finding in checkup(model, x).findings if finding.fault == "redundant-bias"}


def test_redundant_biases_are_those_that_can_be_shifted():
    model, x = Mixed().double(), torch.randn(8, 3, 9, 8, dtype=torch.float64)
    assert _found(model, x) == _by_shifting(model, x)


class Attentive(nn.Module):
    """Global context: pooled with weights from a softmax over positions, and added to every position."""

    def __init__(self):
        super().__init__()
        self.score = nn.Conv2d(3, 1, 1)
        self.shrink = nn.Conv2d(3, 4, 1)
        self.grow = nn.Conv2d(4, 3, 1)
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x):
        weights = self.score(x).flatten(2).softmax(2)
        context = (x.flatten(2) * weights).sum(2)[..., None, None]
        return self.bn(self.conv(x + self.grow(torch.relu(self.shrink(context)))))


def test_before_a_softmax_and_through_a_sum():
    model, x = Attentive().double(), torch.randn(8, 3, 5, 4, dtype=torch.float64)
    assert _found(model, x) == _by_shifting(model, x) == {"score#1", "grow#1"}


@pytest.mark.slow
def test_attention_in_a_real_network():
    timm = pytest.importorskip("timm")
    model = timm.create_model("gcresnet33ts", num_classes=10)
    for parameter in model.parameters():  # zero-initialised gains would leave most of it undetermined
        if not parameter.any():
            nn.init.normal_(parameter)
    found = _found(model, torch.randn(8, 3, 64, 64))
    # In each of ten blocks the two of the test above, and no other.
    assert len(found) == 20
    assert all(address.endswith(("attn.conv_attn#1", "attn.mlp_add.fc2#1")) for address in found)


# Every convolution of VGG-11-BN has a bias and feeds a batch norm; no convolution of ResNet-18 has one; the
# heads' biases are useful.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("vgg11_bn", 8), ("resnet18", 0)])
def test_torchvision(name, count):
    torchvision = pytest.importorskip("torchvision")
    model = getattr(torchvision.models, name)(num_classes=10)
    assert len(_found(model, torch.randn(4, 3, 64, 48))) == count


class Shared(nn.Module):
    """One batch norm behind two convolutions, and one behind two calls of the same convolution."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.two, self.one = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        x = torch.relu(self.two(self.a(x)) + self.two(self.b(x)))
        return self.one(self.c(x)) * self.one(self.c(x + 1))


def _remedies(model, x):
    found = checkup(model, x).findings
    return {finding.address: finding.remedy for finding in found if finding.fault == "redundant-bias"}


def test_a_shared_running_mean_takes_no_constant_in():
    x = torch.randn(8, 3, 6, 5)
    remedies = _remedies(Shared(), x)
    assert remedies.keys() == {"a#1", "b#1", "c#1"}
    assert "running_mean -=" not in remedies["a#1"] + remedies["b#1"]
    assert "exact in evaluation mode" not in remedies["a#1"] + remedies["b#1"]
    model = Shared().eval()
    expected = model(x)
    # Both calls of this one read the same layer: what the remedy says is exact.
    assert remedies["c#1"].startswith("cs.checkup.mend(model, loader), or by hand ")
    code = remedies["c#1"].split("by hand ")[1].split(": exact")[0]
    exec(code, {"torch": torch, "model": model})
    assert model.c.bias is None
    assert torch.allclose(model(x), expected, atol=1e-5)


def test_the_remedy_names_the_buffer_of_a_function():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv2d(3, 4, 3)
            self.register_buffer("rm", torch.zeros(4))
            self.register_buffer("rv", torch.ones(4))

        def forward(self, x):
            return nn.functional.batch_norm(self.c(x), self.rm, self.rv, training=self.training)

    (finding,) = (f for f in checkup(Net(), torch.randn(8, 3, 6, 5)).findings if f.fault == "redundant-bias")
    assert "model.get_submodule('').rm -= model.get_submodule('c').bias;" in finding.remedy
    assert "the batch norm self#1:batch_norm.1" in finding.why
