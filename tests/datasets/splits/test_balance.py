"""Sides by draw, and the moves that balance classes."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from datasets.splits.balance import choose_sides

SHARE = 0.15


def table(shows: np.ndarray, sizes: np.ndarray | None = None) -> csr_array:
    """Pictures by group and class from bool [G, C], with the class that all pictures show behind them."""
    sizes = np.ones(len(shows), dtype=np.int64) if sizes is None else sizes
    return csr_array(np.concatenate([shows, np.ones((len(shows), 1), dtype=bool)], axis=1) * sizes[:, None])


def data(seed: int, groups: int, rates: list[float]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.random(groups), random.random((groups, len(rates))) < rates


@pytest.mark.parametrize("seed", range(20))
def test_draws_decide_where_every_class_has_enough(seed):
    draws, shows = data(seed, 400, [0.5, 0.9])
    chosen, moved = choose_sides(draws, table(shows), SHARE)
    assert (chosen == (draws < SHARE)).all() and moved == 0


@pytest.mark.parametrize("seed", range(20))
def test_every_class_of_two_groups_is_in_both_parts(seed):
    draws, shows = data(seed, 60, [0.5, 0.1, 0.08, 0.05])
    chosen, moved = choose_sides(draws, table(shows), SHARE)
    several = shows.sum(axis=0) > 1
    assert (shows[chosen].any(axis=0) & shows[~chosen].any(axis=0))[several].all()
    assert moved == (chosen != (draws < SHARE)).sum()


@pytest.mark.parametrize("draw", [0.01, 0.5])
def test_a_class_of_one_group_is_in_training(draw):
    draws = np.array([draw, *np.linspace(0.02, 0.98, 40)])
    shows = np.arange(41)[:, None] == 0
    chosen, _ = choose_sides(draws, table(shows), SHARE)
    assert not chosen[0]


@pytest.mark.parametrize("seed", range(10))
def test_shares_far_from_what_was_asked_for_are_corrected(seed):
    random = np.random.default_rng(seed)
    shows = np.repeat([[True, False], [False, True]], 100, axis=0)
    draws = random.random(200)
    draws[:100] *= 0.4  # two and a half times too many of one class
    draws[100:] = 0.1 + 0.9 * draws[100:]  # about a third of the other
    chosen, moved = choose_sides(draws, table(shows), SHARE)
    share = (chosen[:, None] & shows).sum(axis=0) / 100
    assert (np.abs(share - SHARE) <= 0.1).all() and moved
    crossed = np.flatnonzero(chosen != (draws < SHARE))
    stayed = np.flatnonzero((chosen == (draws < SHARE)) & (draws < SHARE) & (np.arange(200) < 100))
    assert draws[crossed[crossed < 100]].min() > draws[stayed].max()  # those nearest to the share move


@pytest.mark.parametrize("seed", range(20))
def test_pictures_added_move_none_but_those_of_a_rare_class(seed):
    _, shows = data(seed, 200, [0.04])
    draws = np.random.default_rng(seed).permutation(200) / 200
    before, _ = choose_sides(draws[:150], table(shows[:150]), SHARE)
    after, _ = choose_sides(draws, table(shows), SHARE)
    for changed in np.flatnonzero(before != after[:150]):
        assert shows[changed, 0]


def test_large_groups_stay_whole_and_the_first_makes_a_validation_part():
    sizes = np.array([90, 100, 110])
    chosen, moved = choose_sides(np.array([0.9, 0.8, 0.7]), table(np.ones((3, 1), dtype=bool), sizes), SHARE)
    assert chosen.tolist() == [True, False, False] and moved == 1


def test_two_groups_are_split_even_if_each_has_a_class_of_its_own():
    chosen, _ = choose_sides(np.array([0.6, 0.7]), table(np.eye(2, dtype=bool)), SHARE)
    assert chosen.sum() == 1


def test_fixed_groups_do_not_move():
    draws, shows = data(0, 50, [0.5, 0.1])
    fixed = np.where(np.arange(50) < 40, 0, -1)
    fixed[3] = 1
    chosen, _ = choose_sides(draws, table(shows), SHARE, fixed)
    assert chosen[:40].nonzero()[0].tolist() == [3]
    assert chosen[40:].any()


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_any_share_leaves_pictures_on_both_sides(share):
    draws, shows = data(1, 30, [0.5])
    chosen, _ = choose_sides(draws, table(shows), share)
    assert 0 < chosen.sum() < 30
