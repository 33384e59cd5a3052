"""From words to arms: which of them are settings of the training, which options of the network.

Every combination of the choices is an arm. Limits: which options a network of somebody else takes is known
only to its builder, so those are checked by building it.
"""

import dataclasses
import difflib
import inspect
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.networks import LayerChoices
from convscope.networks.own import BUILDERS
from convscope.train.comparing.table import Arm
from convscope.train.config import TrainConfig, with_settings

NETWORK = "network"
_FIELDS = dataclasses.fields(TrainConfig)
SETTINGS = tuple(field.name for field in _FIELDS if field.name != "seed")
_MAY_BE_NONE = frozenset(field.name for field in _FIELDS if field.default is None)
_OF_LOAD = ("weights", "input_shape")
_OF_THE_DATA = frozenset({"num_classes", "in_channels", "input_size"})
_SHORT = {"learning_rate": "lr", "weight_decay": "decay", "input_shape": "input"}
_BARE = frozenset({NETWORK, "norm", "optimizer", "schedule", "variant"})
"""Choices whose values say what they are about."""


def known_options(network: str) -> tuple[str, ...] | None:
    """Return the options that a network takes; None where only its builder knows.

    Example:
        >>> "norm" in known_options("zfnet"), known_options("timm:resnet18")
        (True, None)
    """
    if network not in BUILDERS:
        return None
    parameters = inspect.signature(BUILDERS[network]).parameters.values()
    named = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    return (*(name for name in (*named, *LayerChoices.__annotations__) if name not in _OF_THE_DATA),
            *_OF_LOAD)  # fmt: skip


