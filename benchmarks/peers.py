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

FitPredict = Callable[
    [pd.DataFrame, pd.DataFrame, pd.DataFrame, str, Kind, Sequence[str], Sequence[str]],
    np.ndarray,
]


class NotApplicable(Exception):
    """The peer has no such model; its row says why."""


@dataclass(frozen=True)
class Peer:
    """Another program.

    Attributes
    ----------
    name : str
    library, package : str
        What is imported, and its distribution, whose version is reported.
    fit_predict : callable
        (train, valid, test, target, kind, ordinary, groups) -> P(1) (n,), P of each class (n, C), or means (n,).
    """

    name: str
    library: str
    package: str
    fit_predict: FitPredict

    @property
    def installed(self) -> bool:
        """Whether the library can be imported."""
        return importlib.util.find_spec(self.library) is not None

    @property
    def version(self) -> str:
        """``package version``."""
        return f"{self.package} {version(self.package)}"


def target_encoding_boosting(
    train: pd.DataFrame,
    valid: pd.DataFrame,
    test: pd.DataFrame,
    target: str,
    kind: Kind,
    ordinary: Sequence[str],
    groups: Sequence[str],
) -> np.ndarray:
    """Cross-fitted target encoding of the groups, then histogram gradient boosting."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import TargetEncoder
    from threadpoolctl import threadpool_limits

    folds = KFold(5, shuffle=True, random_state=0)
    encoder = TargetEncoder(target_type="continuous" if kind == "regression" else kind, cv=folds)
    coded = encoder.fit_transform(train[list(groups)], train[target])
    x_train = np.hstack([train[list(ordinary)], coded])
    x_valid, x_test = (
        np.hstack([rows[list(ordinary)], encoder.transform(rows[list(groups)])]) for rows in (valid, test)
    )
    model = (HistGradientBoostingRegressor if kind == "regression" else HistGradientBoostingClassifier)(
        learning_rate=_LEARNING_RATE,
        max_iter=_TREES,
        early_stopping=True,
        n_iter_no_change=_PATIENCE,
        random_state=0,
    )
    with threadpool_limits(1):
        model.fit(x_train, train[target], X_val=x_valid, y_val=valid[target])
        if kind == "regression":
            return model.predict(x_test)
        p = model.predict_proba(x_test)
    return p[:, 1] if kind == "binary" else p


def catboost(
    train: pd.DataFrame,
    valid: pd.DataFrame,
    test: pd.DataFrame,
    target: str,
    kind: Kind,
    ordinary: Sequence[str],
    groups: Sequence[str],
) -> np.ndarray:
    """CatBoost with the groups as categorical features."""
    from catboost import CatBoostClassifier, CatBoostRegressor, Pool

    def pool(rows: pd.DataFrame) -> Pool:
        return Pool(rows[[*ordinary, *groups]], rows[target], cat_features=list(groups))

    options = {
        "iterations": _TREES,
        "learning_rate": _LEARNING_RATE,
        "early_stopping_rounds": _PATIENCE,
        "thread_count": 1,
        "random_seed": 0,
        "verbose": False,
        "allow_writing_files": False,
    }
    model = CatBoostRegressor(**options) if kind == "regression" else CatBoostClassifier(**options)
    model.fit(pool(train), eval_set=pool(valid), use_best_model=True)
    if kind == "regression":
        return model.predict(pool(test))
    p = model.predict_proba(pool(test))
    return p[:, 1] if kind == "binary" else p


def gpboost_trees(
    train: pd.DataFrame,
    valid: pd.DataFrame,
    test: pd.DataFrame,
    target: str,
    kind: Kind,
    ordinary: Sequence[str],
    groups: Sequence[str],
) -> np.ndarray:
    """GPBoost: boosted trees of the ordinary columns plus a random intercept for each group."""
    if not ordinary:
        raise NotApplicable("no ordinary columns to grow trees on")
    gpb, effects = _gpboost_effects(train, kind, groups)
    effects.set_prediction_data(group_data_pred=_text(valid, groups))
    rows, held = (
        gpb.Dataset(part[list(ordinary)].to_numpy(float), part[target].to_numpy(float)) for part in (train, valid)
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
        data=test[list(ordinary)].to_numpy(float),
        group_data_pred=_text(test, groups),
        predict_var=False,
        pred_latent=False,
        num_iteration=booster.best_iteration,
    )
    return np.asarray(predicted["response_mean"])


def gpboost_linear(
    train: pd.DataFrame,
    valid: pd.DataFrame,
    test: pd.DataFrame,
    target: str,
    kind: Kind,
    ordinary: Sequence[str],
    groups: Sequence[str],
) -> np.ndarray:
    """GPBoost's generalized linear mixed model by Laplace; the validation rows are learned from too."""
    rows = pd.concat([train, valid])
    _, effects = _gpboost_effects(rows, kind, groups)
    x, x_test = _linear(rows, ordinary), _linear(test, ordinary)
    effects.fit(y=rows[target].to_numpy(float), X=x, params={"trace": False})
    predicted = effects.predict(X_pred=x_test, group_data_pred=_text(test, groups), predict_response=True)
    return np.asarray(predicted["mu"])


def mixed_lm(
    train: pd.DataFrame,
    valid: pd.DataFrame,
    test: pd.DataFrame,
    target: str,
    kind: Kind,
    ordinary: Sequence[str],
    groups: Sequence[str],
) -> np.ndarray:
    """The linear mixed model of statsmodels by maximum likelihood; the validation rows are learned from too."""
    if kind != "regression" or len(groups) != 1:
        raise NotApplicable("Gaussian response and one grouping factor only")
    from statsmodels.regression.mixed_linear_model import MixedLM

    rows = pd.concat([train, valid])
    model = MixedLM(rows[target].to_numpy(float), _linear(rows, ordinary), rows[groups[0]].to_numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = model.fit(reml=False)
    effects = {level: float(effect.iloc[0]) for level, effect in fitted.random_effects.items()}
    return _linear(test, ordinary) @ fitted.fe_params + test[groups[0]].map(effects).fillna(0.0).to_numpy(float)


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
