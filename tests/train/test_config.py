import dataclasses

import pytest

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig, with_settings
from convscope.train.setting_rules import RULES


def test_every_setting_has_a_rule_that_its_default_passes():
    assert set(RULES) == {field.name for field in dataclasses.fields(TrainConfig)}
    TrainConfig()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("epochs", 1.5), ("epochs", True), ("batch_size", -1), ("batch_size", "8"),
        ("learning_rate", 0), ("learning_rate", float("nan")), ("learning_rate", float("inf")),
        ("optimizer", "lion"), ("momentum", 1.0), ("weight_decay", -1e-4), ("schedule", "linear"),
        ("warmup_epochs", -1), ("step_epochs", 0), ("step_factor", 0), ("step_factor", 2),
        ("label_smoothing", 1.0), ("clip_grad_norm", 0), ("clip_grad_norm", float("nan")),
        ("precision", "fp16"), ("augment", 1), ("seed", -1),
        ("seed", None), ("checkpoint_every", -1), ("log_every", 0),
        ("num_workers", -1), ("device", "cuda:7"), ("accumulation", 0), ("nesterov", 1),
        ("patience_epochs", 0), ("renormalise_radius", 0), ("ema_decay", 1),
        ("ema_decay", 0), ("sync_batch_norm", 1), ("crop", 0),
        ("evaluation", "corners"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(ConvscopeError, match=f"^{name}="):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "near"), [("schedule", "cosin", "cosine"), ("precision", "bf16", "amp-bf16")]
)
def test_a_misspelt_name_is_told_the_nearest(name, value, near):
    with pytest.raises(ConvscopeError, match=f"^{name}='{value}'; .*did you mean '{near}'"):
        TrainConfig(**{name: value})


def test_settings_replace_and_an_unknown_one_names_the_nearest():
    assert with_settings(TrainConfig(epochs=5), {"batch_size": 8}) == TrainConfig(epochs=5, batch_size=8)
    with pytest.raises(ConvscopeError, match=r"'learningrate'.*try learning_rate="):
        with_settings(TrainConfig(), {"learningrate": 0.1})
    with pytest.raises(ConvscopeError, match="batch_size=0"):
        with_settings(TrainConfig(), {"batch_size": 0})


def test_windows_need_a_size():
    for settings in ({"augment": "crop"}, {"evaluation": "ten-crop"}):
        with pytest.raises(ConvscopeError, match="without crop; expected the side of the windows"):
            TrainConfig(**settings)
        TrainConfig(**settings, crop=24)
