"""Units of hand-made layers: what counts as kept, changed, lost and new, by how alike they are."""

import pytest
import torch

from convscope.sight.comparing.layer import compared_layer
from convscope.sight.comparing.likeness import likeness
from convscope.sight.comparing.reading import LayerNumbers
from convscope.sight.comparing.units import Units


def layer(profile):
    count = len(profile)
    numbers = {"maximum": profile.amax(1).double(), "active_images": torch.ones(count).double()}
    values, images = profile.double().sort(1, descending=True)
    return LayerNumbers(
        "conv", "conv#1", "relu#1", (3, 4), values[:, :9], images[:, :9], numbers,
        torch.full((count, 4), torch.nan).double(), profile,
    )  # fmt: skip


def with_correlation(profile, correlation):
    """A profile that correlates so with this one, exactly."""
    basis, _ = torch.linalg.qr(torch.stack((torch.ones_like(profile), profile, torch.randn_like(profile)), 1))
    along = basis[:, 1] * (basis[:, 1] @ profile).sign()
    return correlation * along + (1 - correlation**2) ** 0.5 * basis[:, 2]


@pytest.fixture
def profiles():
    """Unit 0 keeps a little of itself, unit 1 nothing, the others nearly all."""
    first = torch.randn(40, 64, dtype=torch.float64)
    wanted = [0.32, 0.0, *[0.95] * 38]
    return first, torch.stack([with_correlation(unit, part) for unit, part in zip(first, wanted)])


def compared(profiles, by):
    first, second = (layer(profile) for profile in profiles)
    alike = likeness(first.profile, second.profile)
    assert alike.chance.partner < 0.32 < alike.chance.nearest
    return compared_layer(Units(first), Units(second), alike, 9, by)


def test_a_known_partner_needs_less_than_one_that_is_looked_for(profiles):
    by_channel = compared(profiles, None)
    assert by_channel.by == "channel"
    assert [pair.kind for pair in by_channel.pairs[:3]] == ["kept", "changed", "kept"]
    assert (by_channel.lost, by_channel.new) == ((1,), (1,))
    assert by_channel.pairs[0].correlation == pytest.approx(0.32)
    assert by_channel.share_matched == 39 / 40
    assert by_channel.order[:2] == (1, 0)
    by_profile = compared(profiles, "profile")
    assert (by_profile.lost, by_profile.new) == ((0, 1), (0, 1))
    assert [pair.kind for pair in by_profile.pairs if pair.first is None] == ["new", "new"]
    assert by_profile.share_matched == 38 / 40
    assert by_profile.chance > by_channel.chance


def test_every_unit_stands_in_one_pair(profiles):
    first, second = profiles
    for width in (40, 25):
        found = compared((first, second[torch.randperm(40)[:width]]), "profile")
        for side, count in (("first", 40), ("second", width)):
            units = [getattr(pair, side) for pair in found.pairs]
            assert sorted(unit.index for unit in units if unit is not None) == list(range(count))
        assert sorted(found.order) == list(range(len(found.pairs)))
