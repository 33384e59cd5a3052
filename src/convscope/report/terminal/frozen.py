"""Which layers were frozen, and how they were, in the terminal."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.norm.freezing.result import Frozen, FrozenLayer
from convscope.report.terminal.tables import facts, sections, table, title
from convscope.report.wording.formats import counted, exact, joined

_COLUMNS = ("Layer", "Class", "Channels#", "Mode before", "Gamma trained", "Beta trained")


@renders(Frozen)
def render_frozen(frozen: Frozen) -> RenderableType:
    """Return the layers that were frozen, and what else there was."""
    others = (
        ("frozen before", joined(frozen.already)),
        ("left as they are: running statistics of their own", joined(frozen.left)),
    )
    shown = [(name, paths) for name, paths in others if paths]
    return sections(
        title(_summary(frozen)),
        table(_COLUMNS, map(_row, frozen.layers)) if frozen.layers else None,
        facts(shown) if shown else None,
    )


def _summary(frozen: Frozen) -> str:
    if not frozen.layers:
        known = "no layer with running statistics that is PyTorch's or built on one"
        return "nothing to freeze" if frozen.already else f"nothing to freeze: {known}"
    affine = "gamma and beta don't train" if frozen.affine else "gamma and beta as they were"
    return f"{counted(len(frozen.layers), 'layers')} frozen: running statistics are used, {affine}"


def _row(layer: FrozenLayer) -> tuple[object, ...]:
    return (
        layer.path or "(the network itself)",
        layer.layer,
        exact(layer.num_features),
        "training" if layer.was_training else "evaluation",
        _trained(layer.weight_trained),
        _trained(layer.bias_trained),
    )


def _trained(trained: bool | None) -> str:
    return "–" if trained is None else "yes" if trained else "no"
