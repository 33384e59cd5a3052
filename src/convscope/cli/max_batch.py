"""``convscope max-batch``: the largest batch that fits into a device's memory."""

from typing import Annotated

from cyclopts import Parameter

from convscope.cli.options import Json, Network, NetworkOptions
from convscope.cli.plan import PlanOptions
from convscope.cli.show import show


def max_batch(
    network: Network,
    /,
    *,
    memory: Annotated[str, Parameter(allow_leading_hyphen=True)],
    options: NetworkOptions = NetworkOptions(),
    step: PlanOptions = PlanOptions(),
    device: str = "cuda",
    gpu: str = "sm90",
    most: Annotated[int, Parameter(name="--most")] = 65536,
    json: Json = False,
) -> None:
    """Find the largest batch that fits: safe, likely and optimistic, and what binds. Exit code 1: none fits.

    Nothing is allocated, and no GPU is needed. --batch has no effect.

    Args:
        memory: Of the device, such as 24GiB; subtract what others use of it.
        device: Whose memory rules to follow: cuda or cpu.
        gpu: Architecture or model, such as sm80 or T4.
        most: Larger batches aren't tried.
    """
    from dataclasses import replace

    from convscope.cost.batch.largest import largest_batch

    plan = step.plan()
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
    if not found.likely.batch:
        raise SystemExit(1)
