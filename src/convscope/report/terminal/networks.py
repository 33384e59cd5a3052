"""The list of networks, and what became of a file of weights, in the terminal."""

from collections.abc import Iterator

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.core.units import counted
from convscope.networks import Catalogue, WeightsReport
from convscope.report.terminal.tables import facts, label, sections, table, title
from convscope.report.wording.formats import joined, shape

_SHOWN = 8


@renders(Catalogue)
def render_catalogue(catalogue: Catalogue) -> RenderableType:
    """Return the networks that can be loaded by name."""
    own = (
        (network.reference, network.variant, shape(network.input_shape), network.norm, network.groups)
        for network in catalogue.own
    )
    zoos = list(_zoos(catalogue))
    code = (("package.module:callable", "what the callable returns"), ("file.py:callable", "likewise"),
            ("model.pt2", "a program written by torch.export.save"))  # fmt: skip
    return sections(
        title("Networks"),
        table(("Reference", "variant=", "Input", "Normalisation", "Groups#"), own),
        facts((*zoos, *code)),
    )


def _zoos(catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """A line for each library; a problem that two of them have is told once."""
    told: dict[str, str] = {}
    for zoo in catalogue.zoos:
        name = f"{zoo.prefix}:NAME"
        cause = zoo.problem.removeprefix(f"{zoo.prefix} can't be imported: ")
        if zoo.problem and cause in told:
            yield name, f"can't be imported either, as {told[cause]}"
        elif zoo.problem:
            told[cause] = name
            yield name, zoo.problem
        elif zoo.names:
            yield name, f"{counted(len(zoo.names), 'network')}, such as {joined(zoo.names[:3])}"
        else:
            yield name, "no network of such a name"


@renders(WeightsReport)
def render_weights(report: WeightsReport) -> RenderableType:
    """Return what was loaded from a file, and which names didn't fit."""
    shown = [("loaded", f"{report.loaded} tensors from {report.file}")]
    if report.place:
        shown.append(("taken from", report.place + (", a moving average" if report.is_average else "")))
    if report.alternatives:
        shown.append(("also in the file", joined(report.alternatives)))
    if report.stripped:
        shown.append(("prefixes taken off", joined(report.stripped)))
    for name, names in (("not in the file", report.missing), ("not in the network", report.unexpected)):
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        if names:
            shown.append((name, joined(names[:_SHOWN]) + more))
    complete = label("every tensor fitted", "dim") if report.complete else None
    return sections(facts(shown), complete)
