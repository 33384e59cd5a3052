import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig
from convscope.train.running.preflight import check_data, check_model, check_processes, readable_failure
from train.toy import RandomImages, ToyData, toy_model


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
