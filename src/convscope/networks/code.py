"""Resolvers of references into Python code and exported programs. Both run what their author wrote.

``package.module:callable`` imports the module; ``file.py:callable`` runs the file. ``model.pt2`` is a program
and runs when the network does, though nothing runs as it is read. Use them on files that you trust.
"""

import importlib
import importlib.util
import inspect
import logging
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.core.paths import is_file
from convscope.networks.exported_archive import runs_on_reading
from convscope.networks.preprocessing import default_preprocessing
from convscope.networks.request import Request, Resolved, unbuildable
from convscope.probe.class_scores import other_widths
from convscope.tape import record

_ASSUMED_SHAPE = (3, 224, 224)


def coded_network(request: Request) -> Resolved:
    """Return what ``package.module:callable`` or ``file.py:callable`` builds.

    The callable gets the options as keywords, and ``num_classes`` if one was asked for and it takes that; if
    it doesn't, its network has to have so many scores as it comes. It returns a module, or a module and its
    inputs (a tensor, a tuple or dict of tensors, or a shape with the batch). The name may also be a module
    that is there already. Without inputs or a shape, 3×224×224 is assumed.

    Raises:
        ConvscopeError: there is no such file, module or name, it raises, it returns something else, or
            a network with another number of scores than was asked for.
    """
    place, _, name = request.name.rpartition(":")
    file = Path(place)
    is_file = file.suffix == ".py"
    with _importable(file.resolve().parent if is_file else Path.cwd()):
        try:
            module = _run(file) if is_file else importlib.import_module(place)
            target = _named(request, module, name)
        except ConvscopeError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise unbuildable(request, error) from error
        if isinstance(target, nn.Module):
            return _checked(request, target)
        is_told = request.num_classes is not None and _takes(target, "num_classes")
        resolved = _checked(request, _called(request, target, is_told=is_told))
        if not is_told and request.num_classes is not None:
            _require_scores(request, resolved, request.num_classes)  # here its own imports are still found
        return resolved


def exported_network(request: Request) -> Resolved:
    """Return the program in ``model.pt2``, with the shape that it was exported with.

    Raises:
        ConvscopeError: the file can't be read, holds what would run as it is read (pickled objects, compiled
            code), takes inputs both by position and by name, or an option was given, which a finished program
            can't take.
    """
    if request.options or request.num_classes is not None:
        raise ConvscopeError(
            f"network {request.reference!r} with options",
            "none: an exported program is finished",
            "leave them out",
        )
    path = Path(request.name)
    if not is_file(path):
        raise ConvscopeError(
            f"network {request.reference!r}: no such file", "an exported program", "check the path"
        )
    if not zipfile.is_zipfile(path):  # the reader would log a traceback
        raise _unreadable(request, "it is no whole archive")
    try:
        with _quiet():  # the reader logs a traceback for archives of another kind
            harm = runs_on_reading(path)
            if harm is None:
                program = torch.export.load(path)
                model = program.module()
    except Exception as error:  # broken archives make the reader raise almost anything
        raise _unreadable(request, f"it is no exported program: {type(error).__name__}") from error
    if harm is not None:
        raise _unreadable(request, f"it holds {harm}, which could run code when read")
    args, kwargs = _example_inputs(program)
    if args and kwargs:  # inputs are one tuple or one dict, and a program takes exactly what it was given
        raise ConvscopeError(
            f"network {request.reference!r}, exported with inputs by position and by name "
            f"({', '.join(kwargs)})",
            "all by position, or all by name",
            "export it again with args only, or with kwargs only",
        )
    if request.input_shape is not None:
        return _described(request, model, request.input_shape)
    if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
        shape = tuple(args[0].shape)
        return Resolved(model, shape[1:], default_preprocessing(shape[1:], request.reference), inputs=shape)
    return Resolved(model, None, None, inputs=args or kwargs)


def _unreadable(request: Request, why: str) -> ConvscopeError:
    return ConvscopeError(
        f"network {request.reference!r} can't be read ({why})",
        "an archive written by torch.export.save",
        "export the network again with this version of PyTorch; weights go beside their network: --weights",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)


def _example_inputs(program: torch.export.ExportedProgram) -> tuple[tuple[Any, ...], dict[str, Any]]:
    examples: Any = program.example_inputs  # annotated too narrowly
    return examples or ((), {})


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a folder's modules be imported for a while, as ``python file.py`` would."""
    path = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path


def _run(file: Path) -> ModuleType:
    name = f"convscope_reference_{file.stem}"  # no name that another module has
    spec = importlib.util.spec_from_file_location(name, file)
    if not is_file(file) or spec is None or spec.loader is None:
        raise ConvscopeError(f"no file {str(file)!r}", "a Python file", "check the path")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles of the file's own classes look their module up here.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _named(request: Request, module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        raise ConvscopeError(
            f"network {request.reference!r}: no {name!r} in it",
            "the name of a callable or of a module",
            nearest(name, (known for known in vars(module) if not known.startswith("_")), "check the name"),
        )
    return getattr(module, name)


def _takes(target: Any, keyword: str) -> bool:
    """Whether a callable takes a keyword; where nobody can say, it is taken to."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return True
    kinds = {parameter.kind for parameter in parameters.values()}
    named = parameters.get(keyword)
    is_named = named is not None and named.kind not in (named.POSITIONAL_ONLY, named.VAR_POSITIONAL)
    return is_named or inspect.Parameter.VAR_KEYWORD in kinds


def _require_scores(request: Request, resolved: Resolved, num_classes: int) -> None:
    """Refuse a network that has other scores, where its builder can't be asked for so many.

    Raises:
        ConvscopeError: it has others.
    """
    shape = resolved.input_shape
    inputs = resolved.inputs if shape is None else (2, *shape)
    try:
        tape = record(resolved.model, inputs, None)
    except ConvscopeError:  # that it doesn't run is told where it is to run
        return
    shapes = [tape.values[each].shape for each in tape.outputs]
    found = other_widths((shape[1] for shape in shapes if len(shape) > 1), num_classes)
    if not found:
        return
    raise ConvscopeError(
        f"network {request.reference!r} with {found} scores, whose builder takes no num_classes",
        f"{num_classes:,} scores, one for each class",
        f"give the builder the keyword num_classes, or have it return a network with {num_classes:,} scores",
    )


def _called(request: Request, target: Any, *, is_told: bool) -> Any:
    wishes = {"num_classes": request.num_classes} if is_told else {}
    try:
        return target(**wishes, **request.options)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise unbuildable(request, error) from error


def _checked(request: Request, built: Any) -> Resolved:
    model, inputs = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
    if not isinstance(model, nn.Module):
        raise ConvscopeError(
            f"network {request.reference!r} gives {type(model).__name__}",
            "a torch.nn.Module, or one and its inputs",
            "return the network",
        )
    if inputs is None or request.input_shape is not None:
        return _described(request, model, request.input_shape or _ASSUMED_SHAPE)
    if isinstance(inputs, tuple) and all(isinstance(side, int) for side in inputs):
        return Resolved(
            model, inputs[1:], default_preprocessing(inputs[1:], request.reference), inputs=inputs
        )
    return Resolved(model, None, None, inputs=inputs)


def _described(request: Request, model: nn.Module, shape: tuple[int, ...]) -> Resolved:
    return Resolved(model, shape, default_preprocessing(shape, request.reference))
