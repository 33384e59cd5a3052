"""The memory of a run: settings and plan agree, shares and copies are counted, nothing is changed."""

from types import SimpleNamespace

import pytest
import torch
from tests.train.toy import ToyData, same_bits, toy_model
from torch import nn

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.train import NoProgress, TrainConfig
from convscope.train.learning.optimizer import build_optimizer
from convscope.train.telling.memory import Workload, forecast_run, plan_of
from convscope.train.telling.place import Place
from convscope.train.telling.room import require_room

MIB = 2**20
WORK = Workload(image_shape=(3, 32, 32), num_train=1000, num_validation=100, steps=40)
CPU = torch.device("cpu")


def network():
    """16 filters of 3×3: per image, 64 KiB of convolution output and as much again after the ReLU."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    )


def plant(monkeypatch, num_bytes):
    monkeypatch.setattr("convscope.train.telling.place.available_memory", lambda: num_bytes)


def joined(num_processes, others=0.0):
    """A process of several; the others' sum in what they add up is planted."""
    return SimpleNamespace(
        num_processes=num_processes, device=CPU, reduce=lambda tensor, reduction: tensor + others
    )


@pytest.mark.parametrize("optimizer", ["sgd", "sgd-momentum", "adam", "adamw", "rmsprop"])
def test_the_plan_counts_the_states_that_the_runs_optimizer_keeps(optimizer):
    config, model = TrainConfig(optimizer=optimizer), nn.Linear(3, 2, bias=False)
    built = build_optimizer(model, config)
    model(torch.ones(1, 3)).sum().backward()
    built.step()
    states = [t for t in built.state[model.weight].values() if torch.is_tensor(t) and t.shape == (2, 3)]
    assert plan_of(config, "cpu", fused=False).state_values_per_parameter == len(states)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", None), ("amp-bf16", torch.bfloat16), ("amp-fp16", torch.float16)]
)
def test_the_plan_computes_in_the_runs_precision(precision, dtype):
    plan = plan_of(TrainConfig(precision=precision, clip_grad_norm=2.0), "cuda", fused=True)
    assert (plan.autocast_dtype, plan.clip_grad_norm) == (dtype, 2.0)


def test_the_plan_joins_tensors_as_pytorchs_optimizers_do_and_keeps_gradients_when_it_accumulates():
    plain, many = TrainConfig(), TrainConfig(accumulation=4)
    assert [plan_of(plain, device, fused=False).foreach for device in ("cpu", "cuda")] == [False, True]
    assert [plan_of(c, "cpu", fused=False).zero_grad_set_to_none for c in (plain, many)] == [True, False]


def test_the_plans_loss_is_that_of_the_first_output_with_smoothing():
    scores, other = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3)
    log_p = torch.log(scores.exp() / scores.exp().sum(1, keepdim=True))
    expected = (-0.9 * log_p[:, 0] - 0.1 * log_p.mean(1)).mean()
    found = plan_of(TrainConfig(label_smoothing=0.1), "cpu", fused=False).loss((scores, other))
    torch.testing.assert_close(found, expected)


def test_a_process_passes_its_share_of_a_micro_batch(monkeypatch):
    plant(monkeypatch, 10 * MIB)
    config = TrainConfig(batch_size=100, accumulation=4)
    shares = [forecast_run(network(), WORK, config, Place(CPU, n)).images_per_pass for n in (1, 2, 3)]
    assert shares == [25, 13, 9]  # of 100, 50 and 34 images
    few = Workload((3, 32, 32), num_train=7, num_validation=1, steps=1)
    assert forecast_run(network(), few, TrainConfig(batch_size=64), Place(CPU)).images_per_pass == 7


def test_the_peak_is_costs_and_what_lies_beside_a_step(monkeypatch):
    plant(monkeypatch, 100 * MIB)
    config, model = TrainConfig(batch_size=64), network()
    found = forecast_run(model, WORK, config, Place(CPU))
    plan = cs.TrainingPlan(optimizer="sgd-momentum", foreach=False)
    step = cs.cost(model, (64, 3, 32, 32), plan, "cpu").forecast.allocated_peak_bytes
    assert found.peak_bytes == pytest.approx(step, rel=0.001)
    assert step > 64 * 2 * 64 * 1024  # the outputs of convolution and ReLU at least
    parameters = 4 * (3 * 16 * 9 + 16 + 16 * 5 + 5)
    averaged = forecast_run(model, WORK, TrainConfig(batch_size=64, ema_decay=0.9), Place(CPU))
    assert averaged.peak_bytes - found.peak_bytes == parameters
    both = forecast_run(model, WORK, TrainConfig(batch_size=128), Place(CPU, num_processes=2))
    assert both.peak_bytes - found.peak_bytes == parameters  # gradients in DistributedDataParallel's buckets


def test_a_checkpoint_can_take_more_than_a_step(monkeypatch):
    plant(monkeypatch, MIB)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(3072, 100, bias=False))
    found = forecast_run(wide, WORK, TrainConfig(batch_size=2, optimizer="adamw"), Place(CPU))
    # Weight, gradient and two states stand; weight and states are copied.
    assert found.peak_bytes == 7 * 4 * 307_200
    assert found.disk_bytes == (2 * 3 + 2) * 4 * 307_200


