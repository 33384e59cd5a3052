"""Words of ``convscope compare``'s flags: seeds, choices, settings, options."""

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from convscope.core.errors import ConvscopeError

_OF_PYTHON: dict[str, bool | str] = {"True": True, "False": False, "None": "none"}
_BETWEEN_COMMAS = re.compile(r"""(?:\([^()]*\)|\[[^\[\]]*\]|"[^"]*"|'[^']*'|[^,])+""")
"""One value; commas within brackets and quotes belong to it."""
_SHAPES = {
    "--choose": ("NAME=VALUE,VALUE", "learning_rate=0.01,0.1"),
    "--set": ("NAME=VALUE", "epochs=10"),
    "--option": ("NAME=VALUE", "width=0.5"),
}
"""Of each flag's words: their shape, and an example."""


def seeds_of(text: str) -> int | list[int]:
    """Return how many seeds ``"5"`` asks for, or which ``"0,1,2"`` names."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConvscopeError(f"--seeds {text!r}", "a number, or numbers with commas", "--seeds 5") from error
    return numbers if "," in text else numbers[0]


def options_of(option: Sequence[str] | None, shape: str | None) -> dict[str, Any] | None:
    """Return a network's options from ``NAME=VALUE`` words and an image's shape; None if there are none."""
    options = pairs_of("--option", option) if option else {}
    if shape is not None:
        if "input_shape" in options:
            raise ConvscopeError(
                f"--input {shape} and --option input_shape={options['input_shape']}",
                "the shape once",
                "take one of them out",
            )
        options["input_shape"] = shape
    return options or None


def pairs_of(flag: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the values of a flag's ``NAME=VALUE`` words, by name."""
    return {name: _value(text) for name, text in _split(flag, words)}


def choices_of(words: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of ``NAME=VALUE,VALUE`` words, by name."""
    return {name: _values(text) for name, text in _split("--choose", words)}


def _split(flag: str, words: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [
        (name.strip().replace("-", "_"), text) for name, _, text in (word.partition("=") for word in words)
    ]
    wrong = [word for word, (name, text) in zip(words, pairs, strict=True) if not name or not text]
    if wrong:
        expected, example = _SHAPES[flag]
        raise ConvscopeError(f"{flag} {wrong[0]!r}", expected, f"write {flag} {example}")
    names = [name for name, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConvscopeError(f"{flag} {twice[0]} twice", "each name once", "separate values by commas")
    return pairs


def _values(text: str) -> list[Any]:
    """The values of a choice: a TOML list without its brackets, or words with commas between them."""
    try:
        values: list[Any] = tomllib.loads(f"value = [{text}]")["value"]
    except tomllib.TOMLDecodeError:
        values = [_value(part) for part in _BETWEEN_COMMAS.findall(text)]
    return values


def _value(text: str) -> Any:
    """A number, a truth value or a list as TOML or Python writes it, else the word itself."""
    word = text.strip()
    if word in _OF_PYTHON:
        return _OF_PYTHON[word]
    if word.startswith("(") and word.endswith(")"):
        word = f"[{word[1:-1]}]"
    try:
        return tomllib.loads(f"value = {word}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
