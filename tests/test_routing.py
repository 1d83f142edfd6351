"""Loads of experts in the records that time them: counted, bounded, and as the source hands them out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_perf_model.validation.routing import RANK_BY_RANK, routed
from llm_perf_model.validation.unmappable import UnmappableError

ROUTERS = st.sampled_from(("balanced", "power_law_1.0", "power_law_1.01", "power_law_1.2"))
SHAPES = st.sampled_from(((8, 2), (128, 8), (160, 8), (512, 22)))


@pytest.mark.parametrize(
    ("tokens", "experts", "visits", "ranks", "visited", "visits_here"),
    [
        (1, 8, 2, 1, 2.0, 2.0),  # experts 0 and 4
        (2, 8, 2, 1, 4.0, 4.0),  # and 2 and 6
        (4, 8, 2, 4, 2.0, 2.0),  # of experts 0 and 1, one visit each
        (64, 8, 2, 4, 2.0, 32.0),
        (1, 256, 8, 16, 1.0, 1.0),
        (1, 256, 8, 256, 1.0, 1.0),
        (1024, 256, 8, 256, 1.0, 32.0),
    ],
)
def test_a_balanced_router_by_hand(
    tokens: int, experts: int, visits: int, ranks: int, visited: float, visits_here: float
) -> None:
    """Visits of a token lie experts / visits apart; tokens follow one another."""
    assert routed("balanced", tokens, experts, visits, ranks) == (visited, visits_here)


@settings(max_examples=60)
@given(
    ROUTERS, SHAPES, st.sampled_from((1, 3, 16, 200, 5000)), st.sampled_from((1, 2, 4, 8)),
    st.sampled_from(("", RANK_BY_RANK)),
)  # fmt: skip
def test_no_expert_has_more_visits_than_tokens_and_a_rank_alone_has_all(
    router: str, shape: tuple[int, int], tokens: int, ranks: int, moved: str
) -> None:
    experts, visits = shape
    rank = routed(router, tokens, experts, visits, ranks, moved)
    assert 1.0 <= rank.visited <= experts / ranks
    assert rank.visited <= rank.visits <= min(tokens * rank.visited, tokens * visits)
    if ranks == 1:
        assert rank.visits == tokens * visits
    elif router != "balanced":
        assert rank.visits >= tokens * visits / ranks  # the busiest one


@pytest.mark.parametrize("tokens", [16, 64, 256])
def test_a_skewed_router_visits_fewer_experts_and_loads_a_rank_more(tokens: int) -> None:
    for router in ("power_law_1.01", "power_law_1.2"):
        assert routed(router, tokens, 256, 8, 1).visited < 0.9 * routed("balanced", tokens, 256, 8, 1).visited
        assert routed(router, tokens, 256, 8, 16).visits > 1.2 * routed("balanced", tokens, 256, 8, 16).visits


@pytest.mark.parametrize(("moved", "visited"), [("", 8.0), (RANK_BY_RANK, 1.0)])
def test_visits_that_rounding_loses_go_to_one_end_or_to_every_rank(moved: str, visited: float) -> None:
    """Eight visits over 256 experts round to none each: all eight are handed out."""
    assert routed("power_law_1.01", 1, 256, 8, 16, moved).visited == visited


def test_draws_are_the_same_in_every_run() -> None:
    first = routed("power_law_1.2", 64, 128, 8, 4)
    routed.cache_clear()
    assert routed("power_law_1.2", 64, 128, 8, 4) == first


def test_what_no_router_of_the_source_is() -> None:
    with pytest.raises(UnmappableError, match=r"router 'power_law' is not modelled"):
        routed("power_law", 4, 8, 2, 1)
    with pytest.raises(UnmappableError, match=r"3 ranks do not share 8 experts evenly"):
        routed("balanced", 4, 8, 2, 3)
