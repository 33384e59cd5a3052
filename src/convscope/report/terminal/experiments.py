"""Experiments in the terminal before they are run: which there are, and what one of them lays down."""

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.report.terminal.tables import facts, label, sections, table, title
from convscope.report.wording.experiment_settings import listed
from convscope.train.comparing import Arm, Claim, Experiment, Registry
from convscope.train.comparing.table import NOT_OF_THE_ARM
from convscope.train.config import TrainConfig

_DEFAULTS = vars(TrainConfig())


@renders(Registry)
def render_registry(found: Registry) -> RenderableType:
    """Return a row for each experiment: its question and its size."""
    rows = [
        (each.name, each.question, each.table.data, f"{len(each.table.arms)} × {len(each.table.seeds)}")
        for each in found.experiments
    ]
    note = "convscope compare NAME --list shows a protocol, and --forecast what it would take"
    return sections(
        title(f"{len(rows)} experiments"),
        table(("Experiment", "Question", "Data", "Arms × seeds"), rows, note=note),
    )


@renders(Experiment)
def render_experiment(found: Experiment) -> RenderableType:
    """Return what an experiment lays down: protocol, arms, claims and published figures."""
    rows = [(arm.name, arm.network.split(":")[-1], listed(arm.options), _settings(arm))
            for arm in found.table.arms]  # fmt: skip
    return sections(
        title(f"{found.name}: {found.question}" if found.question else f"Table: {found.name}"),
        label(found.protocol) if found.protocol else None,
        table(("Arm", "Network", "Options", "Settings"), rows, note="Settings that aren't the defaults."),
        *map(_claim, found.claims),
        facts([("measured", f"{each.name}: {each.description}") for each in found.measures])
        if found.measures
        else None,
        facts(_facts(found)),
    )


def _claim(claim: Claim) -> RenderableType:
    measure = claim.measure
    against = ", ".join(measure.against) or f"{measure.reference:g}"
    reduced = f"{measure.reduce} of " if len({*measure.arms}) > 1 or len(measure.against) > 1 else ""
    margin = "" if measure.margin is None else f", margin {measure.margin:g}"
    judged = (
        f"{measure.quantity}, {measure.scale}, claimed {measure.direction}{margin}: "
        f"{reduced}{', '.join(measure.arms)}; against {against}"
    )
    rows = [("judged", judged)]
    if claim.published:
        rows.append(("published", f"{claim.published.figure} ({claim.published.source})"))
    if claim.concludes:
        rows.append(("concludes", claim.concludes))
    return Group(label(f"Claim: {claim.statement}", "bold"), facts(rows))


def _facts(found: Experiment) -> list[tuple[str, str]]:
    asked = found.table
    target = f"what {asked.base.name!r} reaches in half of its seeds"
    if asked.target is not None:
        target = f"{asked.target:g} of validation images wrong"
    return [
        ("data", asked.data),
        ("seeds", ", ".join(map(str, asked.seeds))),
        ("baseline", asked.base.name),
        ("target", target),
    ]


def _settings(arm: Arm) -> str:
    changed = {
        name: value
        for name, value in vars(arm.config).items()
        if value != _DEFAULTS[name] and name not in NOT_OF_THE_ARM
    }
    return listed(changed)
