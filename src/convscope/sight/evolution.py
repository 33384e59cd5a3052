"""``Evolution``: what units look for, epoch by epoch, while a network trains.

Zeiler and Fergus showed the strongest image's projection of some units after epochs 1, 2, 5, 10, 20, 30, 40
and 64: lower layers settle within a few epochs, upper ones after 40 to 50, and sudden jumps come from another
image being the strongest.

Limits: a measured epoch costs about one pass over the images. Images must be the same at each reading: no
random augmentation. What happens between the chosen epochs isn't seen. Pictures are kept in full size: up to
0.45 MB for a unit and epoch where it sees 224 × 224 pixels.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.inference import outside_inference_mode
from convscope.core.lightning import callback_class
from convscope.sight.collecting.processes import Processes
from convscope.sight.evolving.look import Asked, checksum, look_at
from convscope.sight.evolving.moment import epochs_in, load_moment, save_moment
from convscope.sight.evolving.remarks import remarks
from convscope.sight.evolving.result import FeatureEvolution
from convscope.sight.evolving.settings import Settings, check_units, checked_epoch, checked_epochs
from convscope.sight.evolving.shared import lent_buffers, network_of
from convscope.sight.evolving.story import layer_story
from convscope.sight.images import ImageSource, Source, image_source
from convscope.sight.projecting.projection import Rule
from convscope.sight.projecting.rules import check_rule
from convscope.sight.undisturbed import undisturbed
from convscope.tape import device_of

PUBLISHED_EPOCHS = (1, 2, 5, 10, 20, 30, 40, 64)


class Evolution:
    """Looks at a network after chosen epochs of its training, and keeps what it sees in a folder.

    ``after_epoch(model, epoch)`` belongs after each epoch of any training loop; Lightning has
    :meth:`lightning_callback`. Training goes on as if it hadn't been called: weights, buffers, modes, hooks,
    gradients and random numbers are, bit for bit, what they were. Epochs that the folder has are kept, so a
    training that was killed and resumed goes on with the same ``Evolution``; a new training takes a new
    folder. Where ``torch.distributed`` is initialised every process makes the same calls, and the first one's
    folder counts; it lends the others its buffers (running statistics) for the look.

    Args:
        images: normalised for the network, the same at each reading; see
            :func:`~convscope.sight.gallery.gallery`. Zeiler and Fergus took the training set.
        layers: ``"all"`` convolutions, or names or addresses of some.
        units: how many units of a layer to show, evenly spaced over its channels, or which, by the layer's
            name; the same at every epoch. Dead units and responses are counted over all units.
        epochs: after which to look, from 1.
        out: the folder.
        rule: of the projections; None: one that suits the network.

    Raises:
        ConvscopeError: not images, epochs, units or a rule; a folder with other files, or of an evolution
            with other settings.

    Source: Zeiler and Fergus 2014 (arXiv 1311.2901), figure 4.

    Example:
        >>> import tempfile
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> evolution = Evolution(torch.rand(6, 3, 9, 9), units=2, epochs=(1, 3), out=tempfile.mkdtemp())
        >>> [evolution.after_epoch(net, epoch) for epoch in (1, 2, 3, 3)]
        [True, False, True, False]
        >>> found = evolution.result()
        >>> found.epochs, [unit.index for unit in found.layers[0].units], found.layers[0].alike
        ((1, 3), [0, 2], (1.0, 1.0))
    """

    def __init__(
        self,
        images: ImageSource | Source,
        layers: str | list[str] = "all",
        units: int | Mapping[str, Sequence[int]] = 4,
        epochs: Sequence[int] = PUBLISHED_EPOCHS,
        out: str | Path = "evolution/",
        rule: Rule | None = None,
    ) -> None:
        if rule is not None:
            check_rule(rule)
        check_units(units)
        self.epochs = checked_epochs(epochs)
        self.folder = Path(out)
        with undisturbed():
            self._asked = Asked(image_source(images), layers, units, rule)
            self._settings = Settings(self.folder, self._asked)
        self._failures: dict[int, str] = {}
        self._others: list[int] = []
        self._settings.check_folder()

    def after_epoch(self, model: nn.Module, epoch: int) -> bool:
        """Look at the network if the epoch is one of those chosen and not yet in the folder.

        Args:
            model: in whatever mode; a wrapper for several processes, or of ``torch.compile``, is taken off.
            epoch: finished epochs, from 1.

        Returns:
            Whether it looked.

        Raises:
            ConvscopeError: not a model, or not a number of finished epochs; at the first look, whatever
                doesn't fit. Later a failure shouldn't end a training of days: it is a warning, and the epoch
                is missing from the result, which says why.
        """
        epoch = checked_epoch(epoch)
        if epoch not in self.epochs:
            return False
        network = network_of(model)
        processes = Processes.current(torch.device(device_of(network)))
        known = processes.first(lambda: epochs_in(self.folder))
        if epoch in known:
            self._compare(network, epoch, processes)
            return False
        try:
            self._look(network, epoch, processes)
        except ConvscopeError as error:
            if not known:
                raise
            self._failures[epoch] = str(error)
            warnings.warn(f"feature evolution of epoch {epoch}: {error}", RuntimeWarning, stacklevel=2)
            return False
        return True

    def lightning_callback(self, network: str = "") -> Any:
        """Return a callback for Lightning's ``Trainer(callbacks=[...])``.

        Args:
            network: path of the network inside the LightningModule, such as ``"model"``; empty: the module
                itself, whose ``forward`` must then take images alone.

        Raises:
            ConvscopeError: Lightning isn't installed.
        """
        evolution, base = self, callback_class("its after_epoch in your own loop")

        class Look(base):  # type: ignore[misc,valid-type]
            """Looks after each epoch of a fit."""

            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                """Look at the network."""
                evolution.after_epoch(pl_module.get_submodule(network), trainer.current_epoch + 1)

        return Look()

    def result(self, threshold: float = 0.9) -> FeatureEvolution:
        """Return what has been seen so far, and write a strip of pictures for each layer into the folder.

        In a run of several processes, ask the first one.

        Args:
            threshold: how alike an epoch's features must be to the last one's to count as converged; see
                :mod:`convscope.sight.evolving.convergence`.

        Raises:
            ConvscopeError: nothing has been seen yet, the epochs are of different networks, a file in the
                folder is damaged, or the strips can't be written.
        """
        if not isinstance(threshold, int | float) or not 0 < threshold <= 1:
            raise ConvscopeError(f"threshold={threshold!r}", "a number above 0, up to 1", "0.9 is usual")
        moments = [load_moment(self.folder, epoch) for epoch in epochs_in(self.folder)]
        if not moments:
            raise ConvscopeError(
                f"no epoch in {str(self.folder)!r}", "at least one", "call after_epoch at a chosen epoch"
            )
        _check_one_network(moments, self.folder)
        numbers, last = range(len(moments[-1].layers)), moments[-1]
        seen = tuple(moment.epoch for moment in moments)
        missing = tuple(sorted({each for each in self.epochs if each < seen[-1]} | {*self._failures}))
        missing = tuple(epoch for epoch in missing if epoch not in seen)
        layers = tuple(layer_story(moments, number, threshold, self.folder) for number in numbers)
        return FeatureEvolution(
            epochs=seen,
            missing=missing,
            num_images=last.num_images,
            num_damaged=last.damaged,
            threshold=float(threshold),
            rule=last.rule,
            rule_reason=last.rule_reason,
            layers=layers,
            left_out=last.left_out,
            folder=str(self.folder),
            findings=remarks(
                layers, moments, {each: self._failures.get(each, "") for each in missing}, self._others
            ),
        )

    def _look(self, network: nn.Module, epoch: int, processes: Processes) -> None:
        kind = torch.device(device_of(network)).type
        with (
            outside_inference_mode(),
            torch.autocast(kind, enabled=False),
            undisturbed(),
            lent_buffers(network, processes),
        ):
            moment = look_at(network, self._asked, epoch)

        def keep() -> None:
            self._settings.keep()
            save_moment(moment, self.folder)

        processes.first(keep)

    def _compare(self, network: nn.Module, epoch: int, processes: Processes) -> None:
        """Take note if the epoch that is kept was another training's."""
        if processes.rank == 0 and load_moment(self.folder, epoch).weights != checksum(network):
            self._others.append(epoch)


def _check_one_network(moments: Sequence[Any], folder: Path) -> None:
    shapes = [
        [(layer.unit_address, layer.num_units, list(layer.units)) for layer in moment.layers]
        for moment in moments
    ]
    for moment, shape in zip(moments, shapes):
        if shape != shapes[-1]:
            raise ConvscopeError(
                f"epochs {moment.epoch} and {moments[-1].epoch} in {str(folder)!r}, of different layers",
                "one network throughout", "take a new folder for a new network",
            )  # fmt: skip
