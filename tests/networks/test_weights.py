"""Which of a file's tensors go where; and that a network is untouched when they don't fit."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.networks import load_weights


def network(classes=4):
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, classes))


def state(value, classes=4):
    return {name: torch.full_like(t, value) for name, t in network(classes).state_dict().items()}


def prefixed(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def filled(model):
    values = {tensor.flatten()[0].item() for tensor in model.state_dict().values()}
    return values.pop() if len(values) == 1 else values


@pytest.mark.parametrize(
    ("content", "stripped"),
    [
        (state(7.0), ()),
        ({"state_dict": state(7.0)}, ()),
        (
            {"model": prefixed("module.", state(7.0)), "optimizer": {"state": {0: {"exp": torch.ones(6)}}}},
            ("module.",),
        ),
        (prefixed("_orig_mod.", state(7.0)), ("_orig_mod.",)),
        (prefixed("module._orig_mod.", state(7.0)), ("_orig_mod.", "module.")),
        (
            {"state_dict": prefixed("model.module.", state(7.0)) | {"loss.weight": torch.ones(2)}},
            ("model.", "module."),
        ),
        ({n.replace(".", "._orig_mod.", 1): t for n, t in state(7.0).items()}, ("_orig_mod.",)),
    ],
)
def test_wrappers_and_nesting_are_seen_through(tmp_path, content, stripped):
    torch.save(content, tmp_path / "w.pt")
    model = network()
    report = load_weights(model, tmp_path / "w.pt")
    assert filled(model) == 7.0
    assert set(report.stripped) == set(stripped)
    assert report.loaded == len(state(0.0))
    assert report.missing == ()
    assert set(report.unexpected) <= {"loss.weight"}


def test_a_model_whose_own_names_begin_like_a_wrapper_loads_as_it_is(tmp_path):
    model = nn.ModuleDict({"model": nn.Linear(2, 2), "net": nn.Linear(2, 2)})
    tensors = {name: torch.full_like(t, 5.0) for name, t in model.state_dict().items()}
    save_file(tensors, tmp_path / "w.safetensors")
    report = load_weights(model, tmp_path / "w.safetensors")
    assert report.stripped == ()
    assert report.complete
    assert filled(model) == 5.0


@pytest.mark.parametrize(
    "content",
    [
        {
            "model": state(1.0),
            "model_ema": {"n_averaged": torch.tensor(3), **prefixed("module.", state(2.0))},
        },
        {"state_dict_ema": state(2.0), "state_dict": state(1.0)},
        {"ema": {"module": state(2.0)}, "module": state(1.0)},
        prefixed("model.", state(1.0)) | prefixed("ema.", state(2.0)),
        prefixed("ema_model.", state(2.0)) | state(1.0),
    ],
)
def test_a_complete_moving_average_goes_first_and_is_reported(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    model = network()
    report = load_weights(model, tmp_path / "w.pt")
    assert filled(model) == 2.0
    assert report.is_average


def test_a_moving_average_that_lacks_entries_yields_to_the_whole_weights(tmp_path):
    average = {name: t for name, t in state(2.0).items() if "running" not in name}
    torch.save({"model": state(1.0), "model_ema": average}, tmp_path / "w.pt")
    model = network()
    report = load_weights(model, tmp_path / "w.pt")
    assert filled(model) == 1.0
    assert not report.is_average
    assert report.alternatives == ("model_ema",)


def test_differences_of_names_are_reported_both_ways(tmp_path):
    tensors = state(3.0)
    del tensors["0.bias"]
    tensors["head.weight"] = torch.ones(1)
    save_file(tensors, tmp_path / "w.safetensors")
    model = network()
    before = model[0].bias.clone()
    report = load_weights(model, tmp_path / "w.safetensors")
    assert report.missing == ("0.bias",)
    assert report.unexpected == ("head.weight",)
    assert not report.complete
    assert torch.equal(model[0].bias, before)
    assert report.to_dict()["missing"] == ["0.bias"]


def refused(model, file, message):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with pytest.raises(ConvscopeError, match=message) as raised:
        load_weights(model, file)
    assert "\n" not in str(raised.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]


def test_another_number_of_classes_is_explained_and_nothing_is_loaded(tmp_path):
    torch.save(state(3.0, classes=9), tmp_path / "w.pt")
    refused(network(4), tmp_path / "w.pt", r"3\.weight is 9x6 and 1 more; expected 4x6.*pass num_classes=9")


def test_another_shape_inside_is_refused_and_nothing_is_loaded(tmp_path):
    tensors = state(3.0)
    tensors["0.weight"] = torch.zeros(6, 1, 3, 3)
    torch.save(tensors, tmp_path / "w.pt")
    refused(network(), tmp_path / "w.pt", r"0\.weight is 6x1x3x3; expected 6x3x3x3 as in Sequential")


def test_a_strangers_file_is_refused_with_names_of_both(tmp_path):
    torch.save({"encoder.query": torch.ones(2)}, tmp_path / "w.pt")
    refused(
        network(), tmp_path / "w.pt", r"'encoder\.query'; expected names of Sequential, such as '0\.weight'"
    )


def test_a_network_without_weights_is_refused(tmp_path):
    torch.save(state(1.0), tmp_path / "w.pt")
    refused(nn.Identity(), tmp_path / "w.pt", "it has no weights")


def test_a_failure_in_the_middle_of_loading_puts_everything_back(tmp_path):
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.second = nn.Linear(2, 2)
            self.second.register_load_state_dict_pre_hook(self.refuse)
            self.calls = 0

        def refuse(self, *_):
            self.calls += 1
            if self.calls == 1:
                raise ValueError("not these")

    model = Picky()
    torch.save({name: torch.full_like(t, 9.0) for name, t in model.state_dict().items()}, tmp_path / "w.pt")
    refused(model, tmp_path / "w.pt", "not these")
    assert model.calls == 2


def test_dtype_and_shared_parameters_stay(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}).half()
    model["b"].weight = model["a"].weight
    torch.save(
        {name: torch.full_like(t, 4.0, dtype=torch.float32) for name, t in model.state_dict().items()},
        tmp_path / "w.pt",
    )
    load_weights(model, tmp_path / "w.pt")
    assert model["b"].weight is model["a"].weight
    assert model["a"].weight.dtype == torch.float16
    assert filled(model) == 4.0


def _loaded_without(tmp_path, *endings):
    tensors = {name: tensor for name, tensor in state(3.0).items() if not name.endswith(endings)}
    save_file(tensors, tmp_path / "w.safetensors")
    return load_weights(network(), tmp_path / "w.safetensors")


def test_parameters_and_running_statistics_that_stay_fresh_are_named_but_not_counters(tmp_path):
    assert _loaded_without(tmp_path, "num_batches_tracked").unfilled == ()
    report = _loaded_without(tmp_path, "num_batches_tracked", "running_var", "3.bias")
    assert report.unfilled == ("1.running_var", "3.bias")
    assert report.differences == (
        f"weights {report.file!r}: of the network not in the file: "
        "1.running_var, 1.num_batches_tracked, 3.bias",
    )


def test_a_tied_tensor_that_is_in_the_file_once_is_filled(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    tensors = {name: t.clone() for name, t in model.state_dict().items() if name != "b.weight"}
    save_file(tensors, tmp_path / "w.safetensors")
    report = load_weights(model, tmp_path / "w.safetensors")
    assert (report.missing, report.unfilled) == (("b.weight",), ())


def test_names_of_a_folded_network_are_known_as_such(tmp_path):
    def bare():
        return nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Flatten())

    save_file({"0.weight": torch.ones(6, 3, 3, 3), "0.bias": torch.ones(6)}, tmp_path / "folded.safetensors")
    assert load_weights(bare(), tmp_path / "folded.safetensors").seems_folded
    save_file({"0.weight": torch.ones(6, 3, 3, 3), "9.bias": torch.ones(6)}, tmp_path / "other.safetensors")
    assert not load_weights(bare(), tmp_path / "other.safetensors").seems_folded
    save_file(bare().state_dict(), tmp_path / "whole.safetensors")
    assert not load_weights(bare(), tmp_path / "whole.safetensors").seems_folded


def test_biases_that_folding_left_out_are_zero(tmp_path):
    tensors = {"0.weight": torch.ones(6, 3, 3, 3), "3.weight": torch.ones(4, 6), "3.bias": torch.ones(4)}

    def plain():
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 4))

    save_file(tensors, tmp_path / "folded.safetensors", {"convscope.folded": "true"})
    model = plain()
    report = load_weights(model, tmp_path / "folded.safetensors")
    assert report.complete
    assert torch.equal(model[0].bias, torch.zeros(6))
    assert torch.equal(model[3].bias, torch.ones(4))
    save_file(tensors, tmp_path / "others.safetensors")
    model = plain()
    before = model[0].bias.clone()
    assert load_weights(model, tmp_path / "others.safetensors").unfilled == ("0.bias",)
    assert torch.equal(model[0].bias, before)