@pytest.mark.parametrize(("share", "fits"), [(0.99, "no"), (1.05, "tight"), (1.2, "yes")])
def test_it_fits_below_nine_tenths_and_not_above_all(monkeypatch, share, fits):
    config, model = TrainConfig(batch_size=64), network()
    plant(monkeypatch, 100 * MIB)
    peak = forecast_run(model, WORK, config, Place(CPU)).peak_bytes
    own = sum(p.nbytes for p in model.parameters())
    plant(monkeypatch, int(share * peak) - own)
    assert forecast_run(model, WORK, config, Place(CPU)).fits == fits


@pytest.mark.parametrize(("num_processes", "accumulation", "available"), [(1, 1, 5), (2, 3, 5), (1, 1, 45)])
def test_what_the_refusal_proposes_fits(monkeypatch, num_processes, accumulation, available):
    plant(monkeypatch, available * MIB)
    config = TrainConfig(batch_size=512, accumulation=accumulation)
    place, model = Place(CPU, num_processes), network()
    found = forecast_run(model, WORK, config, place)
    assert found.fits == "no"
    with pytest.raises(ConvscopeError) as raised:
        require_room(found, config, joined(num_processes))
    message = str(raised.value)
    assert "available" in message
    assert "--no-check-memory" in message
    for name in ("accumulation", "batch_size"):
        value = int(message.split(f"{name}=")[1].split(" ")[0].rstrip(";"))
        changed = TrainConfig(**{"batch_size": 512, "accumulation": accumulation, name: value})
        assert forecast_run(model, WORK, changed, place).fits in ("yes", "tight"), name


def test_a_process_that_has_memory_stops_with_one_that_hasnt():
    fits = SimpleNamespace(fits="yes")
    require_room(fits, TrainConfig(), joined(2))
    with pytest.raises(ConvscopeError, match="another process"):
        require_room(fits, TrainConfig(), joined(2, others=1.0))
    require_room(SimpleNamespace(fits="no"), TrainConfig(check_memory=False), joined(2))


def test_nothing_fits_where_not_even_two_images_do(monkeypatch):
    plant(monkeypatch, 1000)
    config = TrainConfig(batch_size=64)
    found = forecast_run(network(), WORK, config, Place(CPU))
    assert (found.fits, found.largest_pass) == ("no", 0)
    with pytest.raises(ConvscopeError, match="smaller network"):
        require_room(found, config, joined(1))


def test_evaluations_are_counted_in_steps(monkeypatch):
    plant(monkeypatch, 100 * MIB)
    model, place = network(), Place(CPU)
    once = forecast_run(model, WORK, TrainConfig(batch_size=50), place).evaluation_steps
    # 100 images are two batches; forward is between a third and a half of a step: the first layer has no
    # gradient of its input.
    assert 2 / 3 < once < 1
    crops = TrainConfig(batch_size=50, crop=32, evaluation="ten-crop", ema_decay=0.9)
    # Twice ten windows of 100 images, and all 1,000 training images for the average's statistics.
    assert forecast_run(model, WORK, crops, place).evaluation_steps == pytest.approx(once * (20 + 10))


def test_small_runs_and_unknown_memory_arent_simulated_for_nothing(monkeypatch):
    plant(monkeypatch, 10**12)
    small = forecast_run(network(), WORK, TrainConfig(), Place(CPU))
    assert (small.peak_bytes, small.fits) == (None, "yes")
    assert "small" in small.not_forecast
    plant(monkeypatch, None)
    unknown = forecast_run(network(), WORK, TrainConfig(), Place(CPU))
    assert unknown.peak_bytes is not None
    assert (unknown.available_bytes, unknown.fits) == (None, "unknown")


class _Told(NoProgress):
    def __init__(self):
        self.forecasts = []

    def forecast(self, forecast):
        self.forecasts.append(forecast)


def test_a_run_that_doesnt_fit_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    plant(monkeypatch, 1000)
    model = toy_model()
    before, generator = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    with pytest.raises(
        ConvscopeError, match=r"a step of 8 images takes .* on cpu; expected at most .* avail"
    ):
        cs.train(model, ToyData(), out=tmp_path / "r", batch_size=8)
    assert not (tmp_path / "r").exists()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert modes == [module.training for module in model.modules()]
    assert cs.train(model, ToyData(), out=tmp_path / "r", epochs=1, batch_size=8, check_memory=False).epochs


def test_a_forecast_doesnt_change_a_run_by_a_bit(tmp_path, monkeypatch):
    models, told = (toy_model(), toy_model()), (_Told(), _Told())
    for model, progress, available, name in zip(models, told, (10**12, MIB), "ab"):
        plant(monkeypatch, available)
        cs.train(model, ToyData(), out=tmp_path / name, epochs=4, batch_size=8, progress=progress)
    assert [each.forecasts[0].peak_bytes is None for each in told] == [True, False]
    assert [len(each.forecasts) for each in told] == [2, 2]
    assert same_bits(*models)


class _ByNumbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = toy_model()

    def forward(self, x):
        x.detach().numpy().mean()
        return self.inner(x)


def test_a_network_that_cant_be_simulated_trains_all_the_same(tmp_path, monkeypatch):
    plant(monkeypatch, 1000)
    told = _Told()
    run = cs.train(_ByNumbers(), ToyData(), out=tmp_path / "r", epochs=1, batch_size=8, progress=told)
    assert run.epochs
    assert told.forecasts[0].fits == "unknown"
    assert "can't be simulated" in told.forecasts[0].not_forecast
