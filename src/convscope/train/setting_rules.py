"""What each setting of a training run may be: its expected values in words, and a test for them."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

OptimizerName = Literal["sgd", "sgd-momentum", "adam", "adamw", "rmsprop"]
ScheduleName = Literal["cosine", "step", "plateau", "constant"]
PrecisionName = Literal["fp32", "amp-bf16", "amp-fp16"]
AugmentName = Literal["none", "shift", "crop", "crop-colour", "ten-crops"]
EvaluationName = Literal["centre", "ten-crop"]
DeviceName = Literal["auto", "cpu"]

NEEDING_CROP: frozenset[AugmentName] = frozenset({"crop", "crop-colour", "ten-crops"})
"""Ways of augmenting that cut windows of ``crop`` pixels."""

Rule = tuple[str, Callable[[Any], bool]]
"""Expected values in words, and whether a value is one."""


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(least: int) -> Rule:
    return f"a whole number from {least}", lambda value: _is_int(value) and value >= least


def _number(expected: str, in_range: Callable[[float], bool]) -> Rule:
    return expected, lambda value: _is_number(value) and in_range(value)


def _choice(*names: str) -> Rule:
    return f"one of {', '.join(names)}", lambda value: value in names


def _optional(rule: Rule) -> Rule:
    expected, is_right = rule
    return f"None or {expected}", lambda value: value is None or is_right(value)


def _tuple_of(expected: str, rule: Rule) -> Rule:
    is_right = rule[1]
    return expected, lambda value: isinstance(value, tuple) and all(map(is_right, value))


_FLAG: Rule = ("True or False", lambda value: isinstance(value, bool))

CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": get_args(OptimizerName),
    "schedule": get_args(ScheduleName),
    "precision": get_args(PrecisionName),
    "augment": get_args(AugmentName),
    "evaluation": get_args(EvaluationName),
    "device": get_args(DeviceName),
}
"""Settings that are names, and which."""

RULES: dict[str, Rule] = {
    "epochs": _whole(1),
    "batch_size": _whole(1),
    "learning_rate": _number("a finite number above 0", lambda x: x > 0),
    "accumulation": _whole(1),
    "momentum": _number("a number from 0 to below 1", lambda x: 0 <= x < 1),
    "nesterov": _FLAG,
    "weight_decay": _number("a finite number from 0", lambda x: x >= 0),
    "warmup_epochs": _number("a finite number of epochs from 0", lambda x: x >= 0),
    "step_epochs": _whole(1),
    "step_factor": _number("a number above 0, at most 1", lambda x: 0 < x <= 1),
    "patience_epochs": _whole(1),
    "label_smoothing": _number("a number from 0 to below 1", lambda x: 0 <= x < 1),
    "clip_grad_norm": _optional(_number("a finite number above 0", lambda x: x > 0)),
    "renormalise_radius": _optional(_number("a finite number above 0", lambda x: x > 0)),
    "ema_decay": _optional(_number("a number above 0, below 1", lambda x: 0 < x < 1)),
    "sync_batch_norm": _FLAG,
    "crop": _optional(_whole(1)),
    "seed": _whole(0),
    "evaluate_every": _whole(0),
    "keep_epochs": _tuple_of("whole numbers from 1, in a tuple", _whole(1)),
    "checkpoint_every": _whole(0),
    "log_every": _whole(1),
    "num_workers": _whole(0),
    "lean": _FLAG,
    "check_memory": _FLAG,
    **{name: _choice(*names) for name, names in CHOICES.items()},
}
