"""A tiny network and data set with every kind of randomness, and a script that trains them."""

import json
import os
import random
import signal
import sys
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

import convscope as cs
from convscope.train import NoProgress, Run

SETTINGS = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05, "checkpoint_every": 2, "log_every": 3}


class RandomImages:
    """Blobs whose class is their sign pattern, with noise from all three global generators."""

    def __init__(self, num_images: int, classes: int = 3, noisy: bool = True) -> None:
        generator = torch.Generator().manual_seed(num_images)
        self.labels = torch.randint(classes, (num_images,), generator=generator).tolist()
        self.images = torch.randn(num_images, 2, 6, 5, generator=generator)
        for image, label in zip(self.images, self.labels):
            image[0, label] += 3
        self.noisy = noisy
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.seen.append(index)
        image = self.images[index]
        if self.noisy:
            image = image + 0.1 * torch.randn(image.shape) + float(np.random.rand()) + random.random()
        return image, self.labels[index]


@dataclass
class ToyData:
    train: RandomImages = field(default_factory=lambda: RandomImages(42))
    validation: RandomImages = field(default_factory=lambda: RandomImages(17))
    classes: tuple[str, ...] = ("a", "b", "c")
    name: str = "toy"
    mirrors: bool = True


def toy_model(scores: int = 3, norm: bool = True, dropout: float = 0.2) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.BatchNorm2d(4) if norm else nn.GroupNorm(2, 4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(4 * 4 * 3, scores),
        )


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


class StopAt(NoProgress):
    """Raises after a step, as an interruption would."""

    def __init__(self, at: int) -> None:
        self.at, self.stopped = at, 0

    def step(self, pulse) -> None:
        if pulse.step == self.at:
            raise KeyboardInterrupt

    def stop(self) -> None:
        self.stopped += 1


def without_times(run: Run) -> dict[str, object]:
    """Return what a run tells, but for its times."""
    told = json.loads(run.to_json())
    for record in told["epochs"]:
        del record["seconds"], record["images_per_second"]
    kept = ("epochs", "steps", "diverged", "classes", "data", "network")
    return {name: told[name] for name in kept}


class _KillAt(NoProgress):
    """Kills its own process, without any clean-up, once a step is done."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, pulse) -> None:
        if pulse.step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    arguments = json.loads(sys.argv[1])
    kill_at = arguments.pop("kill_at", None)
    model = toy_model(dropout=arguments.pop("dropout", 0.2))
    cs.train(model, ToyData(), progress=_KillAt(kill_at) if kill_at else None, **arguments)
