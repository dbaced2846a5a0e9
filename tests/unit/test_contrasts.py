"""Wald, z and likelihood-ratio tests against their textbook formulas."""

import re
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from _fits import QUICK, categorical, frame, gaussian
from matplotlib.figure import Figure

import glmmnet as gn
from glmmnet import contrasts
from glmmnet.errors import FormulaError


@pytest.fixture(scope="module")
def r():
    return gaussian("y ~ c + x + (1 | g)")


def test_z_test_of_one_combination(r):
    test = r.t_test("c[T.bb] - c[T.cc] = 0.1, x")
    weights = np.array([[0, 1, -1, 0], [0, 0, 0, 1]])
    effect = weights @ r.params
    sd = np.sqrt(np.diag(weights @ r.cov_params() @ weights.T))
    z = (effect - [0.1, 0]) / sd
    np.testing.assert_allclose(test.effect, effect)
    np.testing.assert_allclose(test.sd, sd)
    np.testing.assert_allclose(test.tvalue, z)
    np.testing.assert_allclose(test.pvalue, 2 * scipy.stats.norm.sf(abs(z)))
    np.testing.assert_allclose(test.conf_int(0.1)[:, 0], effect - 1.6448536 * sd, rtol=1e-6)
    table = test.summary_frame()
    assert table.columns.tolist() == ["coef", "std err", "z", "P>|z|", "[0.025", "0.975]"]
    assert "c0" in str(test)


def test_matrix_and_text_agree(r):
    np.testing.assert_allclose(r.t_test(np.eye(4)[3]).tvalue, r.t_test("x = 0").tvalue)
    np.testing.assert_allclose(r.t_test(np.eye(4)).tvalue, r.tvalues)
    np.testing.assert_allclose(r.t_test(np.eye(4)).pvalue, r.pvalues)


def test_wald_is_the_quadratic_form(r):
    test = r.wald_test("c[T.bb] = 0, c[T.cc] = 0.5")
    difference = r.params.to_numpy()[1:3] - [0, 0.5]
    statistic = difference @ np.linalg.solve(r.cov_params().to_numpy()[1:3, 1:3], difference)
    assert test.statistic == pytest.approx(statistic) and test.df == 2
    assert test.pvalue == pytest.approx(scipy.stats.chi2.sf(statistic, 2))
    assert r.wald_test("x").statistic == pytest.approx(r.tvalues["x"] ** 2)
    assert "chi2(2)" in str(test)


def test_a_repeated_hypothesis_counts_once(r):
    assert r.wald_test("x = 0, 2*x = 0").df == 1
    assert r.wald_test("x = 0, 2*x = 0").statistic == pytest.approx(r.wald_test("x = 0").statistic)


def test_contradicting_hypotheses_are_refused(r):
    with pytest.raises(ValueError, match="contradict"):
        r.wald_test("x = 0, x = 1")


def test_coefficients_of_classes_have_names():
    r = categorical("bb")
    test = r.t_test("x[aa] - x[cc] = 0")
    assert test.effect[0] == pytest.approx(r.params.loc["x", "aa"] - r.params.loc["x", "cc"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.eye(3), "needs 4 columns"),
        (np.zeros((1, 4)), "all zero"),
        ([np.nan, 0, 0, 0], "not finite"),
        (np.zeros((1, 1, 4)), "shape"),
    ],
)
def test_wrong_matrices_are_refused(r, wrong, message):
    for test in (r.t_test, r.wald_test):
        with pytest.raises(ValueError, match=message):
            test(wrong)


def test_wrong_texts_are_refused(r):
    with pytest.raises(FormulaError, match="'q' in `q = 1` is not a coefficient"):
        r.t_test("q = 1")
    with pytest.raises(FormulaError):
        r.t_test("")


@pytest.fixture(scope="module")
def with_alpha(r):
    """Everything that takes alpha."""
    return {
        "conf_int": r.conf_int,
        "summary": r.summary,
        "t_test.conf_int": r.t_test("x").conf_int,
        "t_test.summary_frame": r.t_test("x").summary_frame,
        "get_prediction.summary_frame": r.get_prediction().summary_frame,
        "plot.forest": lambda alpha: r.plot.forest(Figure().subplots(), alpha=alpha),
        "plot.caterpillar": lambda alpha: r.plot.caterpillar(Figure().subplots(), alpha=alpha),
    }


