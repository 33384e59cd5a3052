"""The page about each fault: what it is, how it shows, how it is measured, and how to mend it."""

import inspect
from importlib.resources import files

from convscope.checkup.judging.faults.registry import Rule, rule_of
from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest

_PAGES = files("convscope.checkup").joinpath("pages")
_SUFFIX = ".md"


def page_names() -> tuple[str, ...]:
    """Return the faults that there is a page about, in alphabetical order."""
    names = (page.name for page in _PAGES.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def summary_of(fault: str) -> str:
    """Return in a few words what a fault is.

    Args:
        fault: one of :func:`page_names`.

    Example:
        >>> summary_of("momentum-convention")
        'the newest batch outweighs all others'
    """
    return page_of(fault).partition("\n")[0].partition(":")[2].strip()


def page_of(fault: str) -> str:
    """Return the page about a fault, as Markdown; of a registered one without a page, what its rule says.

    Args:
        fault: its id, which findings carry.

    Raises:
        ConvscopeError: there is no page about such a fault, and no rule is registered for it.

    Example:
        >>> print(page_of("momentum-convention").splitlines()[0])
        # momentum-convention: the newest batch outweighs all others
    """
    names = page_names()
    if fault not in names and (rule := rule_of(fault)) is not None:
        return _of_rule(fault, rule)
    if fault not in names:
        raise ConvscopeError(
            f"no page about the fault {fault!r}",
            f"one of {len(names)} faults, which convscope checkup --explain lists",
            nearest(fault, names, "check the name; for a rule in a network's file, name the network too"),
        )
    return _PAGES.joinpath(fault + _SUFFIX).read_text(encoding="utf-8")


def _of_rule(fault: str, rule: Rule) -> str:
    """A page made of a rule's own docstring."""
    told = inspect.getdoc(rule) or "Its rule has no docstring, which would be shown here."
    where = f"{getattr(rule, '__module__', '?')}.{getattr(rule, '__qualname__', repr(rule))}"
    closing = f"Judged by `{where}`; convscope has no page about it."
    return f"# {fault}: a rule that was added\n\n{told}\n\n{closing}\n"
