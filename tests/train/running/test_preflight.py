import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.train import NoProgress
from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import SeededImages
from convscope.train.keeping.log import read_log
from convscope.train.running.preflight import (
    check_data,
    check_forward,
    check_model,
    check_processes,
    readable_failure,
)
from train.toy import RandomImages, ToyData, same_bits, toy_model


def test_a_model_that_cant_be_trained_or_stored_is_named():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    config = TrainConfig()
    check_model(toy_model(), config)
    with pytest.raises(ConvscopeError, match="Extra: _extra_state in its state is a dict"):
        check_model(Extra(2, 2), config)
    with pytest.raises(ConvscopeError, match="LazyLinear: weight has no values yet"):
        check_model(nn.LazyLinear(3), config)
    with pytest.raises(ConvscopeError, match="Linear: weight has no values yet"):
        check_model(nn.Linear(2, 2, device="meta"), config)
    with pytest.raises(ConvscopeError, match="Linear without a trainable parameter"):
        check_model(nn.Linear(2, 2).requires_grad_(False), config)
    narrow = nn.Linear(2, 2, dtype=torch.bfloat16)
    check_model(narrow, TrainConfig(precision="amp-bf16"))
    with pytest.raises(ConvscopeError, match=r"'amp-fp16' for weight in bfloat16; .* model.float\(\)"):
        check_model(narrow, TrainConfig(precision="amp-fp16"))


def test_data_without_classes_or_validation_is_named():
    check_data(ToyData())
    with pytest.raises(ConvscopeError, match=r"'toy' with 1 class\(es\)"):
        check_data(ToyData(classes=("only",)))
    with pytest.raises(ConvscopeError, match="'toy' without validation images"):
        check_data(ToyData(validation=RandomImages(0)))
    with pytest.raises(ConvscopeError, match="'toy' whose validation is of type NoneType; expected images"):
        check_data(ToyData(validation=None))


def test_a_networks_failure_is_one_line_with_its_cause():
    def fail(error):
        with readable_failure(nn.Linear(2, 2), torch.zeros(1, 3, 8, 9)):
            raise error

    with pytest.raises(
        ConvscopeError, match=r"Linear on images of shape \(1, 3, 8, 9\) fails: first;"
    ) as caught:
        fail(RuntimeError("first\nsecond"))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with (
        pytest.raises(ConvscopeError, match="check crop=8: the side of the windows"),
        readable_failure(nn.Linear(2, 2), torch.zeros(1, 3, 8, 8), crop=8),
    ):
        raise RuntimeError
    with pytest.raises(ConvscopeError, match="runs out of memory; expected a step that fits; take a smaller"):
        fail(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(ConvscopeError, match="another process of the run is gone"):
        fail(RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]:1"))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())


def test_another_number_of_processes_is_refused_where_shares_of_a_batch_matter():
    config, plain = TrainConfig(), toy_model(norm=False, dropout=0)
    check_processes(toy_model(), config, 2, 2)
    check_processes(plain, config, 1, 4)
    check_processes(toy_model(dropout=0), TrainConfig(sync_batch_norm=True), 1, 2)
    with pytest.raises(
        ConvscopeError, match=r"a run of 1 process\(es\) resumed with 2, although 1 normalises by"
    ):
        check_processes(toy_model(), config, 1, 2)
    with pytest.raises(
        ConvscopeError, match=r"although 4 draws differently in each process; expected 4 proc"
    ):
        check_processes(toy_model(norm=False), config, 4, 1)


class Heads(nn.Module):
    """Scores, and in training mode an auxiliary head's as well; or features first."""

    def __init__(self, features_first: bool = False) -> None:
        super().__init__()
        self.body, self.aux, self.features_first = toy_model(), toy_model(), features_first

    def forward(self, x: torch.Tensor) -> object:
        if self.features_first:
            return self.body[:4](x), self.body(x)
        return (self.body(x), self.aux(x)) if self.training else self.body(x)


def test_the_output_that_is_trained_is_told_before_training_and_in_the_log(tmp_path):
    told = set()

    class Told(NoProgress):
        def forecast(self, forecast):
            told.add(forecast.scores)

    for network, scores in ((toy_model(), ""), (Heads(), "output 1 of 2, of shape (images, 3)")):
        folder = tmp_path / type(network).__name__
        cs.train(network, ToyData(), out=folder, progress=Told(), epochs=1, batch_size=8)
        assert scores in told
        assert len(told) == 1
        told.clear()
        assert read_log(folder / "log.jsonl").start["scores"] == scores


def test_features_in_front_of_the_scores_are_not_trained_as_such(tmp_path):
    network = Heads(features_first=True)
    before = copy.deepcopy(network)
    with pytest.raises(ConvscopeError, match=r"outputs of shapes \(2, 48\), \(2, 3\) for 3 classes"):
        cs.train(network, ToyData(), out=tmp_path / "run", epochs=1, batch_size=8)
    assert same_bits(network, before)
    assert not (tmp_path / "run").exists()


def test_looking_at_the_outputs_changes_nothing(tmp_path):
    network = Heads()
    before, modes = copy.deepcopy(network), [each.training for each in network.modules()]
    data, config = ToyData(), TrainConfig()
    images = SeededImages(data.validation, "validation", 3, 0)
    with preserved_rng():
        state = torch.get_rng_state()
        assert check_forward(network, images, config, Accelerator(cpu=True)).startswith("output 1 of 2")
        assert torch.equal(torch.get_rng_state(), state)
    assert same_bits(network, before)
    assert [each.training for each in network.modules()] == modes
