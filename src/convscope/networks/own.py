"""Resolver of the networks that convscope builds itself."""

import inspect
from collections.abc import Callable
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.networks.alexnet import alexnet
from convscope.networks.plan import LayerChoices
from convscope.networks.preprocessing import default_class_names, default_preprocessing
from convscope.networks.request import Request, Resolved, unbuildable
from convscope.networks.stack import Stack
from convscope.networks.zfnet import zfnet

BUILDERS: dict[str, Callable[..., Stack]] = {"alexnet": alexnet, "zfnet": zfnet}


def own_network(request: Request) -> Resolved:
    """Return one of :data:`BUILDERS`' networks.

    Raises:
        ConvscopeError: an option isn't offered or has a value that isn't.
    """
    builder = BUILDERS[request.name]
    offered = _offered(builder)
    for option in request.options:
        if option not in offered:
            raise ConvscopeError(
                f"{request.name}: option {option!r}",
                f"one of {', '.join(offered)}",
                nearest(option, offered, "choose one"),
            )
    try:
        model = builder(**{**_wishes(request), **request.options})
    except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:  # sizes or kinds
        raise unbuildable(request, error) from error
    return Resolved(
        model,
        model.plan.input_shape,
        default_preprocessing(model.plan.input_shape, model.plan.name),
        default_class_names(model.plan.num_classes),
    )


def _offered(builder: Callable[..., Stack]) -> list[str]:
    parameters = inspect.signature(builder).parameters.values()
    named = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    return [*named, *LayerChoices.__annotations__]


def _wishes(request: Request) -> dict[str, Any]:
    """The request's classes and input shape as the builder's options."""
    wishes: dict[str, Any] = {}
    if request.num_classes is not None:
        wishes["num_classes"] = request.num_classes
    if request.input_shape is not None:
        if len(request.input_shape) != 3:
            raise ConvscopeError(
                f"{request.name}: input shape {'x'.join(map(str, request.input_shape))}",
                "channels x height x width",
                "write it as 3x224x224",
            )
        wishes["in_channels"], *size = request.input_shape
        wishes["input_size"] = tuple(size)
    return wishes
