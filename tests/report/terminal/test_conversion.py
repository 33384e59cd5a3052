from dataclasses import replace

import convscope.report.terminal.conversion  # noqa: F401 - registers the rendering
from convscope.norm.conversion.result import Conversion, Converted, Difference

OURS = "convscope.norm.BatchNorm2d"
LAYERS = (
    Converted("bn1", "torch.nn.BatchNorm2d", OURS, "converted", "", 0.0, also=("again",)),
    Converted("bn2", "my.Norm", "my.Norm", "kept", "Norm.forward computes its output itself"),
    Converted("", "torch.nn.BatchNorm1d", "torch.nn.BatchNorm1d", "refused", "a single value"),
)
FOUND = Conversion(
    "batch", LAYERS, "the same function",
    (
        Difference("evaluation", "outputs", 0.0, 0.0, True),
        Difference("training", "outputs", 0.25, 3e-7, False),
    ),
)  # fmt: skip


def test_every_layer_and_difference_is_shown():
    text = str(FOUND)
    assert "3 layers to batch: 1 converted, 1 kept, 1 refused" in text
    assert "also again" in text
    assert "computes its output itself" in text
    assert "self" in text
    assert "outputs in evaluation  equal, bit for bit" in text
    assert "outputs in training    differ by 0.25 at most, 3.0e-07 of the largest" in text
    large = replace(FOUND, differences=(Difference("training", "outputs", 0.25, 0.4512, False),))
    assert "differ by 0.25 at most, 45.1 % of the largest" in str(large)
    other = replace(FOUND, differences=(Difference("training", "outputs", 9.0, float("inf"), False),))
    assert "differ by 9 at most, inf of the largest" in str(other)
    assert "Groups" not in text
    assert "Residual" not in text


def test_without_inputs_it_says_so():
    assert "not compared: no inputs were given" in str(replace(FOUND, differences=()))


def test_group_norms_show_groups_residuals_new_parameters_and_notes():
    layer = Converted("bn1", "A", "B", "converted", residual=0.173, num_groups=4)
    text = str(Conversion("group", (layer,), "another", (), ("bn1.weight",), ("add them",)))
    assert "17.3 %" in text
    assert "Difference" not in text
    assert "bn1.weight" in text
    assert "add them" in text


def test_json():
    data = FOUND.to_dict()
    assert (data["converted"], data["kept"], data["refused"]) == (1, 1, 1)
    assert data["entries"][0]["after"] == OURS
    assert '"schema_version": 1' in FOUND.to_json()
