"""The search for the largest batch, against trying every one."""

from hypothesis import given
from hypothesis import strategies as st

from convscope.cost.batch.search import WINDOW, largest_below, largest_that_fits


@given(st.integers(0, 50), st.integers(0, 60))
def test_the_end_of_a_falling_predicate(last, most):
    assert largest_below(lambda number: number <= last, most) == min(last, most)


@given(st.sets(st.integers(1, 60)), st.integers(0, 60))
def test_within_the_budget_the_answer_is_the_largest_of_all(fitting, bound):
    found = largest_that_fits(fitting.__contains__, bound, budget=60)
    assert found.batch == max((batch for batch in fitting if batch <= bound), default=0)
    assert found.exact


@given(st.sets(st.integers(1, 200)), st.integers(1, 200), st.integers(1, 20))
def test_beyond_it_no_neighbour_above_fits(fitting, bound, budget):
    found = largest_that_fits(fitting.__contains__, bound, budget)
    assert found.batch == 0 or found.batch in fitting
    if found.batch:
        assert not {*range(found.batch + 1, min(found.batch + WINDOW, bound) + 1)} & fitting
    if found.exact:
        assert not {*range(found.batch + 1, bound + 1)} & fitting


@given(st.integers(0, 5000), st.integers(1, 20))
def test_a_monotone_predicate_is_searched_exactly_in_few_steps(last, budget):
    asked = []

    def fits(batch):
        asked.append(batch)
        return batch <= last

    assert largest_that_fits(fits, 5000, budget).batch == last
    assert len(asked) <= budget + 2 * 13 + WINDOW + 2
