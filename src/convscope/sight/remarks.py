"""Findings about projections: what a person should know before believing a picture."""

from convscope.core.finding import Evidence, Finding
from convscope.sight.projection import Census, Rule, Scores

NEARLY_SAME = 0.05
UNSELECTIVE = 0.2


def remarks_on(
    address: str, rule: Rule, census: Census, scores: Scores, value: float | None = None
) -> tuple[Finding, ...]:
    """Return the findings about one projection, or about a layer's.

    Args:
        address: of the unit's layer.
        rule: the projection's.
        census: how the operators below were passed.
        scores: measured beside it.
        value: the unit's activation, for one projection.
    """
    found = (
        _silent(address, value),
        _image_independent(address, rule, census, scores.image_dependence),
        _unselective(address, rule, scores.selectivity),
        _without_rule(address, census),
    )
    return tuple(finding for finding in found if finding is not None)


def _silent(address: str, value: float | None) -> Finding | None:
    if value is None or value > 0:
        return None
    return Finding(
        "silent-unit", "warning", address,
        (Evidence("largest activation", value, "1", "on this image"),),
        f"the unit's largest activation on this image is {value:.3g}: nothing that it looks for is there",
        "choose an image on which it fires; a gallery finds them",
        "Zeiler and Fergus 2014, section 2.1",
    )  # fmt: skip


def _image_independent(address: str, rule: Rule, census: Census, dependence: float | None) -> Finding | None:
    if census.convolutions < 2 and not census.switches:
        return None  # a first layer's projection is its filter, and should be
    num_switches = len(census.switches)
    blind = rule == "deconvnet" and not num_switches and not census.plain
    if not blind and (dependence is None or dependence >= NEARLY_SAME):
        return None
    measured = 0.0 if dependence is None else dependence
    why = "it has no switches: no max-pool lies below" if blind else f"{num_switches} max-pools lie below"
    return Finding(
        "image-independent-projection", "warning", address,
        (
            Evidence("image dependence", measured, "1", "1 − cosine to the mirrored image's projections"),
            Evidence("switches below", num_switches, "max-pools", "from the recorded data flow"),
        ),
        f"the projection hardly depends on the image (1 − cosine {measured:.3f}); {why}",
        "read it as a template of the weights, or use rule='guided'",
        "Springenberg et al. 2015 (arXiv 1412.6806), section 3.4",
    )  # fmt: skip


def _unselective(address: str, rule: Rule, selectivity: float | None) -> Finding | None:
    if selectivity is None or selectivity >= UNSELECTIVE:
        return None
    return Finding(
        "unselective-projection", "advice", address,
        (Evidence("selectivity", selectivity, "1", "1 − mean cosine to random positive seeds' projections"),),
        f"random mixtures of all units give nearly the same picture (1 − cosine {selectivity:.3f}): "
        "it shows the layers below more than this unit",
        "trust the image patches more; compare with rule='gradient'" if rule != "gradient" else "",
        "Mahendran and Vedaldi 2016, 'Salient deconvolutional networks'",
    )  # fmt: skip


def _without_rule(address: str, census: Census) -> Finding | None:
    if not census.plain:
        return None
    operators = sorted({site.partition(" ")[0] for site in census.plain})
    return Finding(
        "plain-gradient", "warning", address,
        (Evidence("operators without a rule", len(census.plain), "operators", ", ".join(operators)),),
        f"{len(census.plain)} operators below have no rule ({', '.join(operators)}); "
        "their plain gradient was used",
        "don't take the picture for a pure deconvnet",
    )  # fmt: skip
