"""Results: frozen dataclasses which render themselves as JSON, in the terminal and in a notebook.

A result holds numbers, never formatted text. ``to_json`` walks its fields here; the terminal and notebook
renderings live in ``convscope.report`` (a higher room), which registers one function per result type with
:func:`renders`, where a notebook gets more than the terminal's text, :func:`renders_html`, and for results
with a page of their own, :func:`renders_page`. The root package names the modules that do so, and they are
imported at the first rendering.
"""

import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from rich.console import RenderableType

_renderers: dict[type, Callable[[Any], "RenderableType"]] = {}
_html_renderers: dict[type, Callable[[Any], str]] = {}
_page_renderers: dict[type, Callable[[Any], str]] = {}
_renderer_modules: list[str] = []
_R = TypeVar("_R", bound=Callable[[Any], Any])
_T = TypeVar("_T")


def set_renderers(*modules: str) -> None:
    """Name the modules whose import registers the renderers."""
    _renderer_modules[:] = modules


def renders(result_type: type) -> Callable[[_R], _R]:
    """Register the decorated function as the rich rendering of ``result_type``."""

    def register(renderer: _R) -> _R:
        _renderers[result_type] = renderer
        return renderer

    return register


def renders_html(result_type: type) -> Callable[[_R], _R]:
    """Register the decorated function as the HTML of ``result_type`` in notebooks."""

    def register(renderer: _R) -> _R:
        _html_renderers[result_type] = renderer
        return renderer

    return register


def renders_page(result_type: type) -> Callable[[_R], _R]:
    """Register the decorated function as the page of ``result_type``: HTML that lies beside its files."""

    def register(renderer: _R) -> _R:
        _page_renderers[result_type] = renderer
        return renderer

    return register


class Result:
    """Base of every public result (each a frozen dataclass): JSON and rich rendering.

    Attributes:
        schema_version: version of the JSON layout, raised when a field changes its meaning or goes.
    """

    schema_version: ClassVar[int] = 1
    not_in_json: ClassVar[frozenset[str]] = frozenset()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain dictionaries, lists, strings and numbers."""
        return {"schema_version": self.schema_version, **_fields(self)}

    def to_json(self, indent: int | None = None) -> str:
        """Return the result as a JSON text with ``schema_version``; non-finite numbers become null."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    def __rich__(self) -> "RenderableType":
        renderer = _registered(type(self), _renderers)
        return repr(self) if renderer is None else renderer(self)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=160, no_color=True, highlight=False, force_jupyter=False)
        with console.capture() as captured:
            console.print(self.__rich__())
        return captured.get().rstrip("\n")

    def _repr_html_(self) -> str:
        renderer = _registered(type(self), _html_renderers)
        if renderer is not None:
            return str(renderer(self))
        from rich.console import Console

        # In a notebook, rich would show the table itself, beside the HTML.
        console = Console(width=160, record=True, file=io.StringIO(), force_jupyter=False)
        console.print(self.__rich__())
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def page_of(result: Result) -> str | None:
    """Return a result's own page as HTML; None for a type that has none.

    Example:
        >>> page_of(Result()) is None
        True
    """
    renderer = _registered(type(result), _page_renderers)
    return None if renderer is None else renderer(result)


def _registered(result_type: type, renderers: dict[type, Callable[[Any], _T]]) -> Callable[[Any], _T] | None:
    """The renderer of a type or of its nearest ancestor that has one."""
    for module in _renderer_modules:
        import_module(module)
    return next((renderers[ancestor] for ancestor in result_type.__mro__ if ancestor in renderers), None)


def plain(value: Any) -> Any:
    """Return a value as JSON's types: dataclasses by field, tensors and arrays as lists, NaN as None.

    Example:
        >>> plain({"shape": (1, 2), "nan": float("nan")})
        {'shape': [1, 2], 'nan': None}
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def _fields(value: Any) -> dict[str, Any]:
    hidden: frozenset[str] = getattr(value, "not_in_json", frozenset())
    return {
        field.name: plain(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if field.name not in hidden
    }
