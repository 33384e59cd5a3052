"""One pass over a data set: every unit's strongest images and its statistics.

Batches have fixed boundaries, and what is kept of them can be put together in any order. So any number of
processes give, bit for bit, what one gives, and so does a scan that was killed and taken up again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import nn

from convscope.data import Damage
from convscope.data.damage import all_damaged
from convscope.sight.collecting.identity import Identity, check_same, identity_of
from convscope.sight.collecting.passing import pass_over
from convscope.sight.collecting.processes import Processes
from convscope.sight.collecting.profile import NUM_IMAGES
from convscope.sight.collecting.progress import Progress
from convscope.sight.collecting.ranges import Ranges
from convscope.sight.collecting.reading import num_images, share_of
from convscope.sight.collecting.resumption import States, new_run
from convscope.sight.collecting.tally import Tally
from convscope.sight.images import ImageSource
from convscope.sight.sources.tensors import no_images
from convscope.sight.units.maps import UnitMaps


@dataclass(frozen=True)
class ScanOptions:
    """How a scan goes about its work.

    Args:
        statistics: also collect minimum, mean, deviation and active positions; without them a scan costs
            hardly more than the network's own runs.
        folder: where what is done is kept, for an interrupted scan to go on from, and for the next scan of
            the same to return at once; all processes must see it. None: nothing is kept.
        save_every: seconds after which each process saves what it has done.
        progress: is told, batch by batch, how many images are done, and how many this process will have done
            in the end (None if nobody knows); earlier runs' and damaged images count too.
    """

    statistics: bool = True
    folder: Path | None = None
    save_every: float = 60.0
    progress: Callable[[int, int | None], object] | None = None


@dataclass(frozen=True)
class Scan:
    """What a scan saw; the same on every process.

    Attributes:
        tallies: by the units' address.
        num_images: looked at, by all processes and by earlier runs.
        num_resumed: of these, the earlier runs' images.
        damaged: images that were skipped.
        seconds: that this run took.
    """

    tallies: dict[str, Tally]
    num_images: int
    num_resumed: int
    damaged: tuple[Damage, ...]
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Of this run, by all its processes."""
        return (self.num_images - self.num_resumed) / max(self.seconds, 1e-9)


def scan(
    model: nn.Module,
    images: ImageSource,
    units: tuple[UnitMaps, ...],
    top: int,
    options: ScanOptions | None = None,
) -> Scan:
    """Return a tally per layer after one pass over the images.

    Where ``torch.distributed`` is initialised, every process of the default group must call this with the
    same arguments; each takes a share of the batches.

    Args:
        model: runs in evaluation mode and comes back as it was.
        images: all of them are looked at, but for those that can't be read.
        units: the layers to watch.
        top: how many images to keep per unit.
        options: see :class:`ScanOptions`.

    Raises:
        ConvscopeError: the network doesn't take the images, or there are none; an activation is NaN; the
            folder holds states of another scan or can't be written; processes differ in what they scan; a
            loader for several processes; another process failed.

    Example:
        >>> import torch
        >>> from convscope.sight.units.maps import units_of
        >>> from convscope.tape import record
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        >>> units, _ = units_of(record(net, (2, 1, 5, 5)))
        >>> found = scan(net, ImageSource(torch.rand(9, 1, 5, 5)), units, top=4)
        >>> found.num_images, found.tallies["1#1:relu.1"].values.shape
        (9, torch.Size([2, 4]))
    """
    started = time.monotonic()
    if images.length == 0:
        raise no_images()
    joint = _JointScan(model, images, units, top, options or ScanOptions())
    found = joint.run()
    if not found.num_images:
        raise all_damaged("images", sorted(found.damaged, key=lambda each: each.path))
    damaged = tuple(sorted(found.damaged, key=lambda each: (each.path, each.reason)))
    return Scan(found.tallies, found.num_images, joint.num_resumed, damaged, time.monotonic() - started)


@dataclass
class _JointScan:
    """One process's part in a scan; ``whole`` is that of all, on the first one."""

    model: nn.Module
    images: ImageSource
    units: tuple[UnitMaps, ...]
    top: int
    options: ScanOptions
    num_resumed: int = 0
    processes: Processes = field(init=False)
    whole: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.processes = Processes.of(self.model)
        self.whole = self._empty()

    def run(self) -> Progress:
        """Return what all processes and earlier runs have seen."""
        states = self._states()
        if states is not None:
            self.processes.first(lambda: states.load(self.whole))
        done, self.num_resumed = self.processes.broadcast((self.whole.done, self.whole.num_images))
        parts = self.processes.each(lambda: self._part(done, states))

        def conclude() -> Progress:
            for part in parts or ():
                self.whole.merge(part)
            if states is not None and any(len(part.done) for part in parts or ()):
                states.conclude(self.whole)
            return self.whole

        return self.processes.first(conclude)

    def _states(self) -> States | None:
        """The folder of states; refused if processes scan different things."""
        if self.options.folder is None and self.processes.size == 1:
            return None
        identities = self.processes.each(lambda: self._identity)

        def check() -> str:
            for rank, identity in enumerate(identities or ()):
                check_same(identity, self._identity, f"process {rank}, part")
            return new_run()

        run, folder = self.processes.first(check), self.options.folder
        return None if folder is None else States(Path(folder), self._identity, run)

    @cached_property
    def _identity(self) -> Identity:
        settings = {"images kept per unit": self.top, "statistics": self.options.statistics}
        return identity_of(self.model, self.images, self.units, settings)

    def _part(self, done: Ranges, states: States | None) -> Progress:
        """What this process sees in its share of what is left."""
        part, share = self._empty(), share_of(self.images, done, self.processes)
        total = num_images(self.images, share)
        saved = time.monotonic()

        def after() -> None:
            nonlocal saved
            if states is not None and time.monotonic() - saved >= self.options.save_every:
                part.damaged = frozenset(self.images.damaged)
                states.save(part, self.processes.rank)
                saved = time.monotonic()
            if self.options.progress is not None:
                seen = num_images(self.images, part.done)
                so_far = self.num_resumed + (part.num_images if seen is None else seen)
                self.options.progress(so_far, None if total is None else self.num_resumed + total)

        pass_over(self.model, self.images, share, part, after)
        part.damaged = frozenset(self.images.damaged)
        return part

    def _empty(self) -> Progress:
        statistics, profiled = self.options.statistics, sorted(self.images.spread(NUM_IMAGES))
        return Progress.empty(self.units, self.top, statistics=statistics, profiled=profiled)
