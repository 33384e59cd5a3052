import pytest

from convscope.checkup.watching.sequence import Sequence, accumulated


def told(script, fresh=False):
    """The pattern of one step: F and B; a forward pass calls two layers."""
    sequence = Sequence()
    for number, letter in enumerate(script):
        if letter == "F":
            for _ in range(2):
                sequence.forward(number, lambda: fresh)
        else:
            sequence.backward(number)
    sequence.step_ends(keep=True)
    assert sequence.is_empty
    return dict(sequence.patterns)


@pytest.mark.parametrize("script", ["FB", "FBFB", "FFB", "FFBB", "FBFFB"])
def test_passes_in_order(script):
    assert told(script) == {script: 1}


def test_gradients_that_were_set_to_zero():
    assert told("FBFB", fresh=True) == {"FBZFB": 1}
    assert told("FFB", fresh=True) == {"FFB": 1}


def test_a_backward_pass_that_comes_to_two_outputs():
    sequence = Sequence()
    for number in (0, 1):
        sequence.forward(number, lambda: False)
    sequence.backward(9)
    sequence.backward(9)
    sequence.step_ends(keep=True)
    assert sequence.patterns == {"FFB": 1}


def test_closures_are_kept_apart():
    sequence = Sequence()
    sequence.step_begins()
    for number in range(3):
        sequence.forward(number, lambda: False)
        sequence.backward(number)
    sequence.step_ends(keep=True)
    assert (sequence.closures, dict(sequence.patterns)) == (1, {})


@pytest.mark.parametrize(
    ("patterns", "number"),
    [
        ({}, 1),
        ({"FB": 20}, 1),
        ({"FBFBFB": 20}, 3),
        ({"FBFBFB": 9, "FB": 3}, 3),
        ({"FBFBFB": 3, "FB": 9}, 1),
        ({"FBFB": 1}, 1),
        ({"FFBFB": 20}, 1),
        ({"FBZFBFB": 20}, 2),
        ({"FBZFB": 20}, 1),
    ],
)
def test_accumulation(patterns, number):
    assert accumulated(patterns) == number
