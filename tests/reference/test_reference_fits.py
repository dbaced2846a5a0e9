"""Fits against lme4, glmmTMB, ordinal and quadrature; adding one is an entry of fits.json."""

from __future__ import annotations

import pytest

from benchmarks._references import REFERENCES, TOLERANCES, Figures, beyond, compare, fit, fit_once, same_model

#: Models that take more than two seconds.
SLOW = {
    "TMBown_ricefarms_varieties_corr_ML",
    "TMBown_ricefarms_varieties_indep_ML",
    "clmm_wine_judge_bottle_logit_nAGQ1",
    "glmer_grouseticks_nAGQ1",
    "glmer_toenail_nAGQ1",
    "glmer_verbagg_nAGQ1",
    "glmmTMB_cbpp_betabinomial",
    "glmmTMB_salamanders_hurdle_tpois",
    "glmmTMB_salamanders_zinb2",
    "glmmTMB_salamanders_zip",
    "glmmTMB_salamanders_zip_spp",
    "lmer_insteval_sd_REML",
    "lmer_insteval_service_sd_deptservice_ML",
    "lmer_insteval_service_sd_deptservice_REML",
}
#: What the Monte Carlo EM may be off by where the answer is known to all digits.
SAMPLING = Figures(fixed=0.1, sd=0.02, cor=0.05, llf=0.5, se=0.05)


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] * (same_model(name) in SLOW)


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in REFERENCES])
def test_fit(name: str) -> None:
    comparison = compare(fit_once(name), name)
    # A reference that is said to be off must be off.
    assert set(comparison.beyond) == set(REFERENCES[name].get("off", ())), comparison


@pytest.mark.parametrize("name", ["lmer_sleepstudy_slope_ML", "lmer_penicillin_ML"])
def test_fit_by_sampling(name: str) -> None:
    """The Monte Carlo EM that other families need, where the answer is known to all digits."""
    results = fit(name, sampler="nuts")
    assert results.converged
    comparison = compare(results, name)
    assert not beyond(comparison.figures, SAMPLING), comparison


def test_every_reference_says_where_it_is_from_and_why_it_is_off() -> None:
    for name, entry in REFERENCES.items():
        assert entry["call"] and entry["software"] and len(entry["data"]) == 2, name
        assert entry["kind"] in TOLERANCES and entry["llf_method"] in ("exact", "quadrature", "laplace"), name
        assert entry["note"] if "off" in entry or "sd_range" in entry else True, name


def test_only_fits_that_there_are_are_slow() -> None:
    assert {same_model(name) for name in REFERENCES} >= SLOW


def test_singular_fit_is_called_so() -> None:
    assert fit_once("lmer_dyestuff2_singular_ML").singular
    assert not fit_once("lmer_pastes_ML").singular
