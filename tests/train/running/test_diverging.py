import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import convscope as cs
from convscope.norm import freeze
from convscope.train import read_run
from convscope.train.telling.diverged import in_words
from processes import under_torchrun
from train.toy import RandomImages, ToyData, toy_model

SETTINGS = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05, "log_every": 4, "augment": "none"}


class From(nn.Module):
    """Applies a function from its ``step``-th training pass on; before, it lets everything through."""

    def __init__(self, step, function):
        super().__init__()
        self.step, self.function = step, function
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.count += self.training
        return self.function(x) if self.count >= self.step else x


def _network(step=9, function=None):
    """The toy with a faulty layer after its ReLU."""
    model = toy_model(dropout=0)
    return nn.Sequential(*model[:3], From(step, function or (lambda x: x)), *model[3:])


def _trained(tmp_path, model, data=None, **changes):
    return cs.train(model, data or ToyData(), out=tmp_path / "r", **{**SETTINGS, **changes})


@pytest.fixture(params=["cpu", "like an accelerator"])
def reading(request, monkeypatch):
    """Losses are read at every step, or seldom, as on an accelerator, where the run has to go back."""
    if request.param != "cpu":
        monkeypatch.setattr("convscope.train.running.step.check_loss", lambda *_: None)


def _zero_over_zero(x):
    zero = x * 0
    return x + zero / zero


def _root_of_zero(x):
    """Finite forward; the derivative of a square root at 0 is infinite."""
    return x + torch.sqrt(x * 0)


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize(
    ("function", "address", "what", "value", "largest"),
    [
        (_zero_over_zero, "3#1:div.1", "output", "nan", 0.0),
        (lambda x: torch.log(F.relu(x - 1e9)), "3#1:log.1", "output", "-inf", 0.0),
        (lambda x: (x + 1) * 1e37 * 1e37, "3#1:mul.2", "output", "inf", None),
    ],
)  # fmt: skip
def test_a_functional_operators_fault_is_found_in_forward(tmp_path, function, address, what, value, largest):
    run = _trained(tmp_path, _network(9, function), checkpoint_every=2)
    found = run.diverged
    assert (found.step, found.epoch, found.appeared_at) == (9, 2, 9)
    assert (found.address, found.what, found.value) == (address, what, value)
    assert len(found.index) == 4
    if largest is not None:
        assert found.largest_finite == largest
    else:
        assert 1e37 <= found.largest_finite < 1e38
    assert read_run(tmp_path / "r").diverged.index == found.index
    kept = load_file(run.checkpoint)
    assert int(kept["model.3.count"]) == 8
    assert all(tensor.isfinite().all() for tensor in kept.values())


@pytest.mark.usefixtures("reading")
def test_a_nan_pixel_names_the_image(tmp_path):
    data = ToyData(train=RandomImages(42, noisy=False))
    data.train.images[23, 1, 2, 4] = math.nan
    model = toy_model()
    found = _trained(tmp_path, model, data).diverged
    assert (found.what, found.value, found.image, found.index[1:]) == ("input", "nan", 23, (1, 2, 4))
    assert found.largest_finite == pytest.approx(_largest_beside(data, found), rel=1e-6)
    assert "training image 23" in str(found)
    assert "look at that image" in str(found)
    assert "learning_rate" not in str(found)
    assert all(tensor.isfinite().all() for tensor in model.parameters())


def _largest_beside(data, found):
    order = data.train.seen[8 * ((found.step - 1) % 6) :][:8]
    assert order[found.index[0]] == 23
    return float(data.train.images[order].nan_to_num(0).abs().max())


@pytest.mark.usefixtures("reading")
def test_a_weight_that_was_infinite_at_the_start_is_named(tmp_path):
    model = toy_model(dropout=0)
    with torch.no_grad():
        model[5].weight[2, 7] = math.inf
    found = _trained(tmp_path, model).diverged
    assert (found.step, found.address, found.what, found.value) == (1, "5.weight", "weight", "inf")
    assert (found.index, found.appeared_at) == ((2, 7), 0)
    assert "there from the beginning" in str(found)


@pytest.mark.usefixtures("reading")
def test_infinite_gradients_are_found_in_the_step_whose_loss_was_finite(tmp_path):
    """The loss of step 9 is finite, its gradient isn't; step 10's loss is NaN."""
    run = _trained(tmp_path, _network(9, _root_of_zero))
    found = run.diverged
    assert (found.step, found.appeared_at) == (10, 9)
    assert (found.address, found.what) == ("3#1:sqrt.1", "gradient")
    assert "step 9, whose loss was finite" in in_words(found)
    assert [record.step for record in run.steps] == list(range(1, 10))


