"""Small models built by hand, without formula or design."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from glmmnet.design import Design
from glmmnet.families import Family, resolve
from glmmnet.joint import JointModel, Parameters
from glmmnet.typing import RandomTerm, Response

SEED = 20261122


@pytest.fixture
def seeded() -> Iterator[None]:
    """Torch's generator at a known seed, restored afterwards."""
    print(f"seed {SEED}")
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        yield


def _response(family: Family, eta: np.ndarray, rng: np.random.Generator) -> Response:
    n = len(eta)
    if family.name == "gaussian":
        return Response("y", "numeric", eta + rng.normal(size=n))
    if family.name == "categorical":
        scores = rng.gumbel(size=(n, 3)) + np.column_stack([eta, np.zeros(n), -eta])
        return Response("y", "categorical", scores.argmax(axis=1).astype(np.int64), ("a", "b", "c"))
    p = 1 / (1 + np.exp(-eta))
    if family.name == "binomial":
        trials = rng.integers(1, 6, n)
        return Response("y", "counts", np.column_stack([rng.binomial(trials, p), trials]).astype(float))
    return Response("y", "numeric", (rng.random(n) < p).astype(float))


def related_levels(q: int) -> np.ndarray:
    """A correlation of q levels that has no zeros, and is not 1 on its diagonal."""
    distance = np.abs(np.subtract.outer(np.arange(q), np.arange(q)))
    return 0.6**distance + np.diag(np.linspace(0.0, 0.3, q))


def build_joint(
    family: str | Family,
    *terms: tuple[int, int] | tuple[int, int, str] | tuple[int, int, str, str],
    n: int = 60,
    p: int = 2,
    sd: float = 0.8,
    weights: np.ndarray | None = None,
    offset: bool = False,
    seed: int = SEED,
) -> JointModel:
    """A model with an intercept, p - 1 covariates and one random term a (q, r[, structure[, "related"]])."""
    print(f"model seed {seed}")
    rng = np.random.default_rng(seed)
    family = resolve(family)
    x = np.column_stack([np.ones((n, min(p, 1))), rng.normal(size=(n, max(p - 1, 0)))])
    shift = 0.5 * rng.normal(size=n) if offset else np.zeros(n)
    eta = x @ np.linspace(0.3, -0.5, p) + shift
    random = []
    for k, (q, r, *rest) in enumerate(terms):
        structure = rest[0] if rest else "us"
        # Every level occurs; interleaved, so that no factor is sorted.
        index = rng.permutation(np.resize(np.arange(q), n))
        z = np.column_stack([np.ones(n), rng.normal(size=(n, r - 1))]) if r > 1 else np.ones((n, 1))
        eta = eta + (z * (sd * rng.normal(size=(q, r)))[index]).sum(axis=1)
        names = ("(Intercept)", *(f"z{j}" for j in range(1, r)))
        levels = pd.Index([f"l{i}" for i in range(q)])
        known = related_levels(q) if "related" in rest else None
        random.append(RandomTerm(f"(1 | g{k})", f"g{k}", names, structure, levels, index, z, (), known))
    design = Design(
        response=_response(family, eta, rng),
        X=x,
        x_names=("Intercept", *(f"x{j}" for j in range(1, p)))[:p],
        x_variables=((), *((f"x{j}",) for j in range(1, p)))[:p],
        neural=(),
        random=tuple(random),
        offset=shift,
        weights=weights,
        rows=np.arange(n),
        index=pd.RangeIndex(n),
        n_total=n,
    )
    return JointModel.from_design(design, family)


def build_parameters(joint: JointModel, seed: int = SEED) -> Parameters:
    """Parameters of that model drawn at random; covariances are positive definite and of the terms' structures."""
    rng = np.random.default_rng(seed + 1)
    sigma = []
    for term in joint.terms:
        root = rng.normal(size=(joint.n_classes, term.r, term.r + 2))
        moment = torch.as_tensor(root @ root.swapaxes(1, 2) / (term.r + 2))
        sigma.append(term.covariance.project(moment))
    beta = torch.as_tensor(0.4 * rng.normal(size=(joint.X.shape[1], joint.n_classes)))
    return Parameters(beta, tuple(sigma), 0.7 if joint.family.has_dispersion else 1.0)


def build_dense_z(joint: JointModel) -> np.ndarray:
    """Z (n, Q), entry by entry."""
    z = np.zeros((joint.n, joint.n_effects))
    for term in joint.terms:
        columns = term.columns().numpy()
        for i, level in enumerate(term.index.tolist()):
            for j in range(term.r):
                z[i, term.start + level * term.r + j] = columns[i, j]
    return z


def build_dense_prior(joint: JointModel, params: Parameters) -> np.ndarray:
    """Covariance of b (Q C, Q C), classes innermost, entry by entry."""
    c = joint.n_classes
    total = np.zeros((joint.n_effects * c, joint.n_effects * c))
    for term, sigma in zip(joint.terms, params.sigma, strict=True):
        known = np.eye(term.q) if term.relation is None else related_levels(term.q)
        for level, other in np.argwhere(known):
            for k in range(c):
                at, to = ((term.start + one * term.r + np.arange(term.r)) * c + k for one in (level, other))
                total[np.ix_(at, to)] = known[level, other] * sigma[k].numpy()
    return total


@pytest.fixture
def joint_of() -> Callable[..., JointModel]:
    return build_joint


@pytest.fixture
def parameters_of() -> Callable[..., Parameters]:
    return build_parameters


@pytest.fixture
def dense_z() -> Callable[[JointModel], np.ndarray]:
    return build_dense_z


@pytest.fixture
def dense_prior() -> Callable[[JointModel, Parameters], np.ndarray]:
    return build_dense_prior
