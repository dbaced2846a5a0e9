"""What each part of a model adds to the linear predictor of a row."""

import numpy as np
import pandas as pd
import pytest
from _fits import QUICK, bernoulli, categorical, frame, gaussian, network

import glmmnet as gn
from glmmnet.errors import DesignError


def offsets() -> gn.GLMMNetResults:
    return gn.glmm("y ~ x + offset(z) + offset(2 * x) + (x | g)", frame()).fit(seed=1)


def cumulative() -> gn.GLMMNetResults:
    data = frame().assign(c=pd.Categorical(frame()["c"], ordered=True))
    return gn.glmm("c ~ x + offset(z) + (1 | g)", data, "cumulative").fit(**QUICK)


def zeros() -> gn.GLMMNetResults:
    return gn.glmm("k ~ x + (1 | g)", frame(), "zeroinflatedpoisson", zi="~ z + (1 | h)").fit(**QUICK)


FITS = {
    "gaussian": gaussian,
    "offsets": offsets,
    "bernoulli": bernoulli,
    "categorical": categorical,
    "reference": lambda: categorical("bb"),
    "cumulative": cumulative,
    "zeros": zeros,
    "network": network,
    "two blocks": lambda: network("y ~ nn(x) + nn(z) + (1 | g)"),
    "projection": lambda: network("y ~ x + nn(x + z) + nn(z) + (1 | g)"),
    "no intercept": lambda: network("y ~ 0 + nn(x) + nn(z) + (1 | g)"),
}


@pytest.mark.filterwarnings("ignore::glmmnet.errors.ConvergenceWarning")
@pytest.mark.parametrize("name", list(FITS))
def test_contributions_add_up_to_the_linear_predictor(name):
    r = FITS[name]()
    new = frame().head(3).assign(g=["g1", "new", "g2"])
    for rows, link in ((range(3), r.predict(kind="link")), (range(3), r.predict(new, kind="link"))):
        for i in rows:
            parts = r.explain(i) if len(link) > 3 else r.explain(new.iloc[[i]])
            found = parts.groupby("class", sort=False)["contribution"].sum() if "class" in parts else None
            found = [parts["contribution"].sum()] if found is None else found[list(link.columns)]
            np.testing.assert_allclose(found, np.ravel(link.iloc[i]), atol=2e-5)


def test_parts_of_a_gaussian_model():
    r = gaussian()
    parts, row = r.explain(0), frame().iloc[0]
    assert parts["part"].tolist() == ["fixed"] * 2 + ["random"] * 3
    assert parts["term"].tolist() == ["Intercept", "x", "(Intercept)", "x", "(Intercept)"]
    assert parts["level"].tolist() == ["", "", row["g"], row["g"], row["h"]]
    np.testing.assert_allclose(parts["value"], [1, row["x"], 1, row["x"], 1])
    means, sds = r.random_effects, r.random_effects_sd
    own = [*means["g"].loc[row["g"]], *means["h"].loc[row["h"]]]
    np.testing.assert_allclose(parts["effect"], [*r.params, *own], atol=1e-5)
    spread = np.array([*sds["g"].loc[row["g"]], *sds["h"].loc[row["h"]]])
    np.testing.assert_allclose(parts["sd"][2:], spread * [1, abs(row["x"]), 1])
    assert parts["sd"][:2].isna().all()


def test_an_unseen_level_has_no_effect_but_the_prior_spread():
    r = gaussian()
    parts = r.explain(frame().iloc[[1]].assign(g="new"))
    own = parts[parts["group"] == "g"]
    assert own["level"].tolist() == ["(unseen)"] * 2 and own["effect"].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(own["sd"], r.vcomp["sd"][:2] * [1, abs(frame()["x"][1])])


def test_blocks_are_apart_and_centred():
    r = network("y ~ nn(x) + nn(z) + (1 | g)")
    parts = [r.explain(i) for i in range(300)]
    for label in ("nn(x)", "nn(z)"):
        own = [float(p.loc[p["term"] == label, "contribution"].iloc[0]) for p in parts]
        assert abs(np.mean(own)) < 1e-5 < np.std(own)


def test_what_is_not_one_row_is_refused():
    r = gaussian()
    with pytest.raises(ValueError, match="3 rows"):
        r.explain(frame().head(3))
    with pytest.raises(DesignError, match="missing value"):
        r.explain(frame().iloc[[1]].assign(x=np.nan))
    with pytest.raises(IndexError, match="row 300"):
        r.explain(300)
    with pytest.raises(TypeError, match="row is a float"):
        r.explain(1.5)
    with pytest.raises(TypeError, match="row is a bool"):
        r.explain(True)
    assert r.explain(-1).equals(r.explain(299))
    with pytest.raises(TypeError, match=r"row is a Series; .*iloc\[\[0\]\]"):
        r.explain(frame().iloc[0])
