"""``convscope gate``: whether a network keeps to limits; for CI."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from convscope.cli.options import Json, Network
from convscope.cli.plan import PlanOptions, TrainedNetworkOptions
from convscope.cli.show import note, show
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.gate import Gate, Limits
    from convscope.networks import Loaded

_BATCH = 32
_SEED = 0


@Parameter(name="*")
@dataclass(frozen=True)
class LimitOptions:
    """What the network must keep to; at least one.

    Attributes:
        max_memory: The device that a training step (--inference: a forward pass) has to fit into, such as
            24GiB, with the largest workspaces, the CUDA context and a margin.
        max_flops: FLOPs of the forward pass of the batch, two for each multiply–accumulate, such as 5G.
        max_macs: Multiply–accumulates of the forward pass of the batch, such as 2.5G.
        max_params: Parameters, tied ones once, such as 30M.
        no_fault: Findings of the check-up that are as bad as this or worse fail: error, warning or advice.
        allow: A fault that doesn't count, by its name, or unmeasured-gap: data whose gap can't be measured.
            Several times: all of them.
        max_unfolded: Batch norms that may be left when the network is folded, such as 0.
    """

    max_memory: str | None = None
    max_flops: str | None = None
    max_macs: str | None = None
    max_params: str | None = None
    no_fault: Literal["error", "warning", "advice"] | None = None
    allow: Annotated[list[str] | None, Parameter(negative="", metavar="FAULT")] = None
    max_unfolded: int | None = None

    def limits(self) -> "Limits":
        """Return the limits.

        Raises:
            ConvscopeError: one isn't a limit.
        """
        from convscope.gate import Limits

        return Limits(
            memory=self.max_memory,
            params=self.max_params,
            macs=self.max_macs,
            flops=self.max_flops,
            fault=self.no_fault,
            allowed=tuple(self.allow or ()),
            unfolded=self.max_unfolded,
        )


def gate(
    network: Network,
    /,
    *,
    limits: LimitOptions = LimitOptions(),
    options: TrainedNetworkOptions = TrainedNetworkOptions(),
    step: PlanOptions = PlanOptions(),
    device: Literal["cuda", "cpu"] = "cuda",
    gpu: str = "sm90",
    data: str | None = None,
    max_batches: int | None = None,
    junit: Annotated[str | None, Parameter(metavar="FILE")] = None,
    json: Json = False,
) -> None:
    """Say whether a network keeps to limits. Exit code 0: to all; 1: not; 2: it couldn't be told.

    Args:
        device: Whose memory rules to follow: cuda or cpu. No GPU is needed.
        gpu: Whose figures to use: an architecture such as sm80, or a GPU such as T4.
        data: With --no-fault: what running statistics are compared with, as convscope checkup takes it.
        max_batches: Batches of the data to read; all without it.
        junit: Write the checks as JUnit's XML into this file, which CI services show.
    """
    import torch

    from convscope.gate import gate as read

    asked = limits.limits()
    if asked.is_empty:
        raise ConvscopeError(
            "a gate without limits", "at least one", "give one, such as --max-memory 24GiB (see --help)"
        )
    if data is not None and asked.fault is None:
        raise ConvscopeError("--data without --no-fault", "flags that go together", "add --no-fault error")
    plan = step.plan(options)
    torch.manual_seed(_SEED)  # weights that aren't loaded are the same each time
    needs_modules = asked.fault is not None or asked.unfolded is not None
    loaded = (options.load_modules if needs_modules else options.load)(network)
    reading: dict[str, Any] = {"plan": plan, "device": device, "gpu": gpu, "limits": asked}
    if asked.fault is not None:
        found = _with_checkup(loaded, data, options.batch, max_batches, reading)
    else:
        found = read(loaded.model, loaded.inputs, **reading)
    found = replace(found, network=network, weights=loaded.weights)
    if junit is not None:
        _write(junit, found.to_junit())
    show(found, as_json=json)
    if not found.passed:
        raise SystemExit(1)


def _with_checkup(
    loaded: "Loaded", data: str | None, batch: int | None, max_batches: int | None, reading: dict[str, Any]
) -> "Gate":
    """Read with the data, if there is any, and a bar."""
    from convscope.checkup import CheckupPlan
    from convscope.cli.checkup_images import checkup_images
    from convscope.cli.images import NormalisationOptions
    from convscope.cli.progress import CheckupBar
    from convscope.gate import gate as read

    images = None
    if data is not None:
        images = checkup_images(loaded, data, batch or _BATCH, NormalisationOptions()).data
    with CheckupBar() as bar:
        plan = CheckupPlan(max_batches=max_batches, progress=bar)
        return read(loaded.model, loaded.inputs, data=images, checkup_plan=plan, **reading)


def _write(path: str, text: str) -> None:
    from convscope.core.files import whole_file

    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    note(f"the checks are in {path}")
