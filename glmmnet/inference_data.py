"""Arrays -> ArviZ object: the one place that knows InferenceData (ArviZ 0.x) from DataTree (ArviZ 1.x)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

SAMPLED_GROUPS = ("posterior", "sample_stats", "log_likelihood", "posterior_predictive")
DATA_GROUPS = ("observed_data", "constant_data")
SAMPLE_DIMS = ("chain", "draw")
# rows of the data, whose coordinate is a row number and stays one
ROW_DIM = "__obs__"


def to_arviz(
    groups: Mapping[str, Mapping[str, np.ndarray]],
    coords: Mapping[str, Sequence[Any] | np.ndarray | pd.Index],
    dims: Mapping[str, Sequence[str]],
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """Arrays by group and variable as what the installed ArviZ works with.

    Parameters
    ----------
    groups : mapping of str to mapping of str to ndarray
        ``posterior``, ``sample_stats``, ``log_likelihood``, ``posterior_predictive``: arrays (chains, draws,
        ...); ``observed_data``, ``constant_data``: arrays (...). A group without variables is left out.
    coords : mapping of str to sequence
        Labels of each dimension. They become strings (levels may be of any type, ArviZ fails on tuples),
        except the row numbers of ``__obs__``.
    dims : mapping of str to sequence of str
        Dimensions of each variable beyond chain and draw, the same in every group that has it; a variable
        that is not listed has none.
    attrs : mapping, optional
        Attributes of the whole object.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        By the major version of ArviZ.

    Raises
    ------
    ValueError
        An unknown group; an array that does not fit its dimensions or their labels; chains and draws that
        differ between variables; labels that are equal as strings.
    """
    groups = {group: dict(variables) for group, variables in groups.items() if variables}
    labels = {dim: _labels(dim, values) for dim, values in coords.items()}
    for group, variables in groups.items():
        _check_group(group, variables, labels, dims)
    _check_same_draws(groups)

    datasets = {group: _dataset(group, variables, labels, dims) for group, variables in groups.items()}
    arviz = import_arviz()
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(attrs=dict(attrs or {}), **datasets)
    import xarray

    tree = xarray.DataTree.from_dict(datasets)
    tree.attrs = dict(attrs or {})
    return tree


def import_arviz() -> Any:
    """The arviz package, imported when it is first asked for."""
    with warnings.catch_warnings():
        # once a day 0.23 announces ArviZ 1 when it is imported
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def _dataset(
    group: str,
    variables: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
) -> Any:
    """One group as an xarray Dataset.

    ArviZ's own ``from_dict`` is not used: in 0.x it turns numbers into arrays of one entry, 1.x wants other
    arguments.
    """
    import xarray

    arrays = {name: (_dims_of(group, name, dims), values) for name, values in variables.items()}
    used = {dim: np.shape(values)[i] for names, values in arrays.values() for i, dim in enumerate(names)}
    coords = {dim: labels.get(dim, np.arange(size)) for dim, size in used.items()}
    return xarray.Dataset(arrays, coords=coords)


def _dims_of(group: str, name: str, dims: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    sampled = SAMPLE_DIMS if group in SAMPLED_GROUPS else ()
    return (*sampled, *dims.get(name, ()))


def _labels(dim: str, values: Sequence[Any] | np.ndarray | pd.Index) -> np.ndarray:
    if dim == ROW_DIM:
        return np.asarray(values)
    names = [str(value) for value in values]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"coords[{dim!r}] has {twice!r} twice (labels are compared as strings); rename one.")
    return np.array(names, dtype=str)


def _check_group(
    group: str,
    variables: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
) -> None:
    """ValueError unless group, shapes, dimensions and labels belong together."""
    if group not in SAMPLED_GROUPS + DATA_GROUPS:
        raise ValueError(f"There is no group {group!r}; known: {', '.join(SAMPLED_GROUPS + DATA_GROUPS)}.")
    for name, values in variables.items():
        wanted = _dims_of(group, name, dims)
        shape = np.shape(values)
        if len(shape) != len(wanted):
            raise ValueError(f"{group}[{name!r}] has shape {shape}, but its dimensions are {wanted}.")
        for dim, size in zip(wanted, shape, strict=True):
            if dim not in SAMPLE_DIMS and dim not in labels:
                raise ValueError(f"{group}[{name!r}] has the dimension {dim!r}, which coords= lacks.")
            if dim in labels and size != len(labels[dim]):
                raise ValueError(
                    f"{group}[{name!r}] has {size} entries along {dim!r}, coords= labels {len(labels[dim])}."
                )


def _check_same_draws(groups: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    first: tuple[str, tuple[int, ...]] | None = None
    for group in SAMPLED_GROUPS:
        for name, values in groups.get(group, {}).items():
            here = (f"{group}[{name!r}]", np.shape(values)[:2])
            first = first or here
            if here[1] != first[1]:
                raise ValueError(
                    f"{here[0]} has {here[1]} chains and draws, {first[0]} has {first[1]}; they must agree."
                )


def chain_statistics(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ArviZ's rank-normalised R-hat, bulk and tail effective sample size of each series.

    Parameters
    ----------
    draws : ndarray, (chains, draws, k)

    Returns
    -------
    tuple of ndarray, each (k,)
        R-hat (NaN with one chain, infinite where chains stand still apart), bulk ESS, tail ESS.
    """
    arviz = import_arviz()
    # Chains that stand still, each elsewhere, have an R-hat of infinity.
    with np.errstate(divide="ignore", invalid="ignore"):
        if int(arviz.__version__.split(".")[0]) < 1:
            data = arviz.convert_to_dataset({"x": draws})
            ess = [arviz.ess(data, method=method)["x"].to_numpy() for method in ("bulk", "tail")]
            r_hat = arviz.rhat(data)["x"].to_numpy() if len(draws) > 1 else np.full(draws.shape[2], np.nan)
            return r_hat, ess[0], ess[1]
        axes = {"chain_axis": 0, "draw_axis": 1}
        r_hat = arviz.rhat(draws, **axes) if len(draws) > 1 else np.full(draws.shape[2], np.nan)
        return r_hat, arviz.ess(draws, method="bulk", **axes), arviz.ess(draws, method="tail", **axes)
