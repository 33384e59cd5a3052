"""Feature evolutions in the terminal."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.report.terminal.tables import facts, findings_by_kind, sections, table, title
from convscope.report.wording.formats import counted, joined, write
from convscope.sight import FeatureEvolution
from convscope.sight.evolving.result import EvolvingLayer


@renders(FeatureEvolution)
def render_evolution(evolution: FeatureEvolution) -> RenderableType:
    """Return a line for every layer: dead units, likeness to the last epoch, convergence, jumps."""
    shown = [
        ("rule", f"{evolution.rule}: {evolution.rule_reason}"),
        ("converged", f"from then on at least {evolution.threshold:g} like epoch {evolution.epochs[-1]}"),
        ("folder", evolution.folder),
        *(("damaged images", str(evolution.num_damaged)) for _ in range(bool(evolution.num_damaged))),
        *(("left out", reason) for reason in evolution.left_out),
        *(
            ("not projected", f"{each.name}: {each.not_projected}")
            for each in evolution.layers
            if each.not_projected
        ),
    ]
    columns = (
        "Layer", "Units#", "Dead", "Projections alike", "Converged#", "Responses alike", "Converged#",
        "Jumps#", "Strip",
    )  # fmt: skip
    images = counted(evolution.num_images, "images")
    return sections(
        title(f"Features after epochs {joined(evolution.epochs)}, over {images}"),
        facts(shown),
        table(
            columns, map(_layer, evolution.layers), note="epoch by epoch; – where there is nothing to compare"
        ),
        findings_by_kind(evolution.findings),
    )


def _layer(layer: EvolvingLayer) -> tuple[object, ...]:
    return (
        layer.name,
        layer.num_units,
        " ".join(map(str, layer.num_dead)),
        _series(layer.alike),
        _epoch(layer.converged),
        _series(layer.response),
        _epoch(layer.response_converged),
        sum(len(unit.jumps) for unit in layer.units),
        layer.strip,
    )


def _series(values: tuple[float | None, ...]) -> str:
    return " ".join("–" if value is None else f"{value:.2f}" for value in values)


def _epoch(epoch: int | None) -> str:
    return write("number", epoch)
