import re
from dataclasses import replace

import pytest

from convscope.fold.export import Exported
from convscope.fold.ledger import Ledger, LedgerEntry


def shown(result):
    return str(result)


def gone(number, block=1, **fields):
    defaults = {"max_error": 1e-16 * number, "magnification": float(number)}
    return LedgerEntry(
        f"block{block}.bn{number}#1", "folded", f"block{block}.conv{number}#1", **defaults | fields
    )


def test_the_summary_comes_first(folded):
    first, second, *_ = shown(folded).splitlines()
    assert first.strip() == "3 batch norms: 1 folded, 0 merged, 1 partial, 1 kept"
    assert second.strip() == ("outputs equal: they differ by at most 3.4e-16 in float64, 2.4e-07 in float32")


def test_what_stayed_comes_before_what_went(folded):
    text = shown(folded)
    places = [text.index(word) for word in ("Still there", "kept: ", "partial: bn3#1", "bn1#1")]
    assert places == sorted(places)
    assert "Its input is read by 2 operators." in text
    assert "What would fold it: One operator" in text
    assert "Into: conv3#1" in text


def test_speed(folded):
    text = shown(folded)
    assert "1.25× (1.21× to 1.31×)" in text
    assert "12.3 ms" in text
    assert re.search(r"twin +9\.60 ms \(quartiles 9\.30 ms to 10\.4 ms\), without any batch norm", text)
    assert "1.02× the time (0.99× to 1.04×): no difference stands out" in text
    clear = replace(folded.speed, ratio_to_twin=1.1, ratio_to_twin_low=1.05, ratio_to_twin_high=1.2)
    assert re.search(r"1\.10× the time \(1\.05× to 1\.20×\) *\n", shown(clear))


def test_merged_branches_explain_why_the_twin_may_be_slower(folded):
    words = "merged branches save convolutions, which the twin still has"
    assert words not in " ".join(shown(folded).split())
    merged = Ledger((*folded.ledger.entries, replace(gone(1), verdict="merged")))
    assert words in " ".join(shown(replace(folded, ledger=merged)).split())
    speed = replace(folded.speed, twin=None, ratio_to_twin=None, no_twin="bn is a function")
    assert words not in " ".join(shown(replace(folded, ledger=merged, speed=speed)).split())


def test_without_a_twin_the_reason_is_told(folded):
    text = shown(replace(folded.speed, twin=None, ratio_to_twin=None, no_twin="bn is a function"))
    assert "there is no twin without batch norm: bn is a function" in text


def test_a_failed_proof_is_not_called_equal(folded):
    assert "NOT equal" in shown(replace(folded, proof=replace(folded.proof, passed=False)))
    assert "NOT equal" not in shown(folded)


def test_nothing_folded_is_no_equality(folded):
    proof = replace(folded.proof, trials=(), method="none needed: nothing was folded")
    stayed = Ledger((LedgerEntry("bn#1", "kept", reason="is in training mode"),))
    text = shown(replace(folded, proof=proof, ledger=stayed))
    assert text.splitlines()[0].strip() == "1 batch norm: 0 folded, 0 merged, 0 partial, 1 kept"
    assert text.splitlines()[1].strip() == "nothing was folded"
    assert re.search(r"^proof +none needed: nothing was folded *$", text, re.MULTILINE)
    for word in ("equal", "allowed", "inputs  none"):
        assert word not in text


def test_without_batch_norms_there_is_nothing_to_tell(folded):
    proof = replace(folded.proof, trials=(), method="none needed: nothing was folded")
    text = shown(replace(folded, proof=proof, ledger=Ledger(()), speed=None))
    assert text.strip() == "the network has no batch norm" == shown(Ledger(())).strip()
    assert "12.3 ms" in shown(replace(folded, proof=proof, ledger=Ledger(())))


def test_the_table_s_columns_are_explained(folded):
    text = " ".join(shown(folded).split())
    assert "weights ×: the largest factor |gamma| / sqrt(var + eps) on a channel's weights" in text


def test_like_reasons_are_told_once():
    entries = tuple(
        LedgerEntry(
            f"layer{i}.{j}.bn1#1",
            "kept",
            reason=f"layer{i}.{j}.relu#1 needs more, and gamma isn't positive in {i + j} of 64 channels",
            remedy="train with positive gammas",
        )
        for i in (1, 2)
        for j in range(10)
    )
    text = shown(Ledger((*entries, LedgerEntry("head.bn#1", "kept", reason="is in training mode"))))
    assert "kept: layer*.*.bn1#1 (20 times)" in text
    assert "in 1 of 64 channels; 19 others likewise" in text
    assert text.count("train with positive gammas") == 1
    assert "kept: head.bn#1" in text


def test_a_ledger_of_hundreds_is_rolled_up_and_remarks_stay():
    entries = [gone(number, block) for block in range(1, 6) for number in range(1, 50)]
    entries[7] = replace(entries[7], reason="weights grew much")
    entries.append(replace(gone(1, 9), verdict="merged"))
    text = shown(Ledger(tuple(entries)))
    assert text.splitlines()[0].strip() == "246 batch norms: 245 folded, 1 merged, 0 partial, 0 kept"
    assert len(text.splitlines()) < 30
    assert re.search(r"block1 +49 +0 +4\.9e-15 +49", text)
    assert re.search(r"block9\.bn1#1 +0 +1 +1\.0e-16 +1", text)
    assert re.search(r"block1\.bn8#1 +folded +block1\.conv8#1 .* weights grew much", text)
    assert "--json" in text


def test_sixty_rows_are_shown_one_by_one():
    text = shown(Ledger(tuple(gone(number) for number in range(1, 61))))
    assert len(re.findall(r"block1\.bn\d+#1 +folded", text)) == 60


@pytest.mark.parametrize(("change", "words"), [
    ({}, "net.onnx written, 2.00 KiB, any number of samples of 3 × 8 × 8; its outputs differ from the "
         "original's by at most 4.0e-07 (1.0e-04 allowed), checked with onnxruntime 1.32.0"),
    ({"sizes": ((None, 3, 6, 5), (4,), (None, 7))}, "of samples of 3 × 6 × 5 and 7, beside 4; its"),
    ({"sizes": ((None,),)}, "any number of samples of scalar; its"),
    ({"any_batch": False, "sizes": ((2, 3, 8, 8), (4,))}, "inputs of 2 × 3 × 8 × 8 and 4 only; its"),
    ({"sizes": ()}, "weights alone; its"),
    ({"max_error": None, "checked_with": ""}, "NOT checked: onnxruntime isn't installed"),
])  # fmt: skip
def test_a_written_file(change, words):
    exported = Exported(
        "net.onnx", 2048, True, ((None, 3, 8, 8),), "onnxruntime 1.32.0", 4e-7, 5e-7, 1e-4, ("(1, 3)",)
    )
    assert words in shown(replace(exported, **change)).replace("\n", "")


def test_json_is_complete(folded):
    data = folded.to_dict()
    assert data["ledger"]["entries"][1]["remedy"].startswith("One operator")
    assert data["speed"]["twin"] == {"median": 0.0096, "low": 0.0093, "high": 0.0104}
    assert (data["speed"]["ratio_to_twin"], data["speed"]["no_twin"]) == (1.02, "")
    assert [data["ledger"][name] for name in ("folded", "merged", "partial", "kept")] == [1, 0, 1, 1]
