"""Diagnostics tell good chains from bad ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from _fits import SEED, bernoulli, categorical, gaussian

from glmmnet.diagnostics import diagnose
from glmmnet.inference_data import chain_statistics


def test_independent_draws_pass():
    d = gaussian().diagnostics
    assert d.table["group"].tolist() == ["g", "g", "h"]
    assert d.table["term"].tolist() == ["(Intercept)", "x", "(Intercept)"]
    assert 0.99 < d.r_hat < 1.03
    assert d.ess_bulk > 600 and d.ess_tail > 500
    assert d.draws == 1000 and d.divergences == 0 and np.isnan(d.bfmi)


def test_chains_in_two_places_are_told():
    fitted = gaussian().fitted
    b = fitted.draws.b.clone()
    b[3, :, :250] += 50 * b[3].std()
    d = diagnose(replace(fitted, draws=replace(fitted.draws, b=b)))
    assert d.r_hat > 1.5
    assert d.table["r_hat"].idxmax() == 1 and d.table["r_hat"][2] < 1.03


def test_chains_that_stand_still_apart_have_an_infinite_r_hat():
    # Eight draws a chain: sums of equal numbers are exact, and the variance within is 0.
    still = np.repeat([[0.0], [1.0]], 8, axis=1)
    moving = np.random.default_rng(SEED).normal(size=(2, 8))
    r_hat, bulk, tail = chain_statistics(np.stack([still, moving], axis=2))
    assert r_hat[0] == np.inf and 0.5 < r_hat[1] < 3
    assert np.isfinite(bulk).all() and np.isfinite(tail).all()


def test_slow_chains_have_few_effective_draws():
    fitted = gaussian().fitted
    walk = torch.as_tensor(np.random.default_rng(SEED).normal(size=1000).cumsum(), dtype=torch.float32)
    b = fitted.draws.b.clone()
    b[0, 0] = walk
    d = diagnose(replace(fitted, draws=replace(fitted.draws, b=b)))
    assert d.ess_bulk < 100 and d.table["ess_bulk"][2] > 600


def test_divergences_and_depth_hits_are_counted():
    fitted = bernoulli(sampler="nuts").fitted
    stats = {name: values.copy() for name, values in fitted.draws.stats.items()}
    stats["diverging"][:] = False
    stats["diverging"][0, :3] = True
    stats["tree_depth"][:] = 2
    stats["tree_depth"][1, :5] = fitted.draws.max_tree_depth
    d = diagnose(replace(fitted, draws=replace(fitted.draws, stats=stats)))
    assert d.divergences == 3 and d.depth_hits == 5 and d.draws == 200


def test_bfmi_is_the_smallest_of_the_chains():
    fitted = bernoulli(sampler="nuts").fitted
    energy = fitted.draws.stats["energy"].copy()
    energy[1] = np.arange(100.0)
    stats = {**fitted.draws.stats, "energy": energy}
    # A straight line: squared steps 1 over the variance of 0..99.
    expected = 1 / np.var(np.arange(100))
    assert diagnose(replace(fitted, draws=replace(fitted.draws, stats=stats))).bfmi == pytest.approx(expected, rel=0.02)


def test_classes_are_looked_at_together():
    assert len(categorical().diagnostics.table) == 1
    assert np.isfinite(categorical().diagnostics.r_hat)


def test_nothing_to_diagnose():
    d = gaussian("y ~ x").diagnostics
    assert d.table.empty and np.isnan(d.r_hat) and np.isnan(d.ess_bulk)
