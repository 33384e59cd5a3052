import copy
import math

import pytest
import timm
import timm.layers
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import same_bits
from convscope.data import load_data
from convscope.norm import BatchNorm2d
from convscope.norm.group_fit.fit import fit_groups
from norm.group_fit.lstsq_oracle import (
    assert_fit,
    batch_norm,
    converted,
    copy_with,
    group_norm,
    images,
    net,
    randomised,
    ready,
)


@pytest.mark.parametrize(
    ("norm_class", "shape"),
    [
        (nn.BatchNorm1d, (20, 32)), (nn.BatchNorm1d, (6, 8, 5)), (nn.BatchNorm2d, (6, 8, 3, 5)),
        (nn.BatchNorm3d, (3, 8, 2, 3, 4)), (nn.SyncBatchNorm, (6, 8, 3, 5)), (BatchNorm2d, (1, 8, 4, 4)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [None, 1, 2])
def test_one_layer_against_lstsq(norm_class, shape, affine, groups):
    norm = randomised(norm_class(shape[1], affine=affine)).double().eval()
    x = torch.randn(shape, dtype=torch.float64) + 1
    fit = fit_groups(nn.Sequential(norm), ["0"], x, groups)["0"]
    assert fit.refused is None
    assert_fit(fit, x, batch_norm(x, norm))
    own = torch.ones(shape[1]) if norm.weight is None else norm.weight.detach()
    bias = torch.zeros(shape[1]) if norm.bias is None else norm.bias.detach()
    target = batch_norm(x, norm)
    dims = (0, *range(2, x.dim()))
    reused = group_norm(x, copy_with(fit, own.double(), bias.double()))
    spread = (target - target.mean(dims, keepdim=True)).square().sum()
    assert fit.residual_reused == pytest.approx(float(((reused - target).square().sum() / spread).sqrt()))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_exact_recovery_where_every_group_of_every_sample_has_the_same_statistics(groups):
    norm = randomised(nn.BatchNorm2d(8)).eval()
    values = torch.randn(8 // groups * 12) * 3 + 5
    sets = [values[torch.randperm(len(values))] for _ in range(10 * groups)]
    x = torch.stack(sets).view(10, 8, 3, 4)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(96, 4)).eval()
    fits = fit_groups(model, ["0"], list(x.split(4)), groups)
    assert fits["0"].residual < 1e-6
    after = converted(model, fits)
    assert torch.allclose(after[0](x), norm(x), atol=2e-6)
    assert torch.allclose(after(x), model(x), atol=5e-6)


def test_the_network_goes_on_better_than_with_its_old_parameters():
    x, unseen = images(64), images(32)
    model = ready(net(), x)
    for groups in (1, None):
        fits = fit_groups(model, ["1", "4"], x, groups)
        own = {p: copy_with(f, model[int(p)].weight, model[int(p)].bias) for p, f in fits.items()}
        with torch.no_grad():
            refitted, reused = (
                float((converted(model, each)(unseen) - model(unseen)).norm()) for each in (fits, own)
            )
        assert refitted < 0.75 * reused
        assert all(fit.residual < fit.residual_reused for fit in fits.values())


def test_the_target_comes_before_a_built_in_activation():
    norm = randomised(timm.layers.BatchNormAct2d(8)).double().eval()
    x = torch.randn(6, 8, 4, 4, dtype=torch.float64)
    assert_fit(fit_groups(nn.Sequential(norm), ["0"], x)["0"], x, batch_norm(x, norm))


def test_what_is_refused_and_why():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.BatchNorm2d(4), randomised(nn.BatchNorm2d(4))
            self.untracked = nn.BatchNorm2d(4, track_running_stats=False)
            self.narrow = nn.BatchNorm1d(1)

        def forward(self, x):
            y = self.untracked(self.used(x)).mean((1, 2, 3))
            return self.narrow(y[:, None])

    model = Odd().eval()
    paths = ["narrow", "used", "unused", "untracked"]
    fits = fit_groups(model, paths, torch.randn(5, 4, 3, 3))
    assert list(fits) == paths
    assert fits["used"].refused is None
    assert "single value" in fits["narrow"].refused
    assert "ran on this data" in fits["unused"].refused
    assert "no running statistics" in fits["untracked"].refused
    assert math.isnan(fits["unused"].residual)
    assert torch.equal(fits["unused"].weight, model.unused.weight.double())
    assert torch.equal(fits["unused"].bias, model.unused.bias.double())


def test_the_smallest_map_of_all_batches_decides_on_groups():
    norm = randomised(nn.BatchNorm2d(64)).eval()
    small, large = torch.randn(4, 64, 2, 2), torch.randn(4, 64, 5, 5)
    for data, groups, values in (([large], 32, 50), ([large, small], 16, 16), ([small, large], 16, 16)):
        fit = fit_groups(norm, ["self"], data, None)["self"]
        assert (fit.num_groups, fit.group_values) == (groups, values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_fitted_as_the_layer_computes(dtype):
    x = torch.randn(8, 8, 6, 6).to(dtype)
    norm = randomised(nn.BatchNorm2d(8)).eval().to(dtype)
    fit = fit_groups(nn.Sequential(norm), ["0"], x)["0"]
    assert fit.weight.dtype == torch.float64
    assert_fit(fit, x, norm(x).detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_network(dtype):
    x = images(16)
    model = ready(net(), x)
    wide = fit_groups(model, ["1", "4"], x)
    narrow = fit_groups(copy.deepcopy(model).to(dtype), ["1", "4"], x.to(dtype))
    for path, fit in narrow.items():
        assert torch.allclose(fit.weight, wide[path].weight, atol=0.1)
        assert torch.allclose(fit.bias, wide[path].bias, atol=0.1)


def test_data_in_all_forms():
    x = images()
    model = ready(net(), x)
    labels = torch.arange(12) % 5
    expected = fit_groups(model, ["1"], x)["1"].weight
    forms = [
        (x, labels), {"input": x, "label": labels}, [x], [(x, labels)], (batch for batch in [x]),
        DataLoader(TensorDataset(x, labels), batch_size=12), list(x.split(5)), (b for b in x.split(5)),
    ]  # fmt: skip
    for data in forms:
        assert torch.allclose(fit_groups(model, ["1"], data)["1"].weight, expected, atol=1e-9)


def test_two_floating_tensors_are_inputs_and_targets_of_a_denoiser():
    x = images()
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)).to(x.dtype)
    model.eval()[1].running_var.fill_(2.0)
    expected = fit_groups(model, ["1"], x)["1"].weight
    found = fit_groups(model, ["1"], (x, 5 + torch.randn_like(x)))["1"].weight
    assert torch.equal(found, expected)


def test_a_batch_of_one_sample():
    x = images(1)
    model = ready(net(), images())
    assert fit_groups(model, ["1", "4"], x)["4"].refused is None


def everything(model):
    return {
        "tensors": {
            name: (id(t), t.detach().clone()) for name, t in model.state_dict(keep_vars=True).items()
        },
        "modes": [module.training for module in model.modules()],
        "grads": [parameter.requires_grad for parameter in model.parameters()],
        "classes": [type(module) for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "random": torch.get_rng_state(),
    }


def assert_same(one, other):
    for name, (identity, content) in one["tensors"].items():
        assert other["tensors"][name][0] == identity
        assert same_bits(other["tensors"][name][1], content)
    assert torch.equal(one["random"], other["random"])
    assert all(one[key] == other[key] for key in ("modes", "grads", "classes", "hooks"))


def mixed_mode():
    """A model in training mode with one frozen batch norm and dropout."""
    model = nn.Sequential(*net()[:6], nn.Dropout(0.5)).train()
    model[1].eval()
    model[1].weight.requires_grad_(False)
    model[3].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("sweeps", [0, 2])
def test_the_model_comes_back_as_it_was(sweeps):
    model = mixed_mode()
    loader = DataLoader(TensorDataset(images()), batch_size=5, shuffle=True)
    before = everything(model)
    fit_groups(model, ["1", "4"], loader, sweeps=sweeps)
    assert_same(before, everything(model))


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_the_model_comes_back_as_it_was_after_an_exception(after):
    model, x = mixed_mode(), images()
    before = everything(model)

    def interrupt(done, most):
        if done > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_groups(model, ["1", "4"], list(x.split(4)), progress=interrupt)
    assert_same(before, everything(model))


def test_in_inference_mode_and_with_gradients_off():
    x = images()
    model = ready(net(), x)
    expected = fit_groups(model, ["1", "4"], x)["4"].weight
    with torch.inference_mode():
        found = fit_groups(model, ["1", "4"], x + 0)["4"].weight
    assert torch.equal(found, expected)
    assert not found.is_inference()


def test_modes_do_not_matter():
    x = images()
    model = ready(net(), x)
    expected = fit_groups(model, ["1", "4"], x)["4"].weight
    assert torch.equal(fit_groups(model.train(), ["1", "4"], x)["4"].weight, expected)


def test_no_paths_no_fits():
    assert fit_groups(nn.ReLU(), [], torch.ones(1)) == {}


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda m: fit_groups(m, ["9"], images()), ["unknown layer '9'"]),
        (lambda m: fit_groups(m, ["0"], images()), ["0, a Conv2d", "a batch norm"]),
        (lambda m: fit_groups(m, ["1", "4"], images(), 8), ["num_groups=8 for 4 with 12 channels"]),
        (lambda m: fit_groups(m, ["1"], images(), 0), ["num_groups=0 for 1"]),
        (lambda m: fit_groups(m, ["1"], images(), sweeps=-1), ["sweeps=-1"]),
        (lambda m: fit_groups(m, ["1"], []), ["without a single batch"]),
        (lambda m: fit_groups(m, ["1"], iter(())), ["without a single batch"]),
        (lambda m: fit_groups(m, ["1"], images(0)), ["(0, 3, 9, 9)"]),
        (lambda m: fit_groups(m, ["1"], images() / 0), ["NaN or infinite"]),
        (lambda m: fit_groups(m, ["1"], torch.randn(2, 4, 9, 9)), ["fails in 0", "(2, 4, 9, 9)"]),
        (lambda m: fit_groups(m, ["1"], 3), ["data of type int"]),
        (lambda m: fit_groups("m", ["1"], images()), ["as the network"]),
    ],
)
def test_bad_input(call, parts):
    model = ready(net(), images())
    before = everything(model)
    with torch.random.fork_rng(), pytest.raises(ConvscopeError) as caught:
        call(model)
    assert all(part in str(caught.value) for part in parts)
    assert "\n" not in str(caught.value)
    assert_same(before, everything(model))


