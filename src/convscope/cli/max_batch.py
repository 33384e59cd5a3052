"""``convscope max-batch``: the largest batch that fits into a device's memory."""

from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from convscope.cli.options import Json, Network
from convscope.cli.plan import PlanOptions, TrainedNetworkOptions
from convscope.cli.show import show
from convscope.core.errors import ConvscopeError


@Parameter(name="*")
@dataclass(frozen=True)
class AnyBatchOptions(TrainedNetworkOptions):
    """How the network is built and fed, at any batch."""

    batch: Annotated[int | None, Parameter(show=False)] = None


def max_batch(
    network: Network,
    /,
    *,
    memory: Annotated[str, Parameter(allow_leading_hyphen=True)],
    options: AnyBatchOptions = AnyBatchOptions(),
    step: PlanOptions = PlanOptions(),
    device: str = "cuda",
    gpu: str = "sm90",
    most: Annotated[int, Parameter(name="--most")] = 65536,
    json: Json = False,
) -> None:
    """Find the largest batch that fits: safe, likely and optimistic, and what binds.

    Exit code 1: no batch fits under the likely answer.

    Nothing is allocated, and no GPU is needed.

    Args:
        memory: How much the device has, such as 24GiB; subtract what others use of it.
        device: Whose memory rules to follow: cuda or cpu.
        gpu: Architecture or model, such as sm80 or T4.
        most: Larger batches aren't tried.
    """
    if options.batch is not None:
        raise ConvscopeError(
            f"--batch {options.batch}",
            "none: the batch is what is sought",
            "leave it out, or limit it by --most",
        )
    from convscope.cost.batch.largest import largest_batch

    plan = step.plan(options)
    loaded = options.load(network)
    found = largest_batch(
        loaded.model,
        loaded.inputs,
        memory,
        plan,
        device=device,  # type: ignore[arg-type]
        gpu=gpu,
        max_batch=most,
    )
    show(replace(found, network=network), as_json=json)
    if not found.fits:
        raise SystemExit(1)
