"""A table from a TOML file, every key of it checked before anything runs.

Keys: ``network``, ``data``, ``seeds``, ``target``, ``baseline``, ``image_size``; for running, ``out``,
``processes``, ``threads``. ``[settings]`` of every arm's training, ``[options]`` of its network,
``[choices]`` that are crossed, and ``[[arms]]`` with a ``name``, a ``network``, ``settings`` and ``options``
of their own.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.train.comparing.choices import (
    NETWORK,
    check_choice,
    check_one_network,
    check_option,
    check_said_once,
    check_setting,
    check_values,
    crossed_arms,
    made_arm,
    option_value,
)
from convscope.train.comparing.table import Arm, Table, as_seeds
from convscope.train.comparing.toml_lines import Key, line_of
from convscope.train.config import TrainConfig, with_settings
from convscope.train.setting_rules import RULES

KEYS = ("network", "data", "seeds", "target", "baseline", "image_size", "out", "processes", "threads",
        "settings", "options", "choices", "arms")  # fmt: skip
_ARM_KEYS = ("name", "network", "settings", "options")


@dataclass(frozen=True)
class Written:
    """What a file says.

    Attributes:
        table: what is compared.
        out: folder for it, as written; None if the file doesn't say.
        processes: side by side; None if the file doesn't say.
        threads: of each run; None if the file doesn't say.
    """

    table: Table
    out: str | None
    processes: int | None
    threads: int | None


def read_table(path: str | Path) -> Written:
    """Return what a TOML file says.

    Raises:
        ConvscopeError: it can't be read, a key doesn't exist (with its line and the nearest names), or a
            value isn't possible (with its line).
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows may begin with a mark
        content = tomllib.loads(text)
    except OSError as error:
        raise ConvscopeError(
            f"no readable table {str(path)!r} ({error.strerror})", "a TOML file", "check the path"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConvscopeError(
            f"{path}: {error}", "a TOML file", "correct that place; texts stand in double quotes"
        ) from error
    return _Reader(path, text, content).written()


class _Reader:
    """Reads the parts of one file, and says of each complaint where it belongs."""

    def __init__(self, path: Path, text: str, content: Mapping[str, Any]) -> None:
        self.path, self.text, self.content = path, text, content

    def written(self) -> Written:
        content = self.content
        for key in content:
            self._at([key], lambda: _check_key(key, KEYS))  # noqa: B023  (called at once)
        self._need("data")
        self._need_network()
        settings, options = self._settings(["settings"]), self._part(["options"])
        arms = self._crossed(settings, options) + self._named(settings, options)
        if not arms:
            self._check_options(options, [content["network"]])
            arms = (made_arm(content["network"], {}, settings, options),)
        if "out" in content:
            self._need("out")
        table = self._at([], lambda: self._table(arms))
        return Written(table, content.get("out"), self._whole("processes", 0), self._whole("threads", 1))

    def _table(self, arms: tuple[Arm, ...]) -> Table:
        content = self.content
        seeds = self._at(["seeds"], lambda: as_seeds(content.get("seeds", 5)))
        size = self._at(["image_size"], lambda: as_size(content.get("image_size")))
        data, target, baseline = content["data"], content.get("target"), content.get("baseline", "")
        plain = Table(data, arms, seeds, image_size=size)
        if baseline:
            self._at(["baseline"], lambda: plain.arm(baseline))
        self._at(["target"], lambda: replace(plain, target=target))
        return replace(plain, target=target, baseline=baseline)

    def _crossed(self, settings: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Arm, ...]:
        choices = self._part(["choices"])
        if not choices:
            return ()
        network = self.content.get("network", "")
        if "arms" not in self.content:  # named arms are of it
            self._at(["network"], lambda: check_one_network(network, choices))
        for name, values in choices.items():
            where = ["choices", name]
            self._at(where, lambda: check_values(name, values))  # noqa: B023
            self._at(where, lambda: check_said_once(name, values, settings, options))  # noqa: B023
            for value in values:
                if name in RULES:
                    given = {**settings, name: value}
                    self._at(where, lambda: made_arm("zfnet", {}, given, {}))  # noqa: B023
                elif name != NETWORK:
                    for each in choices.get(NETWORK, [network]):
                        self._at(where, lambda: check_choice(name, each))  # noqa: B023
                        self._at(where, lambda: option_value(name, value, each))  # noqa: B023
        self._check_options(options, choices.get(NETWORK, [network]))
        crossed: tuple[Arm, ...] = self._at(
            ["choices"], lambda: crossed_arms(network, choices, settings, options)
        )
        return crossed

    def _named(self, settings: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Arm, ...]:
        arms = self.content.get("arms", [])
        if not isinstance(arms, list) or not all(isinstance(arm, dict) for arm in arms):
            self._at(["arms"], lambda: _refuse("arms", arms, "tables under [[arms]]"))
        return tuple(self._arm(number, arm, settings, options) for number, arm in enumerate(arms))

    def _arm(
        self, number: int, arm: Mapping[str, Any], settings: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Arm:
        where: list[Key] = ["arms", number]
        for key in arm:
            self._at([*where, key], lambda: _check_key(key, _ARM_KEYS))  # noqa: B023
        name = arm.get("name")
        if not isinstance(name, str) or not name:
            self._at(where, lambda: _refuse("name", name, "a text that names the arm"))
        network = arm.get("network", self.content.get("network", ""))
        own = {**settings, **self._settings([*where, "settings"])}
        own_options = self._part([*where, "options"])
        self._check_options(own_options, [network], [*where, "options"])
        self._check_options(options, [network])
        made: Arm = self._at(where, lambda: made_arm(network, {}, own, {**options, **own_options}, name))
        return made

    def _settings(self, where: Sequence[Key]) -> dict[str, Any]:
        """A table of settings, each checked by the training's own rules."""
        settings = self._part(where)
        for name, value in settings.items():
            self._at([*where, name], lambda: check_setting(name))  # noqa: B023
            self._at([*where, name], lambda: _check_value(name, value))  # noqa: B023
        return settings

    def _check_options(
        self, options: Mapping[str, Any], networks: Sequence[Any], where: Sequence[Key] = ("options",)
    ) -> None:
        for option, value in options.items():
            place = [*where, option]
            for network in networks:
                self._at(place, lambda: check_option(option, str(network)))  # noqa: B023
                self._at(place, lambda: option_value(option, value, str(network)))  # noqa: B023

    def _part(self, where: Sequence[Key]) -> dict[str, Any]:
        """The table at a place; empty if there is none."""
        found: Any = self.content
        for key in where:
            found = found[key] if isinstance(key, int) else found.get(key, {})
        if not isinstance(found, dict):
            self._at(where, lambda: _refuse(str(where[-1]), found, f"a table, [{where[-1]}]"))
        return dict(found)

    def _need(self, key: str) -> None:
        value = self.content.get(key)
        if not isinstance(value, str) or not value:
            self._at([key], lambda: _refuse(key, value, "a text"))

    def _need_network(self) -> None:
        content = self.content
        arms = content.get("arms")
        of_arms = isinstance(arms, list) and all(isinstance(a, dict) and NETWORK in a for a in arms)
        chosen = isinstance(content.get("choices"), dict) and NETWORK in content["choices"]
        if NETWORK in content or not (chosen or (of_arms and "choices" not in content)):
            self._need(NETWORK)

    def _whole(self, key: str, least: int) -> int | None:
        value = self.content.get(key)
        right = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if value is not None and not right:
            self._at([key], lambda: _refuse(key, value, f"a whole number from {least}"))
        return value

    def _at(self, where: Sequence[Key], done: Callable[[], Any]) -> Any:
        """Do something, and put file and line before what it complains of."""
        try:
            return done()
        except ConvscopeError as error:
            if error.given.startswith(str(self.path)):
                raise
            line = line_of(self.text, where) if where else None
            place = f"{self.path}, line {line}" if line else str(self.path)
            raise ConvscopeError(f"{place}: {error.given}", error.expected, error.action) from error


def as_size(size: Any) -> tuple[int, int] | None:
    """Return height and width from one number, two, or None.

    Raises:
        ConvscopeError: it is something else.
    """
    sides = (size, size) if isinstance(size, int) else size
    if sides is None:
        return None
    right = isinstance(sides, list | tuple) and len(sides) == 2
    if not right or not all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sides):
        raise ConvscopeError(f"image_size={size!r}", "pixels: one number, or height and width", "correct it")
    return sides[0], sides[1]


def _check_key(key: str, known: Sequence[str]) -> None:
    if key not in known:
        raise ConvscopeError(f"unknown key {key!r}", f"one of {', '.join(known)}", nearest(key, known))


def _check_value(name: str, value: Any) -> None:
    """Check one setting on its own, beside a crop that those which need one are content with."""
    plain = TrainConfig(crop=1)
    with_settings(plain, made_arm("zfnet", {}, {"crop": 1, name: value}, {}).config.__dict__)


def _refuse(key: str, value: Any, expected: str) -> None:
    raise ConvscopeError(f"{key}={value!r}" if value is not None else f"no {key}", expected, f"write {key}")
