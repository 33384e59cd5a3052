"""Whole training runs, beside a plain accelerate script and Lightning's Trainer.

ResNet-18 (torchvision), two epochs on 1,920 ``photos`` of 96 × 96 pixels, opened, mirrored and shifted by the
same code, 128 for validation, batches of 32, SGD with momentum and weight decay, one thread, no loading
processes. The runs take turns, in one process; the numbers are ratios of times within a turn, ours over
theirs, median and range of five turns, and images a second, training, evaluation and files included.

Each logs and saves as it does by default. Ours: a log line for each step, a checkpoint (weights, optimizer)
after each epoch, the best and the final weights, percentiles of the layers. The accelerate script: it prints
the loss of every tenth step and saves its state after each epoch. Lightning: CSV every fifty steps, two
batches of validation first, a checkpoint after each epoch that replaces the last; its progress bar is off.
Theirs take ``torch.optim.SGD`` as it comes, ours PyTorch's fused one, which saves most of the optimizer's
time on a CPU; so accelerate's script runs with it, too. Ours also has the C library keep freed memory
(``core.allocator``); so there is a row of ours without that.
"""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench.clock import markdown
from bench.training import (
    BATCH,
    SGD,
    Seconds,
    Sets,
    Varied,
    few_photos,
    network,
    now,
    our_run,
    since,
    spread,
)

TURNS, EPOCHS, NUM_TRAIN, NUM_VALIDATION = 5, 2, 1920, 128


def table() -> str:
    """Return the ratios for both peers."""
    sets = few_photos(NUM_TRAIN, NUM_VALIDATION)
    ours = partial(our_run, epochs=EPOCHS, augment="shift")
    runs: dict[str, Callable[[Sets], object]] = {
        "ours": ours,
        "ours, freed memory given back": partial(_given_back, ours),
        "accelerate": accelerate_script,
        "accelerate, fused": partial(accelerate_script, fused=True),
        "Lightning": lightning_trainer,
    }
    warm = few_photos(2 * BATCH, BATCH)
    for run in runs.values():  # what is imported at the first run isn't measured
        run(warm)
    taken: dict[str, list[Seconds]] = {name: [] for name in runs}
    for turn in range(TURNS):
        for name in runs if turn % 2 else reversed(runs):
            taken[name].append(_timed(runs[name], sets))
    rows: list[tuple[str, ...]] = []
    for name, theirs in taken.items():
        speed = EPOCHS * NUM_TRAIN / median(wall for wall, _ in theirs)
        pairs = list(zip(taken["ours"], theirs, strict=True))
        ratios = ([ours[kind] / their[kind] for ours, their in pairs] for kind in (1, 0))
        rows.append((name, f"{speed:.1f}", *map(spread, ratios)))
    return markdown(("run", "images a second", "processor time", "time"), rows)


def _given_back(run: Callable[[Sets], object], sets: Sets) -> None:
    """Run with an environment that settles what the C library does, as it does by itself."""
    os.environ["MALLOC_TRIM_THRESHOLD_"] = "read at the start of a process, so without effect here"
    try:
        run(sets)
    finally:
        del os.environ["MALLOC_TRIM_THRESHOLD_"]


def _timed(run: Callable[[Sets], object], sets: Sets) -> Seconds:
    began = now()
    run(sets)
    return since(began)


def _loaders(sets: Sets) -> tuple[DataLoader[Any], DataLoader[Any]]:
    return DataLoader(Varied(sets.train), BATCH, shuffle=True), DataLoader(sets.validation, BATCH)


def accelerate_script(sets: Sets, *, fused: bool | None = None) -> None:
    """Train as accelerate's documentation has it."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        accelerator, model = Accelerator(cpu=True), network()
        optimizer = torch.optim.SGD(model.parameters(), **SGD, fused=fused)
        model, optimizer, training, validation = accelerator.prepare(model, optimizer, *_loaders(sets))
        for epoch in range(EPOCHS):
            model.train()
            for step, (images, labels) in enumerate(training):
                loss = F.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                if step % 10 == 0:
                    print(epoch, step, loss.item())
            _evaluate(accelerator, model, validation)
            accelerator.save_state(f"{folder}/{epoch}")
        accelerator.end_training()
        AcceleratorState._reset_state(reset_partial_state=True)


def _evaluate(accelerator: Any, model: nn.Module, validation: Any) -> None:
    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in validation:
            found, labels = accelerator.gather_for_metrics((model(images).argmax(1), labels))
            right += int((found == labels).sum())
    print(right)


def lightning_trainer(sets: Sets) -> None:
    """Train with Lightning's Trainer as it comes."""
    import pytorch_lightning as lightning

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
            self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), **SGD)

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=EPOCHS, accelerator="cpu", default_root_dir=folder, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Classifier(), *_loaders(sets))
