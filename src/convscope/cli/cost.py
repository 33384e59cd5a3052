"""``convscope cost``: the table of layers and the memory of a step; networks side by side; sweeps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from convscope.cli.cost_flags import GivenFlags, MoreOptions, Reading, RowOptions
from convscope.cli.options import Json, Network
from convscope.cli.plan import PlanOptions, TrainedNetworkOptions
from convscope.cli.show import draw, note, show
from convscope.cli.waiting import stop_waiting
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.cost import Cost, Refused, Selection, SideBySide, Sweep
    from convscope.networks import Loaded
    from convscope.tape import Tape, TrainingPlan

    Shown = Cost | Selection | SideBySide | Sweep


_STDOUT = "/dev/stdout"


def cost(
    network: Network,
    /,
    *others: Network,
    options: TrainedNetworkOptions = TrainedNetworkOptions(),
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
        gpu: Whose figures to use: an architecture such as sm80, or a GPU such as T4; sm90 if not given.
        real: Run the step for real on the CPU, for networks that decide by their data; give a small batch.
        sweep: Read at several values: batch=1:256 (doubling), batch=1,8,32, resolution=128,160,224 or
            width=0.25,0.5,1. For resolution, --input says how many channels images have.
        plot: Draw the sweep into this file: .html (opens offline), .svg or .png.
        csv: Write the table to this file; - for standard output, in place of the table.
    """
    reading: Reading = {"device": device, **({} if gpu is None else {"gpu": gpu})}
    if csv == _STDOUT:
        csv = "-"
    networks = (network, *others)
    GivenFlags(networks, rows, more, device, gpu, real, sweep, plot, csv, json).check()
    plan = step.plan(options)
    if sweep is not None:
        _sweep(network, options, sweep, plan, {**reading, "real": real}, plot, csv, json)
    elif others:
        _compare(networks, options, plan, {**reading, "real": real}, csv, json)
    else:
        rows.check()
        loaded = options.load(network)
        if real:
            found, tape = _real(network, loaded, plan, reading, more)
        else:
            found, tape = _read(network, loaded, plan, reading), None
        found = more.added(found, loaded, plan, reading, tape)
        _present(rows.select(found), csv, json, every_call=rows.all)
        if rows.selecting:
            for addition in (found.timings, found.explanation, found.verification):
                if addition is not None:
                    show(addition, as_json=False)


def _read(network: str, loaded: "Loaded", plan: "TrainingPlan | None", reading: Reading) -> "Cost":
    from convscope.cost import cost

    return replace(cost(loaded.model, loaded.inputs, plan=plan, **reading), network=network)


def _real(
    network: str, loaded: "Loaded", plan: "TrainingPlan | None", reading: Reading, more: MoreOptions
) -> "tuple[Cost, Tape | None]":
    """The reading of a step that ran for real, and, if it is to be measured, its recording as on the CPU."""
    from convscope.cost import cost_of
    from convscope.tape import record

    device, figures = reading["device"], {key: reading[key] for key in reading if key == "gpu"}
    tape = record(loaded.model, loaded.inputs, plan, device=device, real=True)
    found = cost_of(tape, plan, network=network, **figures)
    if more.measure and device != "cpu":  # real steps run on the CPU, with its operators
        tape = record(loaded.model, loaded.inputs, plan, device="cpu", real=True)
    return found, tape if more.measure else None


def _sweep(
    network: str,
    options: TrainedNetworkOptions,
    text: str,
    plan: "TrainingPlan | None",
    reading: Reading,
    plot: str | None,
    csv: str | None,
    json: bool,
) -> None:
    """Show the points that can be read, then name those that can't."""
    from convscope.cli.sweeping import swept
    from convscope.report.pages.sweep import check_format, write_plot

    if plot is not None:
        check_format(plot)  # before the work, not after it
    curve = replace(swept(network, options, text, plan, reading), network=network)
    if plot is not None:
        note(f"the plot is in {write_plot(curve, plot)}")
    _present(curve, csv, json)
    _name_refused("points", curve.refused, len(curve.points), csv)


def _compare(
    networks: tuple[str, ...],
    options: TrainedNetworkOptions,
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
    _name_refused("networks", found.refused, len(found.networks), csv)


def _name_refused(kind: str, refused: "Sequence[Refused]", num_read: int, csv: str | None) -> None:
    """Say that not everything could be read; a CSV has no place for the reasons."""
    if not refused:
        return
    if csv == "-":
        for each in refused:
            note(f"{each.name}: {each.reason}")
    raise ConvscopeError(
        f"{len(refused)} of {len(refused) + num_read} {kind} couldn't be read: "
        + ", ".join(each.name for each in refused),
        f"{kind} that can",
        "the reasons are above" if csv == "-" else "the reasons are in the result",
    )


def _present(result: "Shown", csv: str | None, json: bool, every_call: bool = False) -> None:
    if csv == "-":
        stop_waiting()
        print(result.to_csv(), end="")
        return
    if csv is not None:
        from convscope.core.files import whole_file

        with whole_file(csv) as temporary:
            temporary.write_text(result.to_csv(), encoding="utf-8", newline="")
        note(f"the table is in {Path(csv)}")
    if every_call and not json:
        from convscope.cost import Cost
        from convscope.report.terminal.cost import render_cost

        draw(render_cost(result, every_call=True) if isinstance(result, Cost) else result)
    else:
        show(result, as_json=json)
