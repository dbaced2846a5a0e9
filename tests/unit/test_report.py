"""The printed summary: which numbers and words stand where, family by family."""

import re

import numpy as np
import pytest
from _fits import QUICK, bernoulli, binomial, categorical, frame, gaussian, network

import glmmnet as gn
from glmmnet.errors import DataWarning

FITS = {
    "gaussian": gaussian,
    "bernoulli": bernoulli,
    "nuts": lambda: bernoulli(sampler="nuts"),
    "binomial": binomial,
    "categorical": categorical,
    "reference": lambda: categorical("bb"),
    "network": network,
    "no random": lambda: gaussian("y ~ x"),
    "no fixed": lambda: gaussian("y ~ 0 + (1 | g)"),
    "only network": lambda: network("y ~ nn(x + z)"),
    "factor slopes": lambda: gaussian("y ~ x + (c || g)"),
    "nested": lambda: gaussian("y ~ x + (1 | g/h)"),
    "no random bernoulli": lambda: bernoulli("b ~ x"),
}


@pytest.mark.parametrize("name", FITS)
def test_text_fits_80_columns_and_is_complete(name):
    results = FITS[name]()
    text = str(results.summary())
    assert max(map(len, text.splitlines())) == 80
    # 200 draws may say too little of a variance, and one of 0 has no interval; then the summary says so.
    reasons = (
        "No std err (nan) where the draws carry too little information",
        "Singular fit: a variance is estimated as 0",
    )
    assert "nan" not in text or any(reason in text for reason in reasons)
    assert "nan" not in text or results.fitted.draws.stats
    assert f"No. Observations:{results.nobs:>23}" in text
    digits = 1 if results.llf_se > 0 else 3
    assert f"{results.llf:.{digits}f}" in text


@pytest.mark.parametrize("name", ["gaussian", "categorical", "network", "no random"])
def test_other_forms_hold_the_same_coefficients(name):
    results = FITS[name]()
    summary = results.summary()
    shown = f"{results.params.to_numpy().ravel()[0]:.4f}"
    for form in (summary._repr_html_(), summary.as_latex(), summary.as_markdown(), str(summary)):
        assert shown in form
    assert summary._repr_html_().count("<table") == summary._repr_html_().count("</table>") >= 2
    assert summary.as_latex().count(r"\begin{tabular}") == summary.as_latex().count(r"\end{tabular}") >= 2


def test_numbers_of_the_tables_are_those_of_the_results():
    r = gaussian()
    text = str(r.summary())
    (row,) = re.findall(r"^x .*$", text, re.MULTILINE)
    expected = [f"{r.params['x']:.4f}", f"{r.bse['x']:.3f}", f"{r.tvalues['x']:.3f}", f"{r.pvalues['x']:.3f}"]
    assert row.split()[1:5] == expected
    (row,) = re.findall(r"^h .*$", text, re.MULTILINE)
    v = r.vcomp.iloc[2]
    numbers = [f"{v['variance']:.4f}", f"{v['sd']:.4f}", f"{v['se']:.3f}", f"{v['ci_low']:.3f}", f"{v['ci_high']:.3f}"]
    assert row.split()[1:] == ["(Intercept)", "8", *numbers]
    (row,) = re.findall(r"^ +corr .*$", text, re.MULTILINE)
    sigma = r.cov_re["g"].to_numpy()
    assert row.split()[1] == "(Int),x"
    assert float(row.split()[2]) == pytest.approx(sigma[0, 1] / (sigma[0, 0] * sigma[1, 1]) ** 0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "method", "note"),
    [
        ("gaussian", "ML (exact)", "Exact Gaussian likelihood (blocked Cholesky): converged;"),
        ("bernoulli", "MCEM (Metropolis)", "Response: success: 1"),
        ("nuts", "MCEM (NUTS)", "Response: success: 1"),
        ("reference", "MCEM (Metropolis)", "Response: reference: 'bb'"),
        ("network", "MCEM (exact draws)", "Exact Gaussian likelihood (blocked Cholesky): converged;"),
        ("no random bernoulli", "ML", "Newton: converged"),
        ("only network", "Minibatches", None),
        ("no random", "ML", None),
    ],
)
def test_method_and_notes_say_what_was_done(name, method, note):
    text = str(FITS[name]().summary())
    assert re.search(rf"Method: +{re.escape(method)}  ", text)
    if note is None:
        # Without random effects nothing was drawn.
        assert "draws" not in text and "MCEM" not in text
    else:
        assert note in text