@pytest.mark.usefixtures("reading")
def test_weights_that_arent_finite_are_never_saved(tmp_path):
    """Steps 6 and 8 are where checkpoints are written: their gradients are infinite, their losses aren't."""
    for step, before in ((6, 4), (8, 6)):
        (tmp_path / str(step)).mkdir()
        run = _trained(tmp_path / str(step), _network(step, _root_of_zero), checkpoint_every=2)
        found = run.diverged
        assert (found.step, found.appeared_at, found.what) == (step, step, "gradient")
        assert math.isfinite(found.loss)
        kept = load_file(run.checkpoint)
        assert int(kept["model.3.count"]) == before
        assert all(tensor.isfinite().all() for tensor in kept.values())


def test_a_huge_learning_rate_overflows_a_layer_and_advice_is_given(tmp_path):
    run = _trained(tmp_path, toy_model(norm=True), learning_rate=1e25, schedule="constant")
    found = run.diverged
    assert found.step in (2, 3)
    assert found.what in ("output", "loss", "gradient", "weight")
    assert found.largest_finite > 1e15
    assert "may help" in in_words(found)
    assert "\n" not in in_words(found)


@pytest.mark.usefixtures("reading")
def test_running_statistics_that_are_nan_are_named_whether_they_are_used_or_not(tmp_path):
    model = toy_model(dropout=0)
    model[1].running_var[2] = math.nan
    found = _trained(tmp_path, model).diverged  # used by the first evaluation only
    assert (found.step, found.address, found.what) == (6, "1.running_var", "running statistics")
    assert (found.value, found.index) == ("nan", (2,))
    assert not (tmp_path / "r" / "best.safetensors").exists()
    frozen = toy_model(dropout=0)
    frozen[1].running_var[2] = math.nan
    freeze(frozen)
    (tmp_path / "frozen").mkdir()
    found = _trained(tmp_path / "frozen", frozen).diverged
    assert (found.step, found.address, found.what) == (1, "1.running_var", "running statistics")


@pytest.mark.usefixtures("reading")
def test_running_statistics_that_overflow_under_a_finite_loss_are_found(tmp_path):
    """Batch norm divides by a deviation of 1e25, whose square has no room in a float32 running variance."""
    parts = toy_model(dropout=0)
    model = nn.Sequential(parts[0], From(9, lambda x: x * 1e25), *parts[1:])
    found = _trained(tmp_path, model, checkpoint_every=2).diverged
    assert (found.step, found.appeared_at) == (10, 9)
    assert (found.address, found.what, found.value) == ("2.running_var", "running statistics", "inf")
    assert 1e25 < found.largest_finite < 1e27
    assert math.isfinite(found.loss)


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize(
    ("function", "address", "index"),
    [
        (lambda x: (x.clone() - 1e9).log_(), "3#1:log_.1", (0, 0, 0, 0)),
        (lambda x: x.index_fill(1, torch.tensor([2]), math.nan), "3#1:index_fill.1", (0, 2, 0, 0)),
    ],
)
def test_what_is_written_in_place_is_followed(tmp_path, function, address, index):
    def through_a_view(x):
        whole = x.clone()
        whole[:, 2:][:, 1].fill_(1).mul_(0).div_(0)
        return whole

    found = _trained(tmp_path, _network(9, function)).diverged
    assert (found.step, found.address, found.index) == (9, address, index)
    (tmp_path / "s").mkdir()
    found = _trained(tmp_path / "s", _network(9, through_a_view)).diverged
    assert (found.step, found.address, found.what) == (9, "3#1:div_.1", "output")


