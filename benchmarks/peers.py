"""Other programs on the same rows: used if installed, on one thread, stopped early by the same rows."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType

import numpy as np
import pandas as pd

from benchmarks.tasks import Kind

#: Most trees of a boosted model, and how many without gain on the validation rows end it.
_TREES, _PATIENCE = 2000, 50
_LEARNING_RATE = 0.05
#: GPBoost estimates the variances anew with each tree, which takes seconds: fewer and larger steps.
_GPBOOST = {"trees": 200, "patience": 10, "learning_rate": 0.1}


@dataclass(frozen=True)
class Given:
    """Rows to learn from, to stop early by and to predict, and what their columns are."""

    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame
    target: str
    kind: Kind
    ordinary: Sequence[str]
    groups: Sequence[str]


class NotApplicable(Exception):
    """The peer has no such model; its row says why."""


@dataclass(frozen=True)
class Peer:
    """Another program.

    Attributes
    ----------
    name : str
    module, package : str
        What is imported, and its distribution, whose version is reported.
    fit_predict : callable
        Given -> P(1) (n,), P of each class (n, C), or means (n,).
    """

    name: str
    module: str
    package: str
    fit_predict: Callable[[Given], np.ndarray]

    @property
    def installed(self) -> bool:
        """Whether the module can be imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """``package version``."""
        return f"{self.package} {version(self.package)}"


def target_encoding_boosting(given: Given) -> np.ndarray:
    """Cross-fitted target encoding of the groups, then histogram gradient boosting."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import TargetEncoder
    from threadpoolctl import threadpool_limits

    folds = KFold(5, shuffle=True, random_state=0)
    encoder = TargetEncoder(target_type="continuous" if given.kind == "regression" else given.kind, cv=folds)
    coded = encoder.fit_transform(given.train[list(given.groups)], given.train[given.target])
    x_train = np.hstack([given.train[list(given.ordinary)], coded])
    x_valid, x_test = (
        np.hstack([rows[list(given.ordinary)], encoder.transform(rows[list(given.groups)])])
        for rows in (given.valid, given.test)
    )
    model = (HistGradientBoostingRegressor if given.kind == "regression" else HistGradientBoostingClassifier)(
        learning_rate=_LEARNING_RATE,
        max_iter=_TREES,
        early_stopping=True,
        n_iter_no_change=_PATIENCE,
        random_state=0,
    )
    with threadpool_limits(1):
        model.fit(x_train, given.train[given.target], X_val=x_valid, y_val=given.valid[given.target])
        if given.kind == "regression":
            return model.predict(x_test)
        p = model.predict_proba(x_test)
    return p[:, 1] if given.kind == "binary" else p


def catboost(given: Given) -> np.ndarray:
    """CatBoost with the groups as categorical features."""
    from catboost import CatBoostClassifier, CatBoostRegressor, Pool

    def pool(rows: pd.DataFrame) -> Pool:
        return Pool(rows[[*given.ordinary, *given.groups]], rows[given.target], cat_features=list(given.groups))

    options = {
        "iterations": _TREES,
        "learning_rate": _LEARNING_RATE,
        "early_stopping_rounds": _PATIENCE,
        "thread_count": 1,
        "random_seed": 0,
        "verbose": False,
        "allow_writing_files": False,
    }
    model = CatBoostRegressor(**options) if given.kind == "regression" else CatBoostClassifier(**options)
    model.fit(pool(given.train), eval_set=pool(given.valid), use_best_model=True)
    if given.kind == "regression":
        return model.predict(pool(given.test))
    p = model.predict_proba(pool(given.test))
    return p[:, 1] if given.kind == "binary" else p


def gpboost_trees(given: Given) -> np.ndarray:
    """GPBoost: boosted trees of the ordinary columns plus a random intercept for each group."""
    if not given.ordinary:
        raise NotApplicable("no ordinary columns to grow trees on")
    gpb, effects = _gpboost_effects(given.train, given.kind, given.groups)
    effects.set_prediction_data(group_data_pred=_text(given.valid, given.groups))
    rows, held = (
        gpb.Dataset(part[list(given.ordinary)].to_numpy(float), part[given.target].to_numpy(float))
        for part in (given.train, given.valid)
    )
    booster = gpb.train(
        {"learning_rate": _GPBOOST["learning_rate"], "num_threads": 1, "verbose": -1, "seed": 0},
        rows,
        gp_model=effects,
        num_boost_round=_GPBOOST["trees"],
        valid_sets=held,
        early_stopping_rounds=_GPBOOST["patience"],
        use_gp_model_for_validation=True,
        verbose_eval=False,
    )
    predicted = booster.predict(
        data=given.test[list(given.ordinary)].to_numpy(float),
        group_data_pred=_text(given.test, given.groups),
        predict_var=False,
        pred_latent=False,
        num_iteration=booster.best_iteration,
    )
    return np.asarray(predicted["response_mean"])


def gpboost_linear(given: Given) -> np.ndarray:
    """GPBoost's generalized linear mixed model by Laplace; the validation rows are learned from too."""
    rows = pd.concat([given.train, given.valid])
    _, effects = _gpboost_effects(rows, given.kind, given.groups)
    x, x_test = _linear(rows, given.ordinary), _linear(given.test, given.ordinary)
    effects.fit(y=rows[given.target].to_numpy(float), X=x, params={"trace": False})
    predicted = effects.predict(X_pred=x_test, group_data_pred=_text(given.test, given.groups), predict_response=True)
    return np.asarray(predicted["mu"])


