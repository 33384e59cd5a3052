"""``convscope cost``: the table of layers and the memory of a step; networks side by side; sweeps."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from convscope.cli.options import Json, Network, NetworkOptions
from convscope.cli.plan import PlanOptions
from convscope.cli.show import note, show
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.cost import Cost, Selection, SideBySide, Sweep
    from convscope.networks import Loaded
    from convscope.tape import TrainingPlan

    Shown = Cost | Selection | SideBySide | Sweep


Reading = dict[str, Any]
"""Keywords of the cost reading."""


@Parameter(name="*")
@dataclass(frozen=True)
class MoreOptions:
    """What is added to the reading of one network.

    Attributes:
        measure: Run real steps on this machine, and show each row's time beside its FLOPs.
        explain: Try what would lower the peak of memory, each change simulated anew.
        verify: Run real steps on --device, and show their memory beside the forecast.
    """

    measure: Annotated[bool, Parameter(negative="")] = False
    explain: Annotated[bool, Parameter(negative="")] = False
    verify: Annotated[bool, Parameter(negative="")] = False

    @property
    def given(self) -> list[str]:
        """The flags that were given."""
        return [f"--{name}" for name, value in vars(self).items() if value]

    def added(self, cost: "Cost", loaded: "Loaded", plan: "TrainingPlan | None", reading: Reading) -> "Cost":
        """Return the reading with what the flags ask for."""
        from convscope.cost import explain, measure, verify

        model, inputs, device, name = loaded.model, loaded.inputs, reading["device"], cost.network
        where = {key: reading[key] for key in ("device", "gpu") if key in reading}
        if self.verify:
            cost = replace(cost, verification=replace(verify(model, inputs, plan, device), network=name))
        if self.measure:
            cost = replace(cost, timings=replace(measure(model, inputs, plan), network=name))
        if self.explain:
            cost = replace(cost, explanation=replace(explain(model, inputs, plan, **where), network=name))
        return cost


@Parameter(name="*")
@dataclass(frozen=True)
class RowOptions:
    """Which rows of the table are shown; sums are always the whole network's too.

    Attributes:
        depth: Sum the rows per module to this depth: 0 is the network, 1 its children, ….
        only: Rows that match: an operator, a class, a path or a module around it, such as convolution,
            Conv2d, 'layer3.*'. Several times: any of them.
        sort: Largest first in this column: macs, params, saved_bytes, ….
        top: So many rows.
        all: Every call's row; long tables are rolled up otherwise.
    """

    depth: int | None = None
    only: Annotated[list[str] | None, Parameter(negative="")] = None
    sort: str | None = None
    top: int | None = None
    all: Annotated[bool, Parameter(negative="")] = False

    @property
    def given(self) -> list[str]:
        """The flags that were given."""
        return [f"--{name}" for name, value in vars(self).items() if value is not None and value is not False]

    def check(self) -> None:
        """Refuse a column that doesn't exist before the work, not after it.

        Raises:
            ConvscopeError: there is no column ``sort``.
        """
        from convscope.cost.views.columns import column

        if self.sort is not None:
            column(self.sort)

    def select(self, cost: "Cost") -> "Cost | Selection":
        """Return the reading as it is, or what the flags leave of its table."""
        if not self.given:
            return cost
        selection = cost.where(*self.only) if self.only else cost.select()
        if self.depth is not None:
            selection = selection.rolled_up(self.depth)
        if self.sort is not None:
            selection = selection.sorted_by(self.sort)
        return selection if self.top is None else selection.top(self.top)


def cost(
    network: Network,
    /,
    *others: Network,
    options: NetworkOptions = NetworkOptions(),
    step: PlanOptions = PlanOptions(),
    rows: RowOptions = RowOptions(),
    more: MoreOptions = MoreOptions(),
    device: str = "cuda",
    gpu: str | None = None,
    real: Annotated[bool, Parameter(negative="")] = False,
    sweep: str | None = None,
    plot: str | None = None,
    csv: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    json: Json = False,
) -> None:
    """Show what every layer costs: parameters, activations, FLOPs forward and backward, saved bytes, memory.

    Nothing is allocated: any batch size works on any machine (but for --measure, --verify and --real).

    Args:
        device: Whose memory rules to follow: cuda or cpu.
        gpu: Whose figures to use: an architecture such as sm80, or a GPU such as T4 or RTX4090.
        real: Run the step for real on the CPU, for networks that decide by their data; give a small batch.
        sweep: Read at several values: batch=1:256 (doubling), batch=1,8,32, resolution=128,160,224 or
            width=0.25,0.5,1.
        plot: Draw the sweep into this file: .html (opens offline), .svg or .png.
        csv: Write the table to this file; - for standard output, in place of the table.
    """
    reading: Reading = {"device": device, **({} if gpu is None else {"gpu": gpu})}
    if real:
        reading["real"] = True
    several = bool(others)
    _check_flags(
        several=several, sweep=sweep, plot=plot, csv=csv, json=json, rows=rows.given, more=more.given
    )
    plan = step.plan()
    if sweep is not None:
        from convscope.cli.sweeping import swept
        from convscope.report.plot import check_format, write_plot

        if plot is not None:
            check_format(plot)  # before the work, not after it
        curve = replace(swept(network, options, sweep, plan, reading), network=network)
        if plot is not None:
            note(f"the plot is in {write_plot(curve, plot)}")
        _present(curve, csv, json)
    elif several:
        _compare((network, *others), options, plan, reading, csv, json)
    else:
        rows.check()
        loaded = options.load(network)
        found = more.added(_read(network, loaded, plan, reading), loaded, plan, reading)
        _present(rows.select(found), csv, json)
        if rows.given:
            for addition in (found.timings, found.explanation, found.verification):
                if addition is not None:
                    show(addition, as_json=False)


def _read(network: str, loaded: "Loaded", plan: "TrainingPlan | None", reading: Reading) -> "Cost":
    from convscope.cost import cost

    return replace(cost(loaded.model, loaded.inputs, plan=plan, **reading), network=network)


def _compare(
    networks: tuple[str, ...],
    options: NetworkOptions,
    plan: "TrainingPlan | None",
    reading: Reading,
    csv: str | None,
    json: bool,
) -> None:
    """Show what can be read, then name what can't."""
    from convscope.cost import side_by_side

    costs: dict[str, Cost | ConvscopeError] = {}
    for network in networks:
        try:
            costs[network] = _read(network, options.load(network), plan, reading)
        except ConvscopeError as error:
            costs[network] = error
    found = side_by_side(costs)
    _present(found, csv, json)
    if found.refused:
        raise ConvscopeError(
            f"{len(found.refused)} of {len(costs)} networks couldn't be read: "
            + ", ".join(each.name for each in found.refused),
            "networks that can",
            "the reasons are in the result",
        )


