"""Why a step couldn't be recorded, in one line: which operator or module, and what to do."""

import re

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)

from convscope.core.errors import ConvscopeError

_NEEDS_DATA = (DataDependentOutputException, DynamicOutputShapeException)
_NO_SIMULATION = (UnsupportedOperatorException, UnsupportedFakeTensorException)
_NO_FAKE = "no fake impl registered"  # of operators made with torch.library.custom_op
_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
# PyTorch's words for an operator of torch.library's, and for one of its own.
_NO_BACKWARD = re.compile(
    r"Trying to backward through ([\w.]+?)(?:\.default)? but no autograd formula"
    r"|derivative for (?:'?\w+'? of )?'?(?:aten::)?(\w+)'? is not implemented"
)
_FOR_REAL = "record it for real on a small batch: record(..., real=True), or convscope cost --real"


def operator_failed(address: str, error: Exception) -> ConvscopeError:
    """Return the error for an operator that raised one while it was recorded.

    Args:
        address: of the operator call, with its module's path.
        error: what it raised.
    """
    if isinstance(error, _NEEDS_DATA):
        return ConvscopeError(
            f"operator {address} makes results whose shape depends on what its tensors hold ({error})",
            "a network that can be recorded without data",
            _FOR_REAL,
        )
    if isinstance(error, _NO_SIMULATION) or _NO_FAKE in str(error):
        return ConvscopeError(
            f"operator {address} has no simulated kernel ({first_line(error)})",
            "operators that run without real data",
            f"register one with torch.library.register_fake, or {_FOR_REAL}",
        )
    if is_out_of_memory(error):
        return ConvscopeError(
            f"operator {address} finds no memory ({first_line(error)})",
            "a step that fits into this machine's memory",
            "give a smaller batch",
        )
    return ConvscopeError(
        f"operator {address} doesn't run on the given inputs ({first_line(error)})",
        "inputs of the shape that the network takes",
        "check the input's shape and the module named",
    )


def network_failed(address: str, error: Exception, *, real: bool) -> ConvscopeError:
    """Return the error for Python code of the network that raised one while it was recorded.

    Args:
        address: of the innermost module call that the exception left.
        error: what was raised.
        real: whether the step was run for real.
    """
    if (operator := _higher_order(error)) is not None:
        return ConvscopeError(
            f"the network calls {operator} in {address}, an operator over functions",
            "operators over tensors",
            "write it in those, such as torch.nn.functional.scaled_dot_product_attention",
        )
    if (operator := _not_differentiable(error)) is not None:
        return ConvscopeError(
            f"the operator {operator} has no backward formula, and a training step goes back through it",
            "operators that autograd differentiates",
            "register one with torch.library.register_autograd, or look at inference alone: plan=None "
            "(convscope cost --inference)",
        )
    return ConvscopeError(
        f"the network fails in {address} ({first_line(error)})",
        "inputs that the network takes",
        "check the input's shape"
        if real
        else f"check the input's shape; if the module needs real data, {_FOR_REAL}",
    )


def first_line(error: Exception) -> str:
    """Return the first line of an exception's text, or its class's name if it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that there isn't enough memory."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


def _higher_order(error: Exception) -> str | None:
    """The name of the higher-order operator that no rule lets through a recording, or None."""
    found = re.search(r"HigherOrderOperator (\w+) and mode", str(error))
    return None if found is None else found[1]


def _not_differentiable(error: BaseException | None) -> str | None:
    """The operator that autograd can't go back through, as in ``"mine::smooth"``, or None."""
    while error is not None:
        found = _NO_BACKWARD.search(str(error))
        if found is not None:
            return (found[1] or found[2]).replace(".", "::")
        error = error.__cause__
    return None