def mixed_lm(given: Given) -> np.ndarray:
    """The linear mixed model of statsmodels by maximum likelihood; the validation rows are learned from too."""
    if given.kind != "regression" or len(given.groups) != 1:
        raise NotApplicable("Gaussian response and one grouping factor only")
    from statsmodels.regression.mixed_linear_model import MixedLM

    rows = pd.concat([given.train, given.valid])
    model = MixedLM(rows[given.target].to_numpy(float), _linear(rows, given.ordinary), rows[given.groups[0]].to_numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = model.fit(reml=False)
    effects = {level: float(effect.iloc[0]) for level, effect in fitted.random_effects.items()}
    return _linear(given.test, given.ordinary) @ fitted.fe_params + given.test[given.groups[0]].map(effects).fillna(
        0.0
    ).to_numpy(float)


PEERS: tuple[Peer, ...] = (
    Peer("target encoding + boosting", "sklearn", "scikit-learn", target_encoding_boosting),
    Peer("CatBoost", "catboost", "catboost", catboost),
    Peer("GPBoost", "gpboost", "gpboost", gpboost_trees),
    Peer("GPBoost linear", "gpboost", "gpboost", gpboost_linear),
    Peer("MixedLM", "statsmodels", "statsmodels", mixed_lm),
)


def _gpboost_effects(rows: pd.DataFrame, kind: Kind, groups: Sequence[str]) -> tuple[ModuleType, object]:
    """GPBoost and its random intercepts of the groups."""
    if kind == "multiclass":
        raise NotApplicable("GPBoost has no multiclass response")
    gpb = importlib.import_module("gpboost")
    likelihood = "gaussian" if kind == "regression" else "bernoulli_logit"
    return gpb, gpb.GPModel(group_data=_text(rows, groups), likelihood=likelihood, num_parallel_threads=1)


def _text(rows: pd.DataFrame, groups: Sequence[str]) -> np.ndarray:
    return rows[list(groups)].astype(str).to_numpy(dtype=object)


def _linear(rows: pd.DataFrame, ordinary: Sequence[str]) -> np.ndarray:
    """An intercept and the ordinary columns."""
    return np.column_stack([np.ones(len(rows)), rows[list(ordinary)].to_numpy(float)])
