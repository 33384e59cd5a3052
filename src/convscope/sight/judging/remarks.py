"""Findings about projections: what a person should know before believing a picture."""

from convscope.core.finding import Evidence, Finding
from convscope.sight.projecting.projection import Census, Rule, Scores

NEARLY_SAME = 0.05
UNSELECTIVE = 0.2
UNCHANGED = 0.1

# Guided is gated in networks of ReLUs.
_OTHER_RULE: dict[Rule, str] = {
    "deconvnet": ", or use rule='gated'",
    "guided": "; compare with rule='gradient'",
    "gated": "; compare with rule='gradient'",
    "gradient": "",
}


def remarks_on(
    address: str,
    rule: Rule,
    census: Census,
    scores: Scores,
    value: float | None = None,
    *,
    template: str = "",
) -> tuple[Finding, ...]:
    """Return the findings about one projection, or about a layer's.

    Args:
        address: of the unit's layer.
        rule: the projection's.
        census: how the operators below were passed.
        scores: measured beside it.
        value: the unit's activation, for one projection.
        template: why a deconvnet's signal doesn't depend on the image in most of this network; empty if it
            does.
    """
    found = (
        _silent(address, value),
        _image_independent(address, rule, census, scores.image_dependence)
        or _template(address, rule, census, scores.image_dependence, template),
        _unselective(address, rule, scores.selectivity),
        _insensitive(address, rule, scores.randomisation),
        _unconfirmed(address, scores.masking_drop),
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
    blind = rule == "deconvnet" and not num_switches and not census.frozen
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
        "read it as a template of the weights" + _OTHER_RULE[rule],
        "Springenberg et al. 2015 (arXiv 1412.6806), section 3.4",
    )  # fmt: skip


def _template(
    address: str, rule: Rule, census: Census, dependence: float | None, template: str
) -> Finding | None:
    if rule != "deconvnet" or not template or census.convolutions < 2:
        return None
    known = () if dependence is None else (Evidence("image dependence", dependence, "1", "in pixels"),)
    return Finding(
        "template-projection", "warning", address,
        (*known, Evidence("switches below", len(census.switches), "max-pools", "on the way")),
        f"{template}: all images give the same signal there, which only the switches below scramble",
        "read the pictures of a unit as one template, or use rule='gated'",
        "Springenberg et al. 2015 (arXiv 1412.6806), section 3.4",
    )  # fmt: skip


def _insensitive(address: str, rule: Rule, randomisation: float | None) -> Finding | None:
    if randomisation is None or randomisation >= UNCHANGED:
        return None
    return Finding(
        "insensitive-to-training", "warning", address,
        (Evidence("randomisation", randomisation, "1", "1 − cosine to the one through random upper layers"),),
        f"with random weights in all layers but the first, the picture stays the same (1 − cosine "
        f"{randomisation:.3f}): it doesn't show what was learnt",
        "trust the image patches more" + ("; compare with rule='gradient'" if rule != "gradient" else ""),
        "Adebayo et al. 2018 (arXiv 1810.03292)",
    )  # fmt: skip


def _unconfirmed(address: str, drop: float | None) -> Finding | None:
    if drop is None or drop > 0:
        return None
    return Finding(
        "unconfirmed-projection", "advice", address,
        (Evidence("masking drop", drop, "1", "relative to random pixels of the same patch"),),
        "greying out what the picture points at lowers the activation no more than random pixels do "
        f"({drop:+.2f})",
        "don't take the picture's strong parts for what the unit needs",
        "Zeiler and Fergus 2014 (arXiv 1311.2901), section 4.2",
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