def crossed_arms(
    network: str,
    choices: Mapping[str, Sequence[Any]],
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[Arm, ...]:
    """Return an arm for every combination of choices, the last choice changing fastest.

    Args:
        network: reference, where ``network`` isn't a choice itself.
        choices: values of each setting, option, or ``network``.
        settings: of the training, the same in every arm.
        options: of the network, the same in every arm.

    Raises:
        ConvscopeError: a name is neither a setting nor an option, is also given for every arm, or a value
            isn't possible.

    Example:
        >>> arms = crossed_arms("zfnet", {"norm": ["none", "batch"], "learning_rate": [0.1]}, {}, {})
        >>> [arm.name for arm in arms]
        ['no norm, lr 0.1', 'batch, lr 0.1']
    """
    for name, values in choices.items():
        check_values(name, values)
        check_said_once(name, values, settings, options)
    combinations = itertools.product(*choices.values())
    return tuple(
        made_arm(network, dict(zip(choices, values, strict=True)), settings, options)
        for values in combinations
    )


def check_values(name: str, values: Any) -> None:
    """Refuse choices that aren't a list of different values.

    Raises:
        ConvscopeError: they aren't.
    """
    right = isinstance(values, list | tuple) and len(values) > 0
    if not right or any(value in values[:place] for place, value in enumerate(values)):
        raise ConvscopeError(
            f"choice {name}={values!r}", "a list of different values", f"write {name} = [first, second]"
        )


def check_said_once(
    name: str, values: Sequence[Any], settings: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Refuse a choice that is also given for every arm: one of the two would have no effect.

    Raises:
        ConvscopeError: it is.
    """
    for kind, given in (("setting", settings), ("option", options)):
        if name in given:
            raise ConvscopeError(
                f"{name} both as a choice ({', '.join(map(str, values))}) and as {kind} {name}={given[name]}",
                "each name as a choice or the same in every arm",
                "take one of them out",
            )


def check_one_network(network: Any, choices: Mapping[str, Sequence[Any]]) -> None:
    """Refuse a network that would have no arm, because others are chosen among.

    Raises:
        ConvscopeError: it is given beside a choice of networks that it isn't in.
    """
    among = choices.get(NETWORK, ())
    are_names = isinstance(among, list | tuple) and all(isinstance(each, str) for each in among)
    if network and among and are_names and network not in among:
        raise ConvscopeError(
            f"network {network!r} beside the choice network={', '.join(map(str, among))}",
            "a network that is one of the choices",
            f"add {network} to the choice, or give {among[0]} in its place",
        )


def made_arm(
    network: str,
    chosen: Mapping[str, Any],
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    name: str | None = None,
) -> Arm:
    """Return the arm of one value for each choice.

    Raises:
        ConvscopeError: see :func:`crossed_arms`.
    """
    network = chosen.get(NETWORK, network)
    if not isinstance(network, str) or not network:
        raise ConvscopeError(
            f"network={network!r}", "a reference such as 'zfnet'", "`convscope networks` lists names"
        )
    for given in settings:
        check_setting(given)
    for given in options:
        check_option(given, network)
    own_settings, own_options = dict(settings), dict(options)
    for choice, value in chosen.items():
        if choice in SETTINGS:
            own_settings[choice] = value
        elif choice != NETWORK:
            check_choice(choice, network)
            own_options[choice] = value
    config = with_settings(TrainConfig(), {key: _setting(key, value) for key, value in own_settings.items()})
    called = name or ", ".join(label(choice, value) for choice, value in chosen.items()) or _stem(network)
    shaped = {key: option_value(key, value, network) for key, value in own_options.items()}
    return Arm(called, network, shaped, config)


def check_setting(name: str) -> None:
    """Refuse a name that isn't a setting of the training.

    Raises:
        ConvscopeError: it isn't one, or it is the seed, which is each run's.
    """
    if name == "seed":
        raise ConvscopeError(
            "setting 'seed'", "one seed for each run of an arm", "say which with seeds=5 or seeds=[0, 1]"
        )
    if name not in SETTINGS:
        raise ConvscopeError(
            f"unknown training setting {name!r}", f"one of {', '.join(SETTINGS)}", nearest(name, SETTINGS)
        )


def check_option(name: str, network: str) -> None:
    """Refuse a name that a network doesn't take as an option.

    Raises:
        ConvscopeError: it doesn't, or the data says that.
    """
    known = known_options(network)
    if name in _OF_THE_DATA:
        expected = "the data's classes and the input's shape to say that"
        raise ConvscopeError(f"network option {name!r}", expected, "set input_shape, such as '3x64x64'")
    if known is not None and name not in known:
        raise ConvscopeError(
            f"{network}: option {name!r}", f"one of {', '.join(known)}", nearest(name, known)
        )


def check_choice(name: str, network: str) -> None:
    """Refuse a choice that is neither a setting nor an option of the network.

    Raises:
        ConvscopeError: it is neither.
    """
    known = known_options(network)
    if name in ("seed", "seeds") or name in _OF_THE_DATA:
        (check_setting if name == "seed" else lambda name: check_option(name, network))(name)
    close = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.8)
    if (known is None and close) or (known is not None and name not in known):
        names = (NETWORK, *SETTINGS, *(known or ()))
        raise ConvscopeError(
            f"choice {name!r}, which is neither a training setting nor an option of {network}",
            f"one of {', '.join(names)}",
            nearest(name, names),
        )


def _setting(name: str, value: Any) -> Any:
    return None if value == "none" and name in _MAY_BE_NONE else value


def option_value(name: str, value: Any, network: str = "") -> Any:
    """Return an option's value; the shape of an input may be written as a text.

    Raises:
        ConvscopeError: it is no shape, or none of the names that a network of ours knows.

    Example:
        >>> option_value("input_shape", "3x64x64"), option_value("width", 0.5)
        ((3, 64, 64), 0.5)
    """
    if name != "input_shape":
        names = _names_of(name, network)
        if isinstance(value, str) and names and value not in names:
            raise ConvscopeError(
                f"{network}: {name}={value!r}",
                f"one of {', '.join(names)}",
                nearest(value, names, "choose one"),
            )
        return value
    parts = re.split("[x,×]", value) if isinstance(value, str) else value
    try:
        shape = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise ConvscopeError(f"input_shape={value!r}", "channels, height and width", "write it as '3x64x64'")
    return shape


def _names_of(option: str, network: str) -> tuple[str, ...]:
    """The names that an option of a network of ours may have; none where it isn't a choice of names."""
    if network not in BUILDERS:
        return ()
    kind = {**get_type_hints(LayerChoices), **get_type_hints(BUILDERS[network])}.get(option)
    kinds = (kind, *get_args(kind))  # of an optional one, its parts
    return next((get_args(each) for each in kinds if get_origin(each) is Literal), ())


def label(choice: str, value: Any) -> str:
    """Return a choice and its value in the few words that an arm is named by.

    Example:
        >>> label("learning_rate", 0.1), label("norm", "none"), label("nesterov", True)
        ('lr 0.1', 'no norm', 'nesterov')
    """
    if choice == NETWORK:
        return _stem(str(value))
    words = _SHORT.get(choice, choice.replace("_", " "))
    if value == "none" or value is None or value is False:
        return f"no {words}"
    if value is True:
        return words
    short = f"{value:g}" if isinstance(value, float) else str(value)
    text = str(value) if isinstance(value, float) and float(short) != value else short
    return text if choice in _BARE else f"{words} {text}"


def _stem(network: str) -> str:
    """A reference without the folders of its file.

    Example:
        >>> _stem("nets/small.py:build"), _stem("timm:resnet18")
        ('small.py:build', 'timm:resnet18')
    """
    return Path(network).name