def test_a_gaussian_model_is_not_called_exact_where_it_is_scored():
    limited, exact = (gaussian("y ~ x + (1 | g) + (1 | h)", exact_limit=limit) for limit in (5, 3000))
    np.testing.assert_allclose(limited.vcomp["sd"], exact.vcomp["sd"], rtol=0.05)
    text = str(limited.summary())
    assert re.search(r"Method: +ML \(scoring\)  ", text)
    assert "Gaussian likelihood by Fisher scoring (random probes)" in text


def test_sampler_note_has_the_diagnostics():
    r = bernoulli(sampler="nuts")
    text = str(r.summary())
    assert f"R-hat {r.diagnostics.r_hat:.2f}, ESS {r.diagnostics.ess_bulk:.0f}" in text
    assert "divergent 0/200" in text


def test_alpha_changes_the_intervals():
    assert "[0.05" in str(gaussian().summary(alpha=0.1)) and "0.95]" in str(gaussian().summary(alpha=0.1))


def test_network_rows_name_the_blocks():
    text = str(network().summary())
    assert "nn(x + z)" in text and "2-8-1 silu" in text and "Df Neural:                            33" in text
    assert "Mixed-Effects Neural Network Results" in text


def test_what_standard_errors_hold_fixed_is_said(monkeypatch):
    variances = "Std err of coefficients hold the variances fixed"
    for name in ("gaussian", "bernoulli", "no random bernoulli"):
        assert variances not in _words(FITS[name]())
    # As with more effects than the observed information is differenced for.
    monkeypatch.setattr("glmmnet.observed._MOST_EFFECTS", 10)
    crossed = gn.glmm("b ~ x + (1 | g) + (1 | h)", data=frame(), family="bernoulli").fit(**QUICK)
    assert variances in _words(crossed)
    assert "Std err hold the network fixed, but for its last layer" in _words(network())


def _words(results):
    return re.sub(r"\s+", " ", str(results.summary()))


def test_dropped_rows_and_lack_of_convergence_are_noted():
    data = frame().assign(x=frame()["x"].where(frame().index > 4))
    with pytest.warns(gn.errors.DataWarning):
        model = gn.glmm("b ~ x + (1 | g) + (1 | h)", data=data, family="bernoulli")
    with pytest.warns(gn.errors.ConvergenceWarning):
        r = model.fit(seed=1, max_iter=1, draws=20, chains=2, tol=1e-6)
    text = str(r.summary())
    assert "5 of 300 rows dropped" in text
    assert "NOT converged, 1/1 iter" in text


def test_a_gaussian_fit_that_did_not_converge_says_so():
    # Correlated effects of x beyond the exact likelihood's limit: EM, and one iteration of it.
    with pytest.warns(gn.errors.ConvergenceWarning):
        r = gaussian(exact_limit=0, max_iter=1)
    assert not r.converged
    assert "EM with exact draws (sparse factor): NOT converged;" in str(r.summary())


def test_collinear_columns_are_named():
    data = frame().assign(x2=2 * frame()["x"], one=1.0)
    with pytest.warns(DataWarning, match="collinear: x, x2;"):
        r = gn.glmm("y ~ x + z + x2 + (1 | g)", data=data).fit(seed=1)
    assert "Not identified, as they are collinear: x, x2" in str(r.summary())
    with pytest.warns(DataWarning, match="collinear: Intercept, one;"):
        r = gn.glmm("y ~ x + one + (1 | g)", data=data).fit(seed=1)
    assert "collinear: Intercept, one" in str(r.summary())
    assert "collinear" not in str(gaussian().summary())