def _present(result: "Shown", csv: str | None, json: bool) -> None:
    if csv == "-":
        print(result.to_csv(), end="")
        return
    if csv is not None:
        from convscope.core.files import whole_file

        with whole_file(csv) as temporary:
            temporary.write_text(result.to_csv(), encoding="utf-8", newline="")
        note(f"the table is in {Path(csv)}")
    show(result, as_json=json)


def _check_flags(
    *,
    several: bool,
    sweep: str | None,
    plot: str | None,
    csv: str | None,
    json: bool,
    rows: list[str],
    more: list[str],
) -> None:
    """Refuse flags that say nothing together."""
    clashes = (
        (several and sweep is not None, "--sweep with several networks", "sweep one network at a time"),
        (plot is not None and sweep is None, "--plot without --sweep", "add --sweep, such as batch=1:256"),
        (csv not in (None, "-") and str(csv).startswith("-"), f"--csv {csv}", "give a file, or - alone"),
        (csv == "-" and json, "--csv - with --json", "leave one of them out"),
        (bool(more) and several, f"{', '.join(more)} with several networks", "ask for one network"),
        (bool(more) and sweep is not None, f"{', '.join(more)} with --sweep", "leave one of them out"),
        (
            bool(more and rows) and (json or csv == "-"),
            f"{', '.join(more + rows)} in one file",
            "leave some out",
        ),
        (bool(rows) and several, f"{', '.join(rows)} with several networks", "ask for one network's table"),
        (bool(rows) and sweep is not None, f"{', '.join(rows)} with --sweep", "leave it out"),
        ("--all" in rows and "--depth" in rows, "--all with --depth", "leave one of them out"),
    )
    for wrong, given, action in clashes:
        if wrong:
            raise ConvscopeError(given, "flags that go together", action)
