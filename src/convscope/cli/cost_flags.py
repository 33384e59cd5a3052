"""Flags of ``convscope cost``: what is added to a reading, which rows are shown, and what goes together."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.cost import Cost, Selection
    from convscope.networks import Loaded
    from convscope.tape import Tape, TrainingPlan

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

    def added(
        self,
        cost: "Cost",
        loaded: "Loaded",
        plan: "TrainingPlan | None",
        reading: Reading,
        tape: "Tape | None" = None,
    ) -> "Cost":
        """Return the reading with what the flags ask for.

        Args:
            cost: the reading.
            loaded: the network and its inputs.
            plan: the training step; None for inference.
            reading: keywords of the reading.
            tape: a recording of the step as it runs on the CPU, if there is one.
        """
        from convscope.cost import explain, measure, verify

        model, inputs, device, name = loaded.model, loaded.inputs, reading["device"], cost.network
        where = {key: reading[key] for key in ("device", "gpu") if key in reading}
        if self.verify:
            cost = replace(cost, verification=replace(verify(model, inputs, plan, device), network=name))
        if self.measure:
            cost = replace(cost, timings=replace(measure(model, inputs, plan, tape), network=name))
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
    only: Annotated[list[str] | None, Parameter(negative="", metavar="STR")] = None
    sort: str | None = None
    top: int | None = None
    all: Annotated[bool, Parameter(negative="")] = False

    @property
    def given(self) -> list[str]:
        """The flags that were given."""
        return [f"--{name}" for name, value in vars(self).items() if value is not None and value is not False]

    @property
    def selecting(self) -> list[str]:
        """Those that leave a part of the table, without the rest of the reading."""
        return [flag for flag in self.given if flag != "--all"]

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
        if not self.selecting:
            return cost
        selection = cost.where(*self.only) if self.only else cost.select()
        if self.depth is not None:
            selection = selection.rolled_up(self.depth)
        if self.sort is not None:
            selection = selection.sorted_by(self.sort)
        return selection if self.top is None else selection.top(self.top)


@dataclass(frozen=True)
class GivenFlags:
    """What was given on the command line, to see whether it goes together.

    Attributes:
        networks: all of them.
        rows, more: the flags of :class:`RowOptions` and :class:`MoreOptions`.
        device, gpu, real, sweep, plot, csv, json: each flag's value.
    """

    networks: tuple[str, ...]
    rows: RowOptions
    more: MoreOptions
    device: str
    gpu: str | None
    real: bool
    sweep: str | None
    plot: str | None
    csv: str | None
    json: bool

    def check(self) -> None:
        """Refuse flags that say nothing together.

        Raises:
            ConvscopeError: the first two that clash; a network is named twice, or ``csv`` names no file.
        """
        for name in self.networks:
            if self.networks.count(name) > 1:
                raise ConvscopeError(f"network {name!r} twice", "networks that differ", "name each one once")
        if self.csv is not None and self.csv != "-" and (not self.csv or self.csv.startswith("-")):
            raise ConvscopeError(f"--csv {self.csv!r}", "a file, or - for standard output", "name a file")
        for wrong, given, action in (*self._subjects(), *self._readings(), *self._outputs()):
            if wrong:
                raise ConvscopeError(given, "flags that go together", action)

    def _subjects(self) -> tuple[tuple[bool, str, str], ...]:
        """Clashes of several networks and of sweeps."""
        rows, more = ", ".join(self.rows.given), ", ".join(self.more.given)
        several, swept = len(self.networks) > 1, self.sweep is not None
        return (
            (several and swept, "--sweep with several networks", "sweep one network at a time"),
            (self.plot is not None and not swept, "--plot without --sweep", "add --sweep, as batch=1:256"),
            (several and bool(more), f"{more} with several networks", "ask for one network"),
            (several and bool(rows), f"{rows} with several networks", "ask for one network's table"),
            (swept and bool(more), f"{more} with --sweep", "leave one of them out"),
            (swept and bool(rows), f"{rows} with --sweep", "leave it out"),
        )

    def _readings(self) -> tuple[tuple[bool, str, str], ...]:
        """Clashes of what is read."""
        return (
            (
                self.device == "cpu" and self.gpu is not None,
                f"--device cpu with --gpu {self.gpu}",
                "leave one of them out",
            ),
            (
                self.real and self.more.explain,
                "--real with --explain",
                "leave one of them out: its changes are tried on simulated tensors",
            ),
            (
                self.real and self.more.verify,
                "--real with --verify",
                "leave one of them out: the forecast that it checks is of simulated tensors",
            ),
        )

    def _outputs(self) -> tuple[tuple[bool, str, str], ...]:
        """Clashes of what is shown and where."""
        parts, more = self.rows.selecting, self.more.given
        alone = self.csv == "-"
        return (
            (
                "--all" in self.rows.given and "--depth" in parts,
                "--all with --depth",
                "leave one of them out",
            ),
            (alone and self.json, "--csv - with --json", "leave one of them out"),
            (
                bool(more and parts) and (self.json or alone),
                f"{', '.join(more + parts)} in one file",
                "leave some out",
            ),
            (
                self.more.measure and bool(parts) and self.csv is not None,
                f"--measure and {', '.join(parts)} with --csv",
                "leave one of them out: a part of the table has no times",
            ),
        )
