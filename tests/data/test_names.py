from array import array

from convscope.data.names import Names

TEXTS = ["", "a", "ü/b.png", "\udcff.png", "new\nline", "a" * 1000, ""]


def filled(texts):
    names = Names()
    for text in texts:
        names.append(text)
    return names


def test_names_come_back():
    names = filled(TEXTS)
    assert len(names) == len(TEXTS)
    assert list(names) == TEXTS
    assert [names[index] for index in range(len(names))] == TEXTS


def test_the_digest_knows_names_borders_and_numbers():
    digests = {
        filled(["ab", "c"]).digest(array("Q", [1, 2])),
        filled(["a", "bc"]).digest(array("Q", [1, 2])),
        filled(["ab", "c"]).digest(array("Q", [1, 3])),
        filled(["ab", "d"]).digest(array("Q", [1, 2])),
    }
    assert len(digests) == 4
    assert filled(["ab", "c"]).digest(array("Q", [1, 2])) in digests
