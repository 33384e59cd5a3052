"""Shifts against dense linear algebra: which equations are independent, and which numbers solve them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convscope.fold.gauge.labels import GROUND
from convscope.fold.gauge.shifts import Dependent, Equation, Shifts

NUM_LABELS = 7
term = st.tuples(st.integers(0, NUM_LABELS - 1), st.sampled_from([-2.0, -1.0, 0.0, 1.0, 1.0, 3.0]))
row = st.lists(term, min_size=2, max_size=3)
vector = st.lists(row, min_size=1, max_size=3)
pins = st.sets(st.integers(1, NUM_LABELS - 1), max_size=2)
costs = st.lists(st.integers(0, 5), min_size=NUM_LABELS, max_size=NUM_LABELS)


def equation(rows, constants, generic=True):
    longest = max(len(each) for each in rows)
    padded = [[*each, *[(0, 0.0)] * (longest - len(each))] for each in rows]
    labels = np.array([[label for label, _ in each] for each in padded]).T
    weights = np.array([[weight for _, weight in each] for each in padded]).T
    return Equation(labels, weights, np.array(constants, dtype=float), np.full(len(rows), generic))


def dense(rows):
    matrix = np.zeros((len(rows), NUM_LABELS))
    for i, each in enumerate(rows):
        for label, weight in each:
            matrix[i, label] += weight
    return matrix


def rank(matrix):
    return int(np.linalg.matrix_rank(matrix)) if len(matrix) else 0


def start(pinned, cost):
    shifts = Shifts(np.array(cost, dtype=float))
    shifts.pin(np.array(sorted(pinned), dtype=np.int64))
    return shifts, dense([[(GROUND, 1.0)], *([(label, 1.0)] for label in sorted(pinned))])


@given(pins, costs, st.lists(vector, max_size=5))
def test_what_may_be_any_number_must_be_independent(pinned, cost, vectors):
    shifts, matrix = start(pinned, cost)
    for rows in vectors:
        more = np.concatenate([matrix, dense(rows)])
        independent = rank(more) == rank(matrix) + len(rows)
        try:
            shifts.take_in(equation(rows, np.zeros(len(rows))))
        except Dependent as error:
            places, accepted = error.where.tolist(), False
        else:
            places, accepted, matrix = [], True, more
        assert accepted is independent
        assert bool(places) is not independent
        assert set(places) <= set(range(len(rows)))


@given(pins, costs, st.lists(vector, max_size=5), st.data())
def test_values_solve_the_equations(pinned, cost, vectors, data):
    shifts, matrix = start(pinned, cost)
    wanted = np.zeros(len(matrix))
    for rows in vectors:
        constants = [float(data.draw(st.integers(-3, 3))) for _ in rows]
        more, numbers = np.concatenate([matrix, dense(rows)]), np.concatenate([wanted, constants])
        solvable = rank(np.column_stack([more, numbers])) == rank(more)
        try:
            shifts.take_in(equation(rows, constants, generic=False))
        except Dependent:
            assert not solvable
        else:
            assert solvable
            matrix, wanted = more, numbers
        values = shifts.values()
        assert np.allclose(matrix @ values, wanted)
        assert values[GROUND] == 0
        assert not values[sorted(pinned)].any()


@given(pins, costs, st.lists(vector, max_size=3), st.lists(vector, max_size=3), st.lists(vector, max_size=3))
def test_undo_leaves_no_trace(pinned, cost, before, undone, after):
    (shifts, _), (twin, _) = start(pinned, cost), start(pinned, cost)

    def outcomes(each, vectors):
        for number, rows in enumerate(vectors):
            try:
                each.take_in(equation(rows, np.full(len(rows), number), generic=False))
            except Dependent as error:
                yield error.where.tolist()
            else:
                yield []

    assert list(outcomes(shifts, before)) == list(outcomes(twin, before))
    mark = shifts.mark()
    list(outcomes(shifts, undone))
    shifts.undo(mark)
    assert np.array_equal(shifts.values(), twin.values())
    assert list(outcomes(shifts, after)) == list(outcomes(twin, after))
    assert np.array_equal(shifts.values(), twin.values())


@given(pins, costs, st.lists(st.tuples(vector, st.booleans()), max_size=5))
def test_structure_foretells_the_numbers(pinned, cost, vectors):
    """What is accepted for whatever numbers has a solution for random ones."""
    rng = np.random.default_rng(3)
    shifts, matrix = start(pinned, cost)
    numbers, wanted = start(pinned, cost)[0], np.zeros(len(matrix))
    for rows, generic in vectors:
        try:
            shifts.take_in(equation(rows, np.zeros(len(rows)), generic))
        except Dependent:
            continue
        constants = rng.normal(size=len(rows)) if generic else np.zeros(len(rows))
        numbers.take_in(equation(rows, constants, generic=False))
        matrix, wanted = np.concatenate([matrix, dense(rows)]), np.concatenate([wanted, constants])
    assert np.allclose(matrix @ numbers.values(), wanted)


def test_a_cycle_within_one_vector():
    shifts = Shifts(np.zeros(4))
    rows = [[(1, 1.0), (2, -1.0)], [(2, 1.0), (3, -1.0)], [(3, 1.0), (1, -1.0)]]
    with pytest.raises(Dependent):
        shifts.take_in(equation(rows, [0, 0, 0]))
    assert shifts.mark() == 0
    shifts.take_in(equation(rows[:2], [1.0, 2.0], generic=False))
    assert np.diff(shifts.values()[1:]).tolist() == [-1.0, -2.0]


def test_one_label_twice_in_an_equation():
    shifts = Shifts(np.zeros(3))
    with pytest.raises(Dependent):
        shifts.take_in(equation([[(1, 1.0), (1, -1.0)]], [0.0]))
    shifts.take_in(equation([[(1, 1.0), (1, 1.0)]], [3.0], generic=False))
    assert shifts.values()[1] == 1.5


def test_more_terms_than_are_kept_are_refused():
    count = 10
    shifts = Shifts(np.zeros(count + 1))
    with pytest.raises(Dependent):
        shifts.take_in(equation([[(label, 1.0) for label in range(1, count + 1)]], [0.0]))
    assert shifts.mark() == 0