@pytest.mark.zoo
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenetv3_small_050",
        "efficientnet_lite0",
        "regnetx_002",
        "densenet121",
        "tf_efficientnetv2_b0",
        "dpn48b",
        "hrnet_w18_small",
        "cspresnet50",
        "ghostnetv3_050",
        "gcresnet33ts",
        "tiny_vit_5m_224",
    ],
)
def test_every_batch_norm_of_a_network_gets_its_fit(name):
    model = timm.create_model(name).eval()
    norms = {p: m for p, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    for norm in norms.values():
        randomised(norm)
    side = 224 if "vit" in name else 64
    x = torch.randn(6, 3, side, side)
    with torch.no_grad():
        before = model(x)
    for sweeps in (0, 1):
        fits = fit_groups(model, norms, x, 1, sweeps=sweeps)
        assert [path for path, fit in fits.items() if fit.refused] == []
        # Least squares is never worse than any other γ and β, nor than a constant.
        assert all(fit.residual <= min(fit.residual_reused, 1) + 1e-9 for fit in fits.values())
    with torch.no_grad():
        assert torch.equal(model(x), before)


def accuracy(model, pictures, labels):
    with torch.no_grad():
        return float((model(pictures).argmax(1) == labels).float().mean())


@pytest.mark.slow
def test_a_trained_network_keeps_its_accuracy():
    data = load_data("digits", size=16, channels=1)
    (x, labels), unseen = data.train.stacked(), data.validation.stacked()
    widths = [(1, 16, 1), (16, 32, 2), (32, 48, 2)]
    blocks = [
        (nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for a, b, stride in widths
    ]
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))
    model = nn.Sequential(*(layer for block in blocks for layer in block), *pooled)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(5):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), labels[rows]).backward()
            optimizer.step()
    model.eval()
    before = accuracy(model, *unseen)
    assert before > 0.95
    for groups, most_lost in ((1, 0.03), (2, 0.2)):  # narrow layers split finely lose more: 8 groups, 0.3
        fits = fit_groups(model, ["1", "4", "7"], list(x[:320].split(64)), groups)
        own = {p: copy_with(f, model[int(p)].weight, model[int(p)].bias) for p, f in fits.items()}
        assert accuracy(converted(model, fits), *unseen) > before - most_lost
        assert accuracy(converted(model, own), *unseen) < before - 0.3
