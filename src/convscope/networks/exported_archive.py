"""Whether reading an exported program would run something: its archive is looked through first.

``torch.export.load`` unpickles what an archive says is pickled, loads compiled libraries, and evaluates the
sizes that are written as expressions. What ``torch.export.save`` writes of networks of plain tensors needs
only tensors and arithmetic; all else is refused here. Limit: the program itself is code, as a Python file
is, and runs when the network runs.
"""

import ast
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_OBJECTS = ("custom_obj_", "opaque_obj_")  # payloads that are pickled whatever their entry says
_UNPICKLED = ("serialized_state_dict.json", "serialized_constants.json")  # of PyTorch 2.7 and before
_FUNCTIONS = frozenset({"ceiling", "cos", "exp", "floor", "log", "sin", "sqrt", "tan", "tanh"})
_ARITHMETIC = (ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
_TERMS = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Name, ast.keyword)
_NUMBER = re.compile(r"[\d.]+")


def runs_on_reading(path: Path) -> str | None:
    """Return what in an archive would run as it is read, in a few words, or None for nothing.

    Raises:
        Exception: of any kind, for broken archives.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        lower = [name.lower() for name in names]  # PyTorch's reader doesn't tell capitals apart
        if len(set(lower)) < len(lower):
            return "two entries of one name"
        for name, known in zip(names, lower, strict=True):
            found = _in_entry(archive, name, known)
            if found is not None:
                return found
    return None


def _in_entry(archive: zipfile.ZipFile, name: str, known: str) -> str | None:
    if "data/aotinductor/" in known or known.endswith(".so"):
        return "compiled code"
    if known.endswith(_UNPICKLED):
        return "pickled objects"
    if known.endswith(".pt"):
        return None if _is_plain(archive.read(name)) else "pickled objects"
    if not known.endswith(".json"):
        return None
    for entry in _entries(json.loads(archive.read(name))):
        if entry.get("use_pickle") or str(entry.get("path_name", "")).startswith(_OBJECTS):
            return "pickled objects"
        if "expr_str" in entry and not _is_arithmetic(str(entry["expr_str"])):
            return "a size that is no arithmetic"
    return None


def _is_plain(content: bytes) -> bool:
    """Whether bytes are tensors and plain containers; empty ones are read as nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True) if content else None
    except Exception:  # the reader refuses with almost anything
        return False
    return True


def _entries(content: Any) -> Iterator[dict[str, Any]]:
    waiting = [content]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def _is_arithmetic(expression: str) -> bool:
    """Whether an expression has numbers, symbols and functions of SymPy alone.

    Example:
        >>> _is_arithmetic("Max(1, Symbol('s0', integer=True)//2)"), _is_arithmetic("exit()")
        (True, False)
    """
    try:
        nodes = list(ast.walk(ast.parse(expression.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_term(node) for node in nodes)


def _is_term(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name[0].isupper() or name in _FUNCTIONS
        case ast.Constant(value=str(text)):  # evaluated too by most functions
            return text.isidentifier() or _NUMBER.fullmatch(text) is not None
        case ast.Constant(value=value):
            return isinstance(value, int | float)
    return isinstance(node, (*_ARITHMETIC, *_TERMS))
