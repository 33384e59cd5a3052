"""``convscope cost``: the table of layers and the memory of a step."""

from typing import Annotated

from cyclopts import Parameter

from convscope.cli.options import Json, Network, NetworkOptions
from convscope.cli.show import show


def cost(
    network: Network,
    /,
    *,
    options: NetworkOptions = NetworkOptions(),
    optimizer: str = "sgd-momentum",
    precision: str = "fp32",
    foreach: bool = True,
    inference: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Show what every layer costs: parameters, activations, FLOPs forward and backward, saved bytes, memory.

    Nothing is allocated: any batch size works on any machine.

    Args:
        optimizer: Of the training step: sgd, sgd-momentum, adam, adamw or rmsprop.
        precision: Of the training step: fp32 or bf16.
        foreach: The optimizer's kernels over many tensors, PyTorch's default on GPUs.
        inference: A forward pass without gradients in place of a training step.
    """
    from convscope.cost import cost as reading
    from convscope.tape import TrainingPlan

    plan = None if inference else TrainingPlan(optimizer, precision, foreach)  # type: ignore[arg-type]
    loaded = options.load(network)
    show(reading(loaded.model, loaded.inputs, plan=plan), as_json=json)
