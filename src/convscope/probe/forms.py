"""The forms that a user's data comes in, and what in a batch is the model's input and what are labels.

A batch is a tensor; a tuple or list whose first element the model takes and whose second is the labels (a
tuple of tensors where the model takes several, a list of images of different sizes where it takes that); or
a dict whose entries are the model's arguments by name. There one such as ``"label"`` is the labels, and the
model gets it too if its ``forward`` has a parameter of that name. Data is one batch or an iterable of them.

Two tensors beside each other could be either. They are inputs and labels if the second holds whole numbers or
has fewer axes than the first. Two floating tensors otherwise are two batches, as ``images.split(16)`` gives,
but for what :func:`settled` knows better.
"""

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.core.errors import ConvscopeError
from convscope.probe.probe import probing

_LABEL_KEYS = ("labels", "label", "targets", "target", "y")
_FEW = 2  # samples that show the outputs' shape


class Parts(NamedTuple):
    """A batch taken apart.

    Attributes:
        args, kwargs: the model's arguments.
        labels: None if there are none.
        has_given_labels: whether the labels are among the arguments, too.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Any
    has_given_labels: bool = False


def is_batch(data: Any) -> bool:
    """Return whether data is one batch, and not several.

    Example:
        >>> is_batch((torch.zeros(4, 3), torch.arange(4))), is_batch(torch.zeros(4, 3).split(2))
        (True, False)
    """
    if isinstance(data, Tensor | Mapping):
        return True
    if not isinstance(data, tuple | list) or len(data) < 2:
        return False
    second = data[1]
    if is_tensors(data[0]):
        return isinstance(data, tuple) and isinstance(second, Tensor) and len(data) == 2
    if not isinstance(data[0], Tensor):
        return False
    if second is None:
        return True
    return isinstance(second, Tensor) and (not second.is_floating_point() or second.dim() < data[0].dim())


def settled(model: nn.Module, data: Any, *, has_loss: bool) -> Any:
    """Return data in which a tuple of two floating tensors is said to be one batch, or two.

    Where the network's ``forward`` needs two arguments, they are these. Else they are inputs and targets, if
    they are of as many samples, and a loss is given that needs targets; or the second has another number of
    axes or of channels than the first; or the network makes something of the second's shape out of the first,
    as a denoiser does of ``(noisy, clean)``. All else is two batches. Other data stays as it is.

    Args:
        model: is run on two samples if nothing else tells; it comes back as it was.
        data: in any form.
        has_loss: whether a loss of the user's is given.

    Example:
        >>> noisy, clean = torch.zeros(4, 3), torch.ones(4, 3)
        >>> len(settled(nn.Linear(3, 3), (noisy, clean), has_loss=False))
        1
        >>> len(settled(nn.Linear(3, 2), (noisy, clean), has_loss=False))
        2
    """
    if not isinstance(data, tuple) or len(data) != 2 or is_batch(data):
        return data
    one, other = data
    if not all(isinstance(each, Tensor) and each.is_floating_point() and each.dim() for each in data):
        return data
    if len(one) == len(other) and _num_needed(model) == 2:
        return [(data, None)]
    if len(one) != len(other) or not len(one):
        return list(data)
    differs = one.dim() != other.dim() or one.shape[1:2] != other.shape[1:2]
    return [data] if has_loss or differs or _makes(model, one, other) else list(data)


def taken_apart(model: nn.Module, item: Any) -> Parts:
    """Return the model's arguments by position and by name, and the labels.

    Raises:
        ConvscopeError: the model needs other numbers of inputs than there are.
    """
    if isinstance(item, Mapping):
        return _of_mapping(model, item)
    if isinstance(item, tuple | list) and item:
        _require_inputs(model, item)
        return Parts(_positional(model, item[0]), {}, labels_in(item))
    return Parts((item,), {}, None)


def labels_in(item: Any) -> Any:
    """Return the labels in a batch as the data yields it; None if there are none."""
    if isinstance(item, Mapping):
        key = _label_key(item)
        return None if key is None else item[key]
    return item[1] if isinstance(item, tuple | list) and len(item) > 1 else None


def is_tensors(tree: Any) -> bool:
    """Return whether something is a tuple or list of tensors."""
    return isinstance(tree, tuple | list) and bool(tree) and all(isinstance(each, Tensor) for each in tree)


def _of_mapping(model: nn.Module, item: Mapping[Any, Any]) -> Parts:
    label, labels = _label_key(item), labels_in(item)
    parameters = inspect.signature(model.forward).parameters
    given = label in parameters and labels is not None
    rest = {str(key): value for key, value in item.items() if key != label or given}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return Parts((), rest, labels, given)
    known = {key: value for key, value in rest.items() if key in parameters}
    if known.keys() - {label}:
        return Parts((), known, labels, given)
    return Parts(tuple(value for key, value in rest.items() if key != label)[:1], {}, labels)


def _label_key(item: Mapping[Any, Any]) -> str | None:
    return next((key for key in _LABEL_KEYS if key in item), None)


def _positional(model: nn.Module, inputs: Any) -> tuple[Any, ...]:
    """A model's arguments: a tuple of tensors goes to a model that can't do with one argument in parts."""
    if not is_tensors(inputs):
        return (inputs,)
    needed = _num_needed(model)
    if needed < 2:
        return (inputs,)
    parameters = inspect.signature(model.forward).parameters.values()
    open_ended = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    most = math.inf if open_ended else len(list(_by_position(model)))
    if not needed <= len(inputs) <= most:
        raise ConvscopeError(
            f"a batch with {len(inputs)} input tensors for a network that takes {needed}",
            "as many as its forward has arguments",
            "pass a dict of them by the arguments' names, or as many as there are",
        )
    return tuple(inputs)


def _require_inputs(model: nn.Module, item: Any) -> None:
    """Refuse a single input for a model that needs several, which stand where labels should."""
    needed = _num_needed(model)
    beside = [each for each in item[1:] if isinstance(each, Tensor)]
    if isinstance(item[0], Tensor) and beside and needed > 1:
        names = ", ".join(chr(ord("a") + number) for number in range(needed))
        raise ConvscopeError(
            f"a batch of {len(item)} tensors side by side for a network whose forward needs {needed} inputs",
            "inputs in a tuple of their own, for a second element is taken for labels",
            f"yield (({names}), labels), or a dict by the arguments' names",
        )


def _num_needed(model: nn.Module) -> int:
    return sum(each.default is each.empty for each in _by_position(model))


def _by_position(model: nn.Module) -> Iterator[inspect.Parameter]:
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except ValueError:  # a forward that isn't written in Python
        return iter(())
    return (each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD))


def _makes(model: nn.Module, inputs: Tensor, targets: Tensor) -> bool:
    """Whether the network makes something of the targets' shape out of inputs; not if it fails."""
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    try:
        with probing(model), torch.no_grad():
            outputs = model(inputs[:_FEW].detach().to(device, copy=True))
    except Exception:
        return False  # two batches, of which the first says what fails
    leaves = tree_leaves(dict(outputs) if isinstance(outputs, Mapping) else outputs)
    return any(isinstance(leaf, Tensor) and leaf.shape[1:] == targets.shape[1:] for leaf in leaves)
