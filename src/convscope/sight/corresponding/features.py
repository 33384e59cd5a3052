"""A layer's features for images with and without a mask, and the signs of their differences.

Both runs have the same images in the same rows, so that elements which a mask can't reach come out of the
same arithmetic and differ by nothing; a difference of the size of rounding counts as none all the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.core.address import parse_address
from convscope.core.errors import ConvscopeError
from convscope.probe import Probe, probing
from convscope.sight.collecting.passing import named_failure

ROUNDING = 16.0
"""Differences within so many times the precision of float32 (float64 for such features), relative to an
image's largest feature, count as zero."""


@dataclass(frozen=True)
class Site:
    """Where a layer's features are read.

    Attributes:
        name: of the layer, as asked for.
        address: of an operator call or a module call.
        value: in the tape.
    """

    name: str
    address: str
    value: int


class FeatureReader:
    """Runs a model and keeps what stands at some sites; made by :func:`reading_features`."""

    def __init__(self, probe: Probe, sites: tuple[Site, ...]) -> None:
        self._probe, self._sites = probe, sites
        self._found: dict[str, Tensor] = {}
        for address in {site.address for site in sites}:
            watch = probe.read if parse_address(address).op is not None else probe.at_module
            watch(address, partial(self._keep, address))

    def signs(
        self, images: Float[Tensor, "n c h w"], masked: Float[Tensor, "n c h w"], indices: list[int]
    ) -> dict[str, Int8[Tensor, "n d"]]:
        """Return the signs of features less masked features, by address, on the CPU.

        Raises:
            ConvscopeError: the model fails, or features aren't finite.
        """
        clean, hidden = self._features(images, indices), self._features(masked, indices)
        return {address: differing_signs(clean[address], hidden[address]) for address in clean}

    def _features(self, images: Tensor, indices: list[int]) -> dict[str, Tensor]:
        self._found = {}
        with named_failure(images, indices, self._probe):
            self._probe.model(images)
        for site in self._sites:
            self._check(site, len(images), indices)
        found, self._found = self._found, {}
        return {address: features.flatten(1) for address, features in found.items()}

    def _keep(self, address: str, _: Any, result: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if tensors:
            # A copy: operators that follow may write into it.
            self._found[address] = tensors[0].detach().clone()

    def _check(self, site: Site, num_images: int, indices: list[int]) -> None:
        features = self._found.get(site.address)
        if features is None or not features.is_floating_point() or features.shape[:1] != (num_images,):
            shown = "nothing" if features is None else f"{features.dtype} of shape {tuple(features.shape)}"
            raise ConvscopeError(
                f"layer {site.name!r}, which gives {shown} for {num_images} images",
                "features, with the images along the first axis",
                "choose another layer; see `convscope cost`",
            )
        for row in (~features.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()[:1]:
            raise ConvscopeError(
                f"features of {site.name} in image {indices[row]} with NaN or infinite values",
                "numbers",
                "look for NaN or infinite weights, or run in a wider dtype",
            )


@contextmanager
def reading_features(model: nn.Module, sites: tuple[Site, ...]) -> Iterator[FeatureReader]:
    """Run a block with a reader of a model's features, in evaluation mode; the model comes back as it was."""
    with torch.no_grad(), probing(model) as probe:
        yield FeatureReader(probe, sites)


def differing_signs(clean: Float[Tensor, "n d"], hidden: Float[Tensor, "n d"]) -> Int8[Tensor, "n d"]:
    """Return the signs of clean features less masked ones; 0 where no more than rounding lies between."""
    wide = torch.promote_types(clean.dtype, torch.float32)
    clean, hidden = clean.to(wide), hidden.to(wide)
    difference = clean - hidden
    least = ROUNDING * torch.finfo(wide).eps * torch.maximum(clean.abs(), hidden.abs()).amax(1, keepdim=True)
    return torch.where(difference.abs() <= least, 0, difference.sign()).to("cpu", torch.int8)
