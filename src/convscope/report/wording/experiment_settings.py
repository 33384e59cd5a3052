"""What was compared: what all arms of a table have in common, and what each has of its own.

Options that an arm wasn't given, and settings that all arms leave at their defaults, aren't told; but epochs,
batch size and learning rate always are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convscope.report.wording.formats import exact
from convscope.train.comparing import Arm, Comparison
from convscope.train.comparing.choices import NETWORK, label
from convscope.train.comparing.result import ArmResult
from convscope.train.comparing.table import NOT_OF_THE_ARM
from convscope.train.config import TrainConfig

_DEFAULTS = vars(TrainConfig())
_ALWAYS = ("epochs", "batch_size", "learning_rate")
_ABSENT = object()
_MOST_CHOICES = 3  # that a heading names

Arms = Sequence[Arm | ArmResult]


@dataclass(frozen=True)
class Compared:
    """What the arms of a table have in common, and what each has of its own.

    Attributes:
        network: of all arms; empty where they differ.
        options: of all arms' networks.
        settings: of all arms' training: the most important, and those that aren't defaults.
        own: what differs, by arm: network, options and settings.
    """

    network: str
    options: Mapping[str, Any]
    settings: Mapping[str, Any]
    own: Mapping[str, Mapping[str, Any]]

    @property
    def choices(self) -> list[str]:
        """Names of what differs between arms."""
        return list(dict.fromkeys(name for own in self.own.values() for name in own))

    @property
    def named(self) -> bool:
        """Whether the arms' names say all that differs between them."""
        return all(label(key, value) in name for name, own in self.own.items() for key, value in own.items())


def compared(arms: Arms) -> Compared:
    """Return what some arms have in common, and what each has of its own."""
    networks = [{NETWORK: arm.network} for arm in arms]
    options = [dict(arm.options) for arm in arms]
    settings = [
        {name: value for name, value in vars(arm.config).items() if name not in NOT_OF_THE_ARM}
        for arm in arms
    ]
    own: dict[str, dict[str, Any]] = {arm.name: {} for arm in arms}
    for each in (networks, options, settings):
        for arm, given in zip(arms, each, strict=True):
            own[arm.name] |= {name: value for name, value in given.items() if not _is_same(name, each)}
    same = [_same(each) for each in (networks, options, settings)]
    told = {name: value for name, value in same[2].items() if name in _ALWAYS or value != _DEFAULTS[name]}
    first = {name: told[name] for name in _ALWAYS if name in told}
    return Compared(same[0].get(NETWORK, ""), same[1], {**first, **told}, own)


def _is_same(name: str, given: Sequence[Mapping[str, Any]]) -> bool:
    return all(each.get(name, _ABSENT) == given[0].get(name, _ABSENT) for each in given)


def _same(given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in given[0].items() if _is_same(name, given)}


def listed(values: Mapping[str, Any]) -> str:
    """Return options or settings on one line; the folders of references are left out.

    Example:
        >>> listed({"input_shape": [3, 64, 64], "learning_rate": 0.1})
        'input_shape=3x64x64, learning_rate=0.1'
    """
    return ", ".join(f"{name}={_value(name, value)}" for name, value in values.items())


def _value(name: str, value: Any) -> str:
    if name == "input_shape" and isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return last_part(value) if isinstance(value, str) else str(value)


def last_part(reference: str) -> str:
    """Return a reference without the folders of this machine."""
    return Path(reference).name if Path(reference).is_absolute() else reference


def heading(found: Comparison) -> str:
    """Return in one line which networks were compared on which images, and in what."""
    same = compared(found.arms)
    networks = dict.fromkeys(Path(arm.network).name for arm in found.arms)
    names = [name.replace("_", " ") for name in same.choices if name != NETWORK]
    more = f" and {len(names) - _MOST_CHOICES} more" if len(names) > _MOST_CHOICES else ""
    chosen = " × ".join(names[:_MOST_CHOICES])
    of = f"{', '.join(networks)} on {Path(found.data).name}"
    return f"{of}, {chosen}{more}" if chosen else of


def facts_of(found: Comparison) -> list[tuple[str, str]]:
    """Return what all arms have in common as names and values."""
    same = compared(found.arms)
    images = ""
    if found.num_train is not None and found.num_validation is not None:
        images = f": {exact(found.num_train)} images to train on, {exact(found.num_validation)} to validate"
    rows = [
        ("network", last_part(same.network)),
        ("options", listed(same.options)),
        ("data", f"{last_part(found.data)}{images}; one split for all runs"),
        ("training", f"{listed(same.settings)}; other settings are the defaults"),
    ]
    return [(name, value) for name, value in rows if value]
