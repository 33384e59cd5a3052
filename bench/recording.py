"""Recording a training step, against running the model's forward pass for real.

`record` with SGD-momentum at batch 8 of 3 × 224 × 224 (forward, loss, backward, optimizer on simulated
tensors), `cost` (the recording and the whole table), and the real forward pass of the same batch that
summaries such as torchinfo run. The recording doesn't grow with the batch; the forward pass does.
"""

import torch

from bench.clock import interleaved, markdown
from convscope.cost import cost
from convscope.networks import alexnet, zfnet
from convscope.tape import TrainingPlan, record


def table() -> str:
    """Return seconds and ratios for AlexNet and ZFNet."""
    rows = []
    for name, model, size in (("alexnet", alexnet(), 227), ("zfnet", zfnet(norm="batch"), 224)):
        shape = (8, 3, size, size)
        inputs = torch.randn(shape)

        def forward(model: torch.nn.Module = model, inputs: torch.Tensor = inputs) -> None:
            with torch.no_grad():
                model(inputs)

        seconds = interleaved(
            {
                "record": lambda model=model, shape=shape: record(model, shape, TrainingPlan()),
                "cost": lambda model=model, shape=shape: cost(model, shape),
                "forward": forward,
            },
            rounds=5,
        )
        ratio = seconds["cost"] / seconds["forward"]
        rows.append((name, f"{seconds['record']:.3f}", f"{seconds['cost']:.3f}", f"{ratio:.2f}"))
    return markdown(("network", "record (s)", "cost (s)", "cost / real forward pass"), rows)