@pytest.mark.parametrize("alpha", ["a", None, True, np.True_, [0.05], 0.05j, np.complex128(0.05)])
def test_alpha_that_is_no_number_is_refused(with_alpha, alpha):
    for call in with_alpha.values():
        with pytest.raises(TypeError, match=rf"alpha={re.escape(repr(alpha))} must be a number between 0 and 1"):
            call(alpha)


@pytest.mark.parametrize("alpha", [np.float32(0.05), np.float64(0.05), Fraction(1, 20)])
def test_alpha_of_any_real_type_is_taken(with_alpha, alpha):
    for name, call in with_alpha.items():
        taken = call(alpha)
        if name.startswith("plot."):
            assert "95% interval" in taken.get_xlabel()
        elif name == "summary":
            assert str(taken) == str(call(0.05))
        else:
            np.testing.assert_allclose(taken, call(0.05), rtol=1e-4)


@pytest.mark.parametrize("alpha", [0, 1, 2, -0.1, float("nan"), np.float32(1.0)])
def test_wrong_alpha_is_refused(with_alpha, alpha):
    for call in with_alpha.values():
        with pytest.raises(ValueError, match=rf"alpha={re.escape(repr(alpha))} must lie between 0 and 1"):
            call(alpha)


def test_conf_int_is_symmetric_in_standard_errors(r):
    table = r.conf_int(0.2)
    np.testing.assert_allclose(table[0], r.params - 1.2815516 * r.bse, rtol=1e-6)
    np.testing.assert_allclose(table[1], r.params + 1.2815516 * r.bse, rtol=1e-6)


def test_likelihood_ratio(r):
    smaller = gaussian("y ~ x + (1 | g)")
    test = r.compare_lr_test(smaller)
    assert test.statistic == pytest.approx(2 * (r.llf - smaller.llf))
    assert test.df == 2 and test.statistic_se == 0
    assert test.pvalue == pytest.approx(scipy.stats.chi2.sf(test.statistic, 2))
    assert "chi2(2)" in str(test)


def test_likelihood_ratio_refuses_what_does_not_compare(r):
    with pytest.raises(ValueError, match=r"larger\.compare_lr_test\(smaller\)"):
        gaussian("y ~ x + (1 | g)").compare_lr_test(r)
    with pytest.raises(TypeError, match="int"):
        r.compare_lr_test(5)
    fewer = gn.glmm("y ~ x + (1 | g)", data=frame().head(250)).fit(seed=1)
    with pytest.raises(ValueError, match="300 and 250 rows"):
        r.compare_lr_test(fewer)
    other = gn.glmm("z ~ x + (1 | g)", data=frame()).fit(seed=1)
    with pytest.raises(ValueError, match="different responses"):
        r.compare_lr_test(other)


def fitted(formula, family="gaussian", **options):
    return gn.glmm(
        formula, data=frame().assign(u=2 * frame()["x"] + 1, s=np.arange(300) % 3), family=family, **options
    ).fit(**QUICK)


@pytest.mark.parametrize(
    ("larger", "smaller", "message"),
    [
        ({"weights": "w"}, {}, "different weights"),
        ({"weights": "w", "weight_kind": "precision"}, {}, "precision weights"),
        ({"formula": "y ~ x + z + offset(w) + (1 | g)"}, {}, "different offsets"),
        ({"formula": "y ~ x + (1 | g)"}, {"formula": "y ~ z"}, "fixed effects z"),
        ({"formula": "y ~ x + z + (1 | h)"}, {"formula": "y ~ x + (1 | g)"}, r"random term `\(1 \| g\)`"),
        ({"formula": "y ~ (0 + x | g) + x + z"}, {"formula": "y ~ x + (1 | g)"}, "random term"),
        ({"formula": "y ~ (1 | g) + (0 + x | g) + x + z"}, {"formula": "y ~ (x | g)"}, "random term"),
        ({"formula": "y ~ x + z"}, {"formula": "y ~ 1", "dispersion": "~ x"}, "fixed effects dispersion:Intercept"),
    ],
)
def test_likelihood_ratio_refuses_models_that_are_not_nested(larger, smaller, message):
    one, other = (fitted(**{"formula": "y ~ x + z + (1 | g)", **options}) for options in (larger, smaller))
    if "formula" not in smaller:
        other = fitted("y ~ x + (1 | g)")
    with pytest.raises(ValueError, match=message):
        one.compare_lr_test(other)


