import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.fold.proof.trials import Trial, described, given, of_other_batch, of_other_size, random_like


def only(trial, dtype=torch.float64):
    args, kwargs = trial.call(torch.device("cpu"), dtype)
    assert kwargs == {}
    (tensor,) = args
    return tensor


def test_given_values_are_kept_and_large_batches_cut():
    x = torch.randn(5, 3, 4, 4)
    small, full = given(described(x, torch.float32))
    assert torch.equal(only(small), x[:2].double())
    assert torch.equal(only(full), x.double())
    assert only(full, None).dtype == torch.float32


def test_random_values_have_the_given_mean_and_deviation():
    x = 5 + 2 * torch.randn(2, 3, 40, 40)
    (trial,) = random_like(described(x, torch.float32), 1)
    made = only(trial)
    assert made.mean() == pytest.approx(5, abs=0.1)
    assert made.std() == pytest.approx(2, abs=0.1)
    assert not torch.equal(made, x.double())


def _shapes(trials):
    return [only(trial).shape for trial in trials]


def test_other_sizes():
    assert _shapes(of_other_size(described((4, 3, 64, 96), torch.float32), 1)) == [
        (2, 3, 32, 64),
        (2, 3, 96, 128),
    ]
    assert _shapes(of_other_size(described((4, 3), torch.float32), 1)) == []


@pytest.mark.parametrize(("given", "tried"), [(1, [4]), (2, [5, 1]), (4, [7, 3, 2, 1]), (64, [11, 3, 2, 1])])
def test_other_numbers_of_samples(given, tried):
    trials = of_other_batch(described((given, 3, 5, 4), torch.float32), 1)
    assert _shapes(trials) == [(number, 3, 5, 4) for number in tried]


def test_whole_numbers_keep_their_values_and_follow_the_batch():
    inputs = described({"image": (2, 3, 5, 5), "index": torch.tensor([4, 7])}, torch.float32)
    trial = next(of_other_batch(inputs, 1))
    args, kwargs = trial.call(torch.device("cpu"), torch.float64)
    assert args == ()
    assert kwargs["image"].shape == (5, 3, 5, 5)
    assert kwargs["index"].tolist() == [4, 7, 4, 7, 4]


def test_other_arguments_pass_through():
    args, _ = Trial(described((torch.zeros(1, 2), 3, None), torch.float32), 1).call(torch.device("cpu"))
    assert args[1:] == (3, None)


@pytest.mark.parametrize(
    ("inputs", "given"), [(torch.zeros(0, 3), "without any element"), (None, "NoneType"), ("x", "type str")]
)
def test_senseless_inputs_are_refused(inputs, given):
    with pytest.raises(ConvscopeError, match=given):
        described(inputs, torch.float32)


def test_a_list_of_sizes_is_refused_with_what_to_write():
    with pytest.raises(ConvscopeError, match=r"pass \(2, 3, 8, 8\)"):
        described([2, 3, 8, 8], torch.float32)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64])
def test_a_trial_never_hands_out_what_the_user_gave(dtype):
    x = torch.randn(2, 3, 4, 4)
    for trial in given(described({"x": x, "index": torch.arange(2)}, torch.float32)):
        _, made = trial.call(torch.device("cpu"), dtype)
        made["x"].zero_()
        made["index"].zero_()
    assert x.count_nonzero() == x.numel()


def test_labels_say_what_a_trial_is_for():
    x = described(torch.randn(4, 3, 5, 5), torch.float32)
    assert next(given(x)).label() == "(2, 3, 5, 5) given"
    assert next(random_like(x, 1)).label() == "(2, 3, 5, 5) random"
    assert next(of_other_size(x, 1)).label() == "(2, 3, 9, 9) other size"
    assert next(of_other_batch(x, 1)).label() == "(7, 3, 5, 5) other number"
    shape = described((2, 3, 5, 5), torch.float32)
    assert next(given(shape)).label() == "(2, 3, 5, 5) random"
    assert next(random_like(shape, 1)).label() == "(2, 3, 5, 5) random again"
