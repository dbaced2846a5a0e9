from __future__ import annotations

import pytest

from glmmnet.em.config import EMConfig
from glmmnet.em.draws import draws_at_first, draws_from_here

CONFIG = EMConfig(tol=0.5)


def test_small_data_have_more_draws_at_first(joint_of):
    few, many = joint_of("bernoulli", (10, 1), n=100), joint_of("bernoulli", (10, 1), n=20_000)
    assert draws_at_first(many, CONFIG) == 5
    assert draws_at_first(few, CONFIG) > 50
    assert draws_at_first(few, EMConfig(em_draws=7)) == 7


@pytest.mark.parametrize(
    ("noise", "averaged", "draws"),
    [
        (0.5, 8, 5),  # 8 iterations would do
        (0.5 * 16**0.5, 8, 10),  # 128, where 64 are asked for
        (0.5 * 16**0.5, 9, 5),  # looked at after 8, 16 and 32
        (0.5 * 16**0.5, 64, 5),
        (0.5 * 16**0.5, 4, 5),  # too early to tell
        (50.0, 8, 20),  # no more than four times as many at once
    ],
)
def test_noise_that_lasts_raises_the_draws(noise, averaged, draws):
    assert draws_from_here(5, noise, averaged, CONFIG) == draws


def test_draws_have_a_limit_and_given_ones_are_kept():
    assert draws_from_here(150, 50.0, 8, CONFIG) == 200
    assert draws_from_here(5, 50.0, 8, EMConfig(tol=0.5, em_draws=5)) == 5