@pytest.mark.parametrize(
    ("larger", "smaller", "option"),
    [
        (gn.families.StudentT(df=3), gn.families.StudentT(df=9), "df=3"),
        (gn.families.StudentT(df=None), gn.families.StudentT(df=9), "df=None"),
        (gn.families.Bernoulli(), gn.families.Bernoulli(link="probit"), "link='logit'"),
    ],
)
def test_likelihood_ratio_refuses_other_options_of_the_family(larger, smaller, option):
    response = "b" if larger.name == "bernoulli" else "y"
    with pytest.raises(ValueError, match=option):
        fitted(f"{response} ~ x + z", larger).compare_lr_test(fitted(f"{response} ~ x", smaller))


@pytest.mark.parametrize(
    ("larger", "smaller", "df", "boundary"),
    [
        ({"formula": "y ~ u + z + (x | g)"}, {"formula": "y ~ x + (x | g)"}, 1, False),
        ({"formula": "y ~ x + (x | g)"}, {"formula": "y ~ x + (x || g)"}, 1, False),
        ({"formula": "y ~ x + z + (1 | g)"}, {"formula": "y ~ x + offset(z) + (1 | g)"}, 1, False),
        ({"formula": "y ~ x + (1 | g:s) + (1 | h)"}, {"formula": "y ~ x + (1 | s:g)"}, 1, True),
        ({"formula": "y ~ x + (x || g)"}, {"formula": "y ~ x + (1 | g)"}, 1, True),
        ({"formula": "y ~ x + (0 + C(h) | g)"}, {"formula": "y ~ x + (1 | g)"}, 35, True),
        ({"formula": "y ~ x + cs(x | g)"}, {"formula": "y ~ x + (0 + x | g)"}, 2, True),
        ({"formula": "y ~ x + (1 | g)"}, {"formula": "y ~ x"}, 1, True),
        ({"formula": "y ~ x", "dispersion": "~ x"}, {"formula": "y ~ x"}, 1, False),
        ({"formula": "y ~ nn(x + z)"}, {"formula": "y ~ x"}, None, False),
    ],
)
def test_likelihood_ratio_of_nested_models(larger, smaller, df, boundary):
    test = fitted(**larger).compare_lr_test(fitted(**smaller))
    assert df is None or test.df == df
    assert test.boundary is boundary
    assert str(test).endswith("\nconservative: a variance is tested at 0") is boundary


def test_restricted_likelihoods_know_no_order_of_columns():
    one, other = (
        gn.glmm(f, data=frame()).fit(**QUICK, reml=True) for f in ("y ~ x + z + (x | g)", "y ~ z + x + (1 | g)")
    )
    assert one.compare_lr_test(other).df == 2


def test_correlated_classes_contain_independent_ones():
    families = (gn.families.Categorical(reference="aa", class_cov=cov) for cov in ("us", "independent"))
    one, other = (fitted("c ~ x + (1 | g)", family) for family in families)
    assert one.compare_lr_test(other).df == 1
    with pytest.raises(ValueError, match="class_cov='independent' in this model, 'us' in the other"):
        other.compare_lr_test(one)


def test_negative_statistics_have_p_one():
    assert contrasts.lr_test(-10.0, 3, -9.99, 2, 0.1, False).pvalue == 1.0
    assert contrasts.lr_test(-10.0, 3, -12.0, 2, 0.1, False).statistic_se == 0.2
