"""What a proof has compared, in a sentence: no more than what was tried."""

from convscope.fold.proof.comparison import Comparison

NOTHING_FOLDED = "none needed: nothing was folded"
"""The sentence where there is nothing to prove."""

_KINDS = {
    "given": "the inputs given",
    "random": "random ones of their shape",
    "other size": "ones of another size",
    "other number": "another number of them",
}
_SHAPES_GIVEN = {"given": "random inputs of the shape given", "random": "other random ones"}
_MISSING = {
    "other size": "no other size: the network doesn't take one",
    "other number": "no other number: the network doesn't take one",
}


def method_of(comparison: Comparison) -> str:
    """Return what was compared, on which inputs, and on which ones the network doesn't run."""
    kinds = {trial.kind: trial.has_shapes_only for trial in comparison.trials}
    texts = [
        f"on {(_SHAPES_GIVEN if bare else _KINDS).get(kind, _KINDS[kind])}" for kind, bare in kinds.items()
    ]
    tried = " and ".join((", ".join(texts[:-1]), texts[-1])) if len(texts) > 1 else "".join(texts)
    missing = [_MISSING[kind] for kind in comparison.missing if kind in _MISSING]
    missing += ["no other size: it is folded for one"] if comparison.one_size else []
    without = f" ({'; '.join(missing)})" if missing else ""
    return (
        f"outputs of the network before and after, in evaluation mode, {tried}{without}; and in each of "
        "these runs the value at every batch norm that folded and is a module, against what it is to be there"
    )