@pytest.fixture
def dirty_memory():
    """PyTorch fills memory that isn't written to yet with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("reading", "dirty_memory")
@pytest.mark.parametrize("optimizer", ["sgd", "sgd-momentum"])
def test_an_update_that_overflows_is_found_in_the_weight(tmp_path, optimizer):
    model = nn.Sequential(*toy_model(dropout=0), From(1, lambda x: x * 1e4))
    rate = {"optimizer": optimizer, "learning_rate": 3e38, "schedule": "constant", "weight_decay": 0.0}
    found = _trained(tmp_path, model, **rate).diverged
    assert (found.step, found.appeared_at, found.what) == (2, 1, "weight")
    assert found.address in ("0.weight", "0.bias", "1.weight", "1.bias", "5.weight", "5.bias")
    assert "computed in step 1, whose loss was finite" in in_words(found)


@pytest.mark.usefixtures("reading")
def test_float16_overflows_where_float32_doesnt(tmp_path):
    def scaled(x):
        return F.conv2d(x + 1, torch.full((4, 4, 1, 1), 3e4))

    assert _trained(tmp_path, _network(9, scaled), learning_rate=1e-9).diverged is None
    (tmp_path / "half").mkdir()
    found = _trained(tmp_path / "half", _network(9, scaled), precision="amp-fp16").diverged
    assert (found.step, found.address, found.value) == (9, "3#1:convolution.1", "inf")
    assert found.largest_finite < 65504


def test_infinities_that_a_network_means_arent_blamed(tmp_path):
    def masked(x):
        x = x.masked_fill(x > 1e9, -math.inf)
        hidden = torch.full_like(x, -math.inf)
        return torch.maximum(x, hidden)

    data = ToyData(train=RandomImages(42, noisy=False))
    data.train.images[23, 1, 2, 4] = math.inf
    model = toy_model(dropout=0)
    found = _trained(tmp_path, nn.Sequential(From(1, masked), model), data).diverged
    assert found is None or found.what != "output"
    model = nn.Sequential(*toy_model(dropout=0)[:2], From(1, masked), *toy_model(dropout=0)[2:])
    model[0].weight.data[1, 0, 0, 0] = math.nan
    (tmp_path / "s").mkdir()
    assert _trained(tmp_path / "s", model).diverged.address == "0.weight"


def test_with_accumulation_the_micro_batch_that_diverges_is_found(tmp_path):
    data = ToyData(train=RandomImages(42, noisy=False))
    data.train.images[23, 0, 1, 1] = -math.inf
    found = _trained(tmp_path, toy_model(), data, accumulation=2).diverged
    assert (found.what, found.value, found.image, found.index[1:]) == ("input", "-inf", 23, (0, 1, 1))


def test_a_checkpoint_that_is_gone_leaves_the_step(tmp_path, monkeypatch):
    def gone(x):
        (tmp_path / "r" / "checkpoint.safetensors").unlink(missing_ok=True)
        return _root_of_zero(x)

    found = _trained(tmp_path, _network(9, gone)).diverged
    assert (found.step, found.what, found.appeared_at) == (10, "weight", None)


def test_a_diverged_run_ends_the_same_when_it_is_resumed(tmp_path):
    model = _network(9, _zero_over_zero)
    first = _trained(tmp_path, model, checkpoint_every=2)
    again = _trained(tmp_path, _network(9, _zero_over_zero), checkpoint_every=2, resume=True)
    assert repr(again.diverged) == repr(first.diverged)  # NaN isn't equal to itself
    assert not (tmp_path / "r" / "final.safetensors").exists()


_TWO = """
import sys, json, math, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
import convscope as cs
from toy import *
data = ToyData(train=RandomImages(42, noisy=False))
data.train.images[23, 1, 2, 4] = math.nan
if "late" in sys.argv[3]:
    import convscope.train.running.step as step
    step.check_loss = lambda *_: None
run = cs.train(toy_model(), data, out=sys.argv[2], epochs=2, batch_size=8, log_every=3, learning_rate=0.05)
import os
from pathlib import Path
Path(f"{sys.argv[2]}-{os.environ['RANK']}").write_text(json.dumps(vars(run.diverged), default=str))
"""


@pytest.mark.slow
@pytest.mark.parametrize("reads", ["at once", "late"])
def test_two_processes_stop_together_with_one_report(tmp_path, reads):
    (tmp_path / "two.py").write_text(_TWO)
    toys = str(Path(__file__).parents[1])
    under_torchrun(2, tmp_path / "two.py", toys, tmp_path / "r", reads)
    told = [json.loads((tmp_path / f"r-{rank}").read_text()) for rank in (0, 1)]
    assert repr(told[0]) == repr(told[1])  # NaN isn't equal to itself
    assert (told[0]["what"], told[0]["image"], told[0]["index"][1:]) == ("input", 23, [1, 2, 4])
    assert read_run(tmp_path / "r").diverged.image == 23
