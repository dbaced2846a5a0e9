"""What every registered family must do. A new family needs a row in READS and one in DENSITIES."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from glmmnet import families
from glmmnet.errors import DesignError, FitError
from glmmnet.families import FAMILIES, Family, Target, resolve
from glmmnet.families._of_mean import MeanFamily
from glmmnet.links import PositiveLink
from glmmnet.typing import Dispersion, Response

SEED = 20261122
N, PHI = 24, 1.7


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    print(f"seed {SEED}")
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        yield


def _responses() -> dict[str, Response]:
    rng = np.random.default_rng(SEED)
    two = np.resize([0, 1, 1], N)
    trials = rng.integers(1, 9, N)
    return {
        "real": Response("y", "numeric", rng.normal(size=N)),
        "zero-one": Response("y", "numeric", two.astype(float)),
        "positive": Response("y", "numeric", rng.gamma(1.5, 2.0, N)),
        "fraction": Response("y", "numeric", rng.beta(1.5, 2.5, N)),
        "whole": Response("y", "numeric", np.resize([4.0, 0.0, 7.0, 1.0], N)),
        "boolean": Response("y", "boolean", two.astype(bool)),
        "two texts": Response("y", "categorical", two.astype(np.int64), ("no", "yes")),
        "three texts": Response("y", "categorical", np.resize([2, 0, 1, 2], N).astype(np.int64), ("a", "b", "c")),
        "ordered texts": Response(
            "y", "categorical", np.resize([2, 0, 1, 2], N).astype(np.int64), ("low", "mid", "high"), ordered=True
        ),
        "counts": Response("p(k, n)", "counts", np.column_stack([rng.binomial(trials, 0.4), trials]).astype(float)),
    }


RESPONSES = _responses()

# What each family reads; the rest it must refuse.
READS = {
    "gaussian": {"real", "zero-one", "whole", "boolean", "positive", "fraction"},
    "bernoulli": {"zero-one", "boolean", "two texts"},
    "binomial": {"zero-one", "boolean", "two texts", "counts"},
    "categorical": {"zero-one", "whole", "boolean", "two texts", "three texts", "ordered texts"},
    "poisson": {"zero-one", "whole"},
    "negativebinomial": {"zero-one", "whole"},
    "negativebinomial1": {"zero-one", "whole"},
    "gamma": {"positive", "fraction"},
    "inversegaussian": {"positive", "fraction"},
    "lognormal": {"positive", "fraction"},
    "tweedie": {"positive", "fraction", "zero-one", "whole"},
    "beta": {"fraction"},
    "betabinomial": {"counts"},
    "studentt": {"real", "zero-one", "whole", "boolean", "positive", "fraction"},
    "cumulative": {"zero-one", "whole", "boolean", "ordered texts"},
    "zeroinflatedpoisson": {"zero-one", "whole"},
    "zeroinflatednegativebinomial": {"zero-one", "whole"},
    "hurdlepoisson": {"whole"},
    "hurdlenegativebinomial": {"whole"},
}


def _gaussian(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    return scipy.stats.norm.logpdf(y[:, 0], MEANS[family.link.name](eta[:, 0]), math.sqrt(phi))


def _bernoulli(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    return _binomial(family, eta, np.concatenate([y, np.ones_like(y)], axis=1), phi)


# A success is a draw below eta; of cloglog, log waiting time is.
TAILS = {"logit": scipy.stats.logistic, "probit": scipy.stats.norm, "cloglog": scipy.stats.gumbel_l}
MEANS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda eta: eta,
    "log": np.exp,
    "inverse": lambda eta: 1 / eta,
    "sqrt": np.square,
}


def _binomial(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    """In logs: 1 - p keeps no digits of a small probability."""
    k, n = np.swapaxes(y, 0, 1)
    tail = TAILS[family.link.name]
    choose = -np.log1p(n) - scipy.special.betaln(k + 1, n - k + 1)
    return choose + k * tail.logcdf(eta[:, 0]) + (n - k) * tail.logsf(eta[:, 0])


def _categorical(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    if eta.shape[1] < y.shape[1]:
        eta = np.concatenate([np.zeros_like(eta[:, :1]), eta], axis=1)
    p = scipy.special.softmax(eta, axis=1)
    return np.array(
        [
            [scipy.stats.multinomial.logpmf(y[i, :, 0], 1, p[i, :, s]) for s in range(eta.shape[2])]
            for i in range(len(eta))
        ]
    )


def _poisson(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    return scipy.stats.poisson.logpmf(y[:, 0], MEANS[family.link.name](eta[:, 0]))


def _negative_binomial(y: np.ndarray, size: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """SciPy takes the probability 1 / (1 + odds), which keeps no digits of small odds: there by the beta function."""
    theirs = scipy.stats.nbinom.logpmf(y, size, 1 / (1 + odds))
    choose = -np.log(size + y) - scipy.special.betaln(size, y + 1)
    return np.where(odds > 1e-2, theirs, choose - (size + y) * np.log1p(odds) + scipy.special.xlogy(y, odds))


def _negativebinomial(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    mu = np.exp(eta[:, 0])
    return _negative_binomial(y[:, 0], np.full_like(mu, phi), mu / phi)


def _negativebinomial1(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    mu = np.exp(eta[:, 0])
    return _negative_binomial(y[:, 0], mu / phi, np.full_like(mu, phi))


def _gamma(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    return scipy.stats.gamma.logpdf(y[:, 0], 1 / phi, scale=phi * MEANS[family.link.name](eta[:, 0]))


def _inversegaussian(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    return scipy.stats.invgauss.logpdf(y[:, 0], phi * np.exp(eta[:, 0]), scale=1 / phi)


def _lognormal(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    return scipy.stats.lognorm.logpdf(np.exp(y[:, 0]), math.sqrt(phi), scale=np.exp(eta[:, 0]))


def _studentt(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    df = np.exp(eta[:, 1].clip(None, math.log(1e6))) if family.df is None else family.df
    return scipy.stats.t.logpdf(y[:, 0], df, eta[:, 0], math.sqrt(phi))


def _beta(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    tail = TAILS[family.link.name]
    return scipy.stats.beta.logpdf(y[:, 0], phi * tail.cdf(eta[:, 0]), phi * tail.sf(eta[:, 0]))


def _betabinomial(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    tail = TAILS[family.link.name]
    k, n = np.swapaxes(y, 0, 1)
    return scipy.stats.betabinom.logpmf(k, n, phi * tail.cdf(eta[:, 0]), phi * tail.sf(eta[:, 0]))


def _tweedie(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    """A Poisson number of gamma amounts, summed over the number."""
    p, mu, y = family.power, np.exp(eta[:, 0])[..., None], y[:, 0][..., None]
    number, shape, scale = np.arange(1, 400), (2 - p) / (p - 1), phi * (p - 1) * mu ** (p - 1)
    rate = mu ** (2 - p) / (phi * (2 - p))
    parts = scipy.stats.poisson.logpmf(number, rate) + scipy.stats.gamma.logpdf(y, number * shape, scale=scale)
    return np.where(y[..., 0] > 0, scipy.special.logsumexp(parts, axis=-1), -rate[..., 0])


def _cumulative(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    """Differences of the distribution function, of whichever tail is the smaller."""
    tail, code, rows = TAILS[family.link.name], y[:, :, 0].argmax(axis=1), np.arange(len(y))
    ends = np.pad(eta, ((0, 0), (1, 1), (0, 0)), constant_values=((0, 0), (-np.inf, np.inf), (0, 0)))
    lower, upper = ends[rows, code], ends[rows, code + 1]
    left = tail.logcdf(lower) < tail.logsf(lower)
    larger = np.where(left, tail.logcdf(upper), tail.logsf(lower))
    return larger + np.log(-np.expm1(np.where(left, tail.logcdf(lower), tail.logsf(upper)) - larger))


def _zero_inflated(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    log_zero, log_count = (scipy.stats.logistic.logcdf(sign * eta[:, 1]) for sign in (1, -1))
    counts = log_count + DENSITIES[family.counts.name](family.counts, eta[:, :1], y, phi)
    return np.where(y[:, 0] == 0, np.logaddexp(log_zero, counts), counts)


def _hurdle(family: Family, eta: np.ndarray, y: np.ndarray, phi: float) -> np.ndarray:
    log_zero, log_count = (scipy.stats.logistic.logcdf(sign * eta[:, 1]) for sign in (1, -1))
    own, mu = DENSITIES[family.counts.name](family.counts, eta[:, :1], y, phi), np.exp(eta[:, 0])
    none = -mu if family.counts.name == "poisson" else -phi * np.log1p(mu / phi)
    return np.where(y[:, 0] == 0, log_zero, log_count + own - np.log(-np.expm1(none)))


DENSITIES: dict[str, Callable[[Family, np.ndarray, np.ndarray, float], np.ndarray]] = {
    "gaussian": _gaussian,
    "bernoulli": _bernoulli,
    "binomial": _binomial,
    "categorical": _categorical,
    "poisson": _poisson,
    "negativebinomial": _negativebinomial,
    "negativebinomial1": _negativebinomial1,
    "gamma": _gamma,
    "inversegaussian": _inversegaussian,
    "lognormal": _lognormal,
    "tweedie": _tweedie,
    "beta": _beta,
    "betabinomial": _betabinomial,
    "studentt": _studentt,
    "cumulative": _cumulative,
    "zeroinflatedpoisson": _zero_inflated,
    "zeroinflatednegativebinomial": _zero_inflated,
    "hurdlepoisson": _hurdle,
    "hurdlenegativebinomial": _hurdle,
}

# Shapes of a beta distribution are held above e^-280, which these etas reach.
SHAPES_REACH = {"beta": {"probit": (-20.0, 20.0), "cloglog": (-36.0, 5.0)}}
# A response within 1e-16 of 1 is 1: scores are those of the distribution only where it hardly reaches there.
SPREADS = {"beta": 0.3}
# A baseline class changes everything that a family answers: it goes through every test too, as does every link.
VARIANTS: dict[str, Callable[[str], list[Family]]] = {
    "categorical": lambda kind: [
        families.Categorical(reference={"two texts": "yes", "three texts": "b", "ordered texts": "mid"}.get(kind, 1))
    ],
    "studentt": lambda kind: [families.StudentT(df=None)],
}


def _can_read(family: Family, response: Response) -> bool:
    """A log link refuses a mean below 0."""
    return family.name != "gaussian" or response.values.mean() > 0


def _cases() -> dict[str, tuple[Family, Response]]:
    cases = {}
    for name in FAMILIES:
        for kind in sorted(READS.get(name, set())):
            variants = VARIANTS[name](kind) if name in VARIANTS else []
            variants += [FAMILIES[name](link=link.name) for link in FAMILIES[name].links[1:]]
            variants = [family for family in variants if _can_read(family, RESPONSES[kind])]
            for family in (resolve(name), *variants):
                cases[f"{family!r}-{kind}"] = (family, RESPONSES[kind])
    return cases


CASES = _cases()


def cases_where(applies: Callable[[Family], bool]) -> pytest.MarkDecorator:
    """The cases to whose family a test applies; none at all is an error, which pytest would make a skip."""
    cases = {name: case for name, case in CASES.items() if applies(case[0])}
    assert cases
    return pytest.mark.parametrize(("family", "response"), cases.values(), ids=list(cases))


every_case = cases_where(lambda family: True)
every_canonical_case = cases_where(lambda family: family.canonical)
every_case_with_dispersion = cases_where(lambda family: family.has_dispersion)
every_ordered_case = cases_where(lambda family: family.name != "categorical")
every_family = pytest.mark.parametrize("name", list(FAMILIES))


def some_eta(family: Family, target: Target, draws: int = 3, spread: float = 1.5) -> Tensor:
    eta = spread * torch.randn(len(target.y), len(target.predictors), draws, dtype=torch.float64)
    if target.thresholds:
        c = eta.shape[1]
        eta = 0.6 * eta.sort(dim=1).values + 0.5 * (torch.arange(c) - 0.5 * c)[:, None]
    if "df" in target.predictors:
        # Below 8 degrees of freedom the variance of squares is infinite.
        eta[:, 1] = 0.2 * eta[:, 1] + math.log(12.0)
    needs_positive = isinstance(family.link, PositiveLink) and not family.link.unit_free
    return eta.abs() + 0.3 if needs_positive else eta


def last_of(family: Family, y: Tensor) -> Tensor:
    """The largest response that each row may have, (n,): of classes coded as they are first in `y`."""
    if family.class_means:
        return torch.where(y[:, -1, 0] > 0, y[:, 0, 0], -1.0)
    trials = {"binomial": 1, "betabinomial": 1}.get(family.name)
    return y[:, 1, 0] if trials else torch.full_like(y[:, 0, 0], 1.0 if family.name == "bernoulli" else math.inf)


def next_of(family: Family, y: Tensor) -> Tensor:
    """Each row's response one unit or class higher, as it is encoded; the last one stays."""
    if family.class_means:
        code = (y[:, :, 0].argmax(dim=1) + 1).clamp_max(y.shape[1] - 1)
        return torch.nn.functional.one_hot(code, y.shape[1]).to(y.dtype)[:, :, None]
    higher = y.clone()
    higher[:, 0, 0] = torch.minimum(higher[:, 0, 0] + 1, last_of(family, y))
    return higher


def starts(target: Target) -> list[Tensor]:
    """Linear predictors from which directions are followed, (C, 1): 0, increasing thresholds, far out for parts."""
    c = len(target.predictors)
    if target.thresholds:
        return [torch.arange(c, dtype=torch.float64)[:, None]]
    far = [-12.0, 0.0, 12.0] if target.loadings else [0.0]
    return [torch.tensor(point, dtype=torch.float64)[:, None] for point in itertools.product(far, repeat=c)]


def phi_of(family: Family) -> float:
    return PHI if family.has_dispersion else 1.0


def most_probable_mean(family: Family, y: Tensor) -> Tensor:
    """Of each row at phi = 1; of Student's t, whose variance and density are no functions of the mean, the response."""
    return family.saturated(y, 1.0) if isinstance(family, MeanFamily) else family.observed(y)


def encode_draws(family: Family, draws: Tensor, target: Target) -> Tensor:
    """Simulated responses of every row, one draw (n,), as `target.y` is encoded."""
    if family.class_means:
        one_hot = torch.nn.functional.one_hot(draws.to(torch.int64), target.y.shape[1])
        return one_hot.to(torch.float64)[:, :, None]
    if target.y.shape[1] == 2:
        return torch.stack([draws, target.y[:, 1, 0]], dim=1)[:, :, None]
    return family.encode_new(Response("y", "numeric", draws.numpy()), target)


def test_every_family_has_its_rows_here() -> None:
    assert set(FAMILIES) == set(READS) == set(DENSITIES)


@every_family
def test_every_family_is_in_the_documentation(name: str) -> None:
    table = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    assert f"| `{name}`" in table


@every_case
def test_shapes_and_types(family: Family, response: Response) -> None:
    target = family.encode(response)
    c, eta = len(target.predictors), some_eta(family, target)
    assert target.y.dtype == torch.float64
    assert target.y.shape[::2] == (N, 1)
    log_p, score = family.log_prob_and_score(eta, target.y, phi_of(family))
    classes = len(target.labels) if family.class_means else 1
    assert family.log_prob(eta, target.y, phi_of(family)).shape == log_p.shape == (N, 3)
    assert score.shape == (N, c, 3)
    assert family.weight(eta, target.y, phi_of(family)).shape == (N, c, c, 3)
    assert family.mean(eta, phi_of(family)).shape == (N, classes, 3)
    assert family.simulate(eta, target.y, phi_of(family)).shape == (N, 3)
    assert family.observed(target.y).shape == ((N, classes) if family.class_means else (N,))


@every_case
def test_log_prob_is_scipys(family: Family, response: Response) -> None:
    target = family.encode(response)
    eta = torch.cat([some_eta(family, target), 8 * some_eta(family, target)], dim=2)
    if family.name in SHAPES_REACH:
        eta = eta.clamp(*SHAPES_REACH[family.name].get(family.link.name, (-math.inf, math.inf)))
    ours = family.log_prob(eta, target.y, phi_of(family)).numpy()
    theirs = DENSITIES[family.name](family, eta.numpy(), target.y.numpy(), phi_of(family))
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@every_case
def test_log_prob_stays_finite_far_out(family: Family, response: Response) -> None:
    target = family.encode(response)
    eta = 800.0 * torch.sign(some_eta(family, target))
    for values in (family.log_prob(eta, target.y, 1.0), *family.log_prob_and_score(eta, target.y, 1.0)):
        assert bool(torch.isfinite(values).all())


@every_case
def test_no_answer_is_nan_far_out(family: Family, response: Response) -> None:
    target, phi = family.encode(response), phi_of(family)
    eta = torch.tensor([-50.0, -20.0, -8.0, -1e-9, 0.0, 1e-9, 8.0, 20.0, 50.0], dtype=torch.float64)
    eta = eta.expand(N, len(target.predictors), -1).clone()
    if target.thresholds:
        eta += torch.arange(eta.shape[1])[:, None]
    weight = family.weight(eta, target.y, phi)
    assert bool((torch.diagonal(weight, dim1=1, dim2=2) >= 0).all())
    every = [weight, family.mean(eta, phi), family.curvature(eta, target.y, phi)]
    every += [family.simulate(eta, target.y, phi), *family.dispersion_derivatives(eta, target.y, phi)]
    assert not any(bool(values.isnan().any()) for values in every)


@every_case
def test_score_is_the_derivative(family: Family, response: Response) -> None:
    target, phi = family.encode(response), phi_of(family)
    eta = some_eta(family, target).requires_grad_()
    family.log_prob(eta, target.y, phi).sum().backward()
    _, score = family.log_prob_and_score(eta.detach(), target.y, phi)
    torch.testing.assert_close(score, eta.grad, rtol=1e-10, atol=1e-12)


@every_case
def test_value_beside_the_score_differs_by_a_constant_a_row(family: Family, response: Response) -> None:
    target, phi = family.encode(response), phi_of(family)
    eta = some_eta(family, target)
    value, _ = family.log_prob_and_score(eta, target.y, phi)
    constant = family.log_prob(eta, target.y, phi) - value
    torch.testing.assert_close(constant, constant[:, :1].expand_as(constant), rtol=0, atol=1e-10)


@every_canonical_case
def test_weight_is_minus_the_second_derivative(family: Family, response: Response) -> None:
    """Exactly, with a canonical link; in expectation with any, see below."""
    target, phi = family.encode(response), phi_of(family)
    eta = some_eta(family, target, draws=1)

    def total(e: Tensor) -> Tensor:
        return family.log_prob(e, target.y, phi).sum()

    c = eta.shape[1]
    hessian = torch.autograd.functional.hessian(total, eta).reshape(N, c, N, c)
    own = torch.stack([hessian[i, :, i] for i in range(N)])
    torch.testing.assert_close(family.weight(eta, target.y, phi)[..., 0], -own, rtol=1e-10, atol=1e-12)


@every_case
def test_curvature_is_minus_the_observed_second_derivative(family: Family, response: Response) -> None:
    target, phi, h = family.encode(response), phi_of(family), 1e-5
    eta = some_eta(family, target, spread=1.0)
    curvature = family.curvature(eta, target.y, phi)
    assert not curvature.requires_grad
    for c in range(eta.shape[1]):
        step = torch.zeros_like(eta)
        step[:, c] = h
        _, up = family.log_prob_and_score(eta + step, target.y, phi)
        _, down = family.log_prob_and_score(eta - step, target.y, phi)
        torch.testing.assert_close(curvature[:, :, c], (down - up) / (2 * h), rtol=1e-6, atol=1e-7)
    if family.canonical:
        assert torch.equal(curvature, family.weight(eta, target.y, phi))


@every_canonical_case
def test_autograd_curvature_of_a_canonical_link_is_the_weight(family: Family, response: Response) -> None:
    target, phi = family.encode(response), phi_of(family)
    other = copy.copy(family)
    other.canonical = False
    eta = some_eta(family, target)
    torch.testing.assert_close(
        other.curvature(eta, target.y, phi), family.weight(eta, target.y, phi), rtol=1e-10, atol=1e-12
    )


@every_case
def test_derivatives_with_respect_to_log_phi(family: Family, response: Response) -> None:
    target, phi, h = family.encode(response), phi_of(family), 1e-5
    eta = some_eta(family, target, spread=1.0)
    score, information, cross = family.dispersion_derivatives(eta, target.y, phi)
    assert score.shape == information.shape == (N, 3)
    assert cross.shape == eta.shape
    up, down = phi * math.exp(h), phi * math.exp(-h)
    by_difference = (family.log_prob(eta, target.y, up) - family.log_prob(eta, target.y, down)) / (2 * h)
    torch.testing.assert_close(score, by_difference, rtol=1e-6, atol=1e-6)
    scores = [family.dispersion_derivatives(eta, target.y, p)[0] for p in (down, up)]
    torch.testing.assert_close(information, (scores[0] - scores[1]) / (2 * h), rtol=1e-6, atol=1e-6)
    of_eta = [family.log_prob_and_score(eta, target.y, p)[1] for p in (down, up)]
    torch.testing.assert_close(cross, (of_eta[0] - of_eta[1]) / (2 * h), rtol=1e-6, atol=1e-6)


@every_case_with_dispersion
def test_phi_may_differ_from_row_to_row(family: Family, response: Response) -> None:
    target, eta = family.encode(response), some_eta(family, family.encode(response), spread=1.0)
    phi = torch.linspace(0.2, 0.8, N, dtype=torch.float64)[:, None]

    def answers(eta: Tensor, y: Tensor, phi: Dispersion) -> list[Tensor]:
        return [
            family.log_prob(eta, y, phi),
            *family.log_prob_and_score(eta, y, phi),
            family.weight(eta, y, phi),
            family.curvature(eta, y, phi),
            *family.dispersion_derivatives(eta, y, phi),
            family.variance_at(family.mean(eta, phi)[:, 0, 0], eta[:, :, :1], y, phi),
        ]

    together = answers(eta, target.y, phi)
    for i in range(N):
        alone = answers(eta[i : i + 1], target.y[i : i + 1], float(phi[i]))
        for whole, one in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[i : i + 1], one, rtol=1e-12, atol=1e-12)
    torch.manual_seed(SEED)
    spread = family.simulate(eta[:1, :, :1].expand(N, -1, 20_000), target.y[:1].expand(N, -1, -1), phi).std(dim=1)
    first = eta[:1, :, :1]
    expected = [family.variance_at(family.mean(first, float(p))[:, 0, 0], first, target.y[:1], float(p)) for p in phi]
    trials = target.y[0, 1, 0] if target.y.shape[1] == 2 else 1.0
    torch.testing.assert_close(spread, trials * torch.cat(expected).sqrt(), rtol=0.1, atol=1e-3)


@every_ordered_case
def test_tails_are_the_integral_of_the_density(family: Family, response: Response) -> None:
    target, phi = family.encode(response), phi_of(family)
    eta = some_eta(family, target, draws=3, spread=1.0)
    here = family.tails(eta, target.y, phi)
    log_p = family.log_prob(eta, target.y, phi)
    assert here.below.shape == here.at.shape == here.above.shape == log_p.shape
    torch.testing.assert_close(here.below + here.at + here.above, torch.ones_like(log_p), rtol=0, atol=1e-10)
    discrete = (here.at > 0).any(dim=1)
    torch.testing.assert_close(here.at[discrete], torch.exp(log_p)[discrete], rtol=1e-10, atol=1e-12)
    following = family.tails(eta, next_of(family, target.y), phi).below - here.below
    # Beyond 0 a Tweedie response is continuous.
    has_next = discrete & (target.y[:, 0, 0] != last_of(family, target.y)) & torch.tensor(family.name != "tweedie")
    torch.testing.assert_close(following[has_next], here.at[has_next], rtol=1e-8, atol=1e-10)
    step = 1e-5 * torch.where(target.y == 0, 1.0, target.y.abs()) * (~discrete)[:, None, None]
    up, down = (family.tails(eta, target.y + sign * step, phi).below for sign in (1, -1))
    width = family.observed(target.y + step) - family.observed(target.y - step)
    slope = ((up - down) / width.reshape(len(width), -1)[:, :1])[~discrete]
    torch.testing.assert_close(slope, torch.exp(log_p)[~discrete], rtol=1e-5, atol=1e-8)


@every_ordered_case
def test_a_number_drawn_between_the_tails_is_uniform(family: Family, response: Response) -> None:
    target, phi = family.encode(response), phi_of(family)
    eta = some_eta(family, target, draws=1, spread=SPREADS.get(family.name, 1.5)).repeat(40, 1, 1)
    y = target.y.repeat(40, 1, 1)
    many = dataclasses.replace(target, y=y)
    own = encode_draws(family, family.simulate(eta, y, phi)[:, 0], many)
    tails = family.tails(eta, own, phi)
    for low, high in ((tails.below, tails.above), (tails.above, tails.below)):
        uniform = low + torch.rand_like(low) * (1.0 - low - high)
        assert scipy.stats.kstest(uniform[:, 0].numpy(), "uniform").pvalue > 1e-4


def test_tails_of_a_share_near_0_add_up() -> None:
    y = torch.tensor([1e-20, 1e-12, 0.3], dtype=torch.float64)[:, None, None]
    tails = resolve("beta").tails(torch.full((3, 1, 1), -3.0, dtype=torch.float64), y, 0.2)
    torch.testing.assert_close(tails.below + tails.above, torch.ones_like(tails.below))


def test_far_tails_keep_their_digits() -> None:
    y = torch.full((1, 1, 1), 30.0, dtype=torch.float64)
    eta = torch.zeros(1, 1, 1, dtype=torch.float64)
    above = {
        "gaussian": scipy.stats.norm.sf(30),
        "poisson": scipy.stats.poisson.sf(30, 1),
        "gamma": scipy.stats.gamma.sf(30, 1),
        "negativebinomial": scipy.stats.nbinom.sf(30, 1, 0.5),
        "hurdlepoisson": scipy.stats.poisson.sf(30, 1) / 2 / scipy.stats.poisson.sf(0, 1),
    }
    for name, expected in above.items():
        wide = eta.expand(1, 2, 1) if name == "hurdlepoisson" else eta
        assert float(resolve(name).tails(wide, y, 1.0).above) == pytest.approx(expected, rel=1e-9)


def test_classes_without_order_have_no_tails() -> None:
    target = resolve("categorical").encode(RESPONSES["three texts"])
    with pytest.raises(FitError, match="no order"):
        resolve("categorical").tails(torch.zeros(N, 3, 1), target.y, 1.0)


@cases_where(lambda family: isinstance(family, MeanFamily) and not family.class_means)
def test_observation_variance_is_that_of_a_response_seen_from_eta(family: Family, response: Response) -> None:
    """Where the response varies little about its mean all approximations agree with the delta method."""
    target = family.encode(response)
    latent = {"bernoulli", "binomial", "betabinomial"}
    eta = some_eta(family, target, draws=1)
    for phi in (1e-4, 1e4):
        mean = family.mean(eta, phi)[:, 0, 0]
        theirs = family.variance_at(mean, eta, target.y, phi)
        (slope,) = torch.autograd.grad(family.link.link(mean.requires_grad_()).sum(), mean)
        ours = family.observation_variance(mean.detach(), eta, target.y, phi)
        assert ours.shape == (N,) and bool((ours > 0).all())
        if family.name in latent:
            spread = TAILS[family.link.name].var()
            over = 1 / ((1 + phi) * mean * (1 - mean)) if family.name == "betabinomial" else 0.0
            torch.testing.assert_close(ours, torch.full_like(ours, spread) + over, rtol=1e-12, atol=0)
        elif family.name == "lognormal":
            torch.testing.assert_close(ours, torch.full_like(ours, phi))
        else:
            delta = theirs * slope.square()
            small = delta < 1e-3
            torch.testing.assert_close(ours[small], delta[small], rtol=1e-2, atol=0)


@every_case
def test_precision_weights_are_for_variances_proportional_to_phi(family: Family, response: Response) -> None:
    target, phi = family.encode(response), phi_of(family)
    eta = some_eta(family, target, draws=1)
    mean = family.mean(eta, phi)[..., 0]
    mean = mean if family.class_means else mean[:, 0]
    one, two = (family.variance_at(mean, eta, target.y, p) for p in (phi, 2 * phi))
    finite = torch.isfinite(one) & (one > 0)
    assert family.proportional == torch.allclose(two[finite], 2 * one[finite])


@every_case
def test_diagonal_of_the_weight(family: Family, response: Response) -> None:
    target, phi = family.encode(response), phi_of(family)
    eta = some_eta(family, target, draws=3)
    expected = torch.stack([family.weight(eta, target.y, phi)[:, c, c] for c in range(eta.shape[1])], dim=1)
    torch.testing.assert_close(family.weight_diagonal(eta, target.y, phi), expected, rtol=1e-10, atol=1e-12)


@every_case
def test_simulated_scores_have_mean_zero_and_variance_weight(family: Family, response: Response) -> None:
    target, phi, reps = family.encode(response), phi_of(family), 2000
    eta = some_eta(family, target, draws=1, spread=SPREADS.get(family.name, 1.0))
    scores = []
    for _ in range(reps):
        y = encode_draws(family, family.simulate(eta, target.y, phi)[:, 0], target)
        scores.append(family.log_prob_and_score(eta, y, phi)[1][..., 0])
    score = torch.stack(scores)
    outer = score[:, :, :, None] * score[:, :, None, :]
    for values, expected in ((score, torch.zeros(())), (outer, family.weight(eta, target.y, phi)[..., 0])):
        error = values.std(dim=0) / math.sqrt(reps)
        assert bool(((values.mean(dim=0) - expected).abs() <= 5 * error + 5e-3).all())


@every_case
def test_simulated_mean_and_variance(family: Family, response: Response) -> None:
    target, phi, draws = family.encode(response), phi_of(family), 20_000
    eta = some_eta(family, target, draws=1, spread=1.0)
    sample = family.simulate(eta.expand(-1, -1, draws), target.y, phi)
    mean = family.mean(eta, phi_of(family))[..., 0]
    if family.class_means:
        values = torch.nn.functional.one_hot(sample.to(torch.int64), mean.shape[1]).to(torch.float64)
    else:
        trials = target.y[:, 1] if target.y.shape[1] == 2 else torch.ones(N, 1, dtype=torch.float64)
        values, mean = sample / trials, mean[:, 0]
    error = values.std(dim=1) / math.sqrt(draws)
    assert bool(((values.mean(dim=1) - mean).abs() < 5 * error + 1e-12).all())
    centred = (values - mean[:, None]).square()
    error = centred.std(dim=1) / math.sqrt(draws)
    variance = family.variance_at(mean, eta, target.y, phi)
    assert bool(((centred.mean(dim=1) - variance).abs() < 5 * error + 1e-4).all())


@every_case
def test_unbounded_rows_are_where_the_likelihood_never_falls(family: Family, response: Response) -> None:
    target = family.encode(response)
    rows = family.unbounded(target.y)
    generator = torch.Generator().manual_seed(20261122)
    direction = torch.randn(len(target.y), len(target.predictors), 50, generator=generator, dtype=torch.float64)
    falls = torch.zeros(len(target.y), 50, dtype=torch.bool)
    for start in starts(target):
        path = [
            family.log_prob(start + t * direction, target.y, phi_of(family))
            for t in (0.0, *np.geomspace(1e-2, 1e6, 60))
        ]
        falls |= torch.stack([after < before - 1e-9 for before, after in itertools.pairwise(path)]).any(dim=0)
    if rows is None:
        assert falls.any(dim=0).all()
        return
    inside = (torch.einsum("nkc,ncs->nks", rows, direction) >= 0).all(dim=1)
    assert not (inside & falls).any()
    assert falls[~inside].all()


@every_case
def test_rows_and_draws_are_independent(family: Family, response: Response) -> None:
    target = family.encode(response)
    eta = some_eta(family, target, draws=1).expand(-1, -1, 4000)
    sample = family.simulate(eta, target.y, phi_of(family))
    varying = sample[(sample.std(dim=1) > 0.1)][:8]
    correlation = torch.corrcoef(varying) - torch.eye(len(varying))
    assert float(correlation.abs().max()) < 5 / math.sqrt(4000)


@every_case
def test_new_rows_are_read_as_the_training_rows(family: Family, response: Response) -> None:
    target = family.encode(response)
    torch.testing.assert_close(family.encode_new(response, target), target.y, rtol=0, atol=0)
    for rows in (np.arange(N)[::-1], np.array([1]), np.array([3, 0])):
        new = Response(response.label, response.kind, response.values[rows].copy(), response.levels)
        torch.testing.assert_close(family.encode_new(new, target), target.y[rows.tolist()], rtol=0, atol=0)


@every_case
def test_encoding_copies_the_response(family: Family, response: Response) -> None:
    before = response.values.copy()
    family.encode(response).y.add_(1.0)
    np.testing.assert_array_equal(response.values, before)


@every_case
def test_start_is_the_intercept_only_estimate(family: Family, response: Response) -> None:
    target = family.encode(response)
    weights = torch.linspace(0.5, 1.5, N, dtype=torch.float64)
    eta, phi = family.start(target.y, weights)
    assert eta.shape == (len(target.predictors),)
    _, score = family.log_prob_and_score(eta[None, :, None].expand(N, -1, 1), target.y, phi)
    # The binomial start adds half a success and half a failure.
    assert float((weights[:, None] * score[..., 0]).sum(dim=0).abs().max()) < 0.51
    assert (phi != 1.0) == family.has_dispersion


@every_case_with_dispersion
def test_each_draw_may_have_its_own_dispersion(family: Family, response: Response) -> None:
    target = family.encode(response)
    eta, phi = some_eta(family, target, draws=3), torch.linspace(0.5, 1.5, 3 * N, dtype=torch.float64).reshape(N, 3)
    together = family.log_prob(eta, target.y, phi)
    alone = [family.log_prob(eta[:, :, s : s + 1], target.y, phi[:, s : s + 1]) for s in range(3)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-12, atol=1e-12)


@every_case
def test_dispersion_maximises_the_expected_log_density(family: Family, response: Response) -> None:
    target = family.encode(response)
    eta, weights = some_eta(family, target), torch.linspace(0.5, 1.5, N, dtype=torch.float64)
    phi = family.dispersion(eta, target.y, weights)
    if not family.has_dispersion:
        assert phi == 1.0
        return

    def loss(log_phi: float) -> float:
        log_p = family.log_prob(eta, target.y, math.exp(log_phi))
        return -float((weights[:, None] * log_p).mean())

    best = scipy.optimize.minimize_scalar(loss, bracket=(-1.0, 1.0), tol=1e-10).x
    assert math.log(phi) == pytest.approx(best, abs=1e-6)


@every_case
def test_unit_deviance_is_twice_the_log_likelihood_lost(family: Family, response: Response) -> None:
    target = family.encode(response)
    eta = some_eta(family, target, draws=2)
    if "zi" not in family.formulas:
        saturated = most_probable_mean(family, target.y)
        assert saturated.shape == family.observed(target.y).shape
        at_best = family.deviance_at(saturated, eta[..., :1], target.y, 1.0)
        torch.testing.assert_close(at_best, torch.zeros(N, dtype=torch.float64), rtol=0, atol=1e-12)
    if "df" in target.predictors:
        # Of the mean: the degrees of freedom are those of both models.
        eta[:, 1] = eta[:, 1, :1]
    means = family.mean(eta, 1.0) if family.class_means else family.mean(eta, 1.0)[:, 0]
    first, second = (family.deviance_at(means[..., s], eta[..., s : s + 1], target.y, 1.0) for s in (0, 1))
    assert bool((first >= 0).all())
    log_p = family.log_prob(eta, target.y, 1.0)
    torch.testing.assert_close(first - second, 2 * (log_p[:, 1] - log_p[:, 0]), rtol=1e-9, atol=1e-9)


@every_case
def test_single_precision_agrees(family: Family, response: Response) -> None:
    """The network's minibatches are float32."""
    target, phi = family.encode(response), phi_of(family)
    eta = some_eta(family, target)
    single = family.log_prob(eta.float(), target.y.float(), phi)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), family.log_prob(eta, target.y, phi), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in FAMILIES for kind in RESPONSES if kind not in READS[name]]
)
def test_other_responses_are_refused_by_name(name: str, kind: str) -> None:
    with pytest.raises(DesignError) as caught:
        resolve(name).encode(RESPONSES[kind])
    message = str(caught.value)
    assert f"`{RESPONSES[kind].label}`" in message
    assert f"{name!r} cannot read it" in message
    assert "use family=" in message


@pytest.mark.parametrize(
    ("family", "values", "named"),
    [
        ("gaussian", [3.0, 3.0], "3"),
        ("bernoulli", [1.0, 1.0], "1"),
        ("bernoulli", [0.0, 2.5], "2.5"),
        ("binomial", [0.0, 0.0], "0"),
        ("categorical", [0.0, 1.5], "1.5"),
        ("categorical", [4.0, 4.0], "4"),
        ("gaussian", [1e300, 1.0], r"1e\+300"),
        ("poisson", [0.0, 0.0], "0"),
        ("poisson", [1.0, -3.0], "-3"),
        ("negativebinomial", [1.0, 2.5], "2.5"),
        ("negativebinomial1", [1e300, 0.0], r"1e\+300"),
        ("gamma", [1.0, 0.0], "0"),
        ("gamma", [1.0, 1e-300], "1e-300"),
        ("gamma", [2.5, 2.5], "2.5"),
    ],
)
def test_the_error_names_the_value(family: str, values: list[float], named: str) -> None:
    with pytest.raises(DesignError, match=rf"(?<![\w.]){named}\b"):
        resolve(family).encode(Response("y", "numeric", np.array(values)))


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].links])
def test_unknown_links_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{FAMILIES[name].links[-1].name!r}"):
        FAMILIES[name](link="loglog")


def test_rows_without_trials_carry_no_information() -> None:
    family = resolve("binomial")
    empty = family.encode(Response("p(k, n)", "counts", np.array([[0.0, 0.0], [2.0, 5.0]]))).y
    eta = torch.tensor([0.7, -0.4], dtype=torch.float64)[:, None, None]
    log_p, score = family.log_prob_and_score(eta, empty, 1.0)
    for values in (family.log_prob(eta, empty, 1.0), log_p, score, family.weight(eta, empty, 1.0)):
        assert float(values[0]) == 0.0
        assert float(values[1]) != 0.0
    mean = family.mean(eta, phi_of(family))[:, 0, 0]
    pearson = (family.observed(empty) - mean) / family.variance(mean, empty, 1.0).sqrt()
    assert float(pearson[0]) == float(family.deviance_at(mean, eta, empty, 1.0)[0]) == 0.0
    assert float(family.simulate(eta, empty, 1.0)[0]) == 0.0
    ones = torch.ones(2, dtype=torch.float64)
    assert family.start(empty, ones)[0] == family.start(empty[1:], ones[1:])[0]


def test_second_level_is_the_success() -> None:
    target = resolve("bernoulli").encode(RESPONSES["two texts"])
    assert target.labels == ("no", "yes")
    assert "yes" in target.note
    np.testing.assert_array_equal(target.y[:, 0, 0], np.resize([0.0, 1.0, 1.0], N))


def test_reference_class_comes_first_and_has_no_predictor() -> None:
    target = families.Categorical(reference="b").encode(RESPONSES["three texts"])
    assert target.labels == ("b", "a", "c")
    assert target.predictors == ("a", "c")
    with pytest.raises(DesignError, match=r"'d'.*reference is one of"):
        families.Categorical(reference="d").encode(RESPONSES["three texts"])


def test_symmetric_form_has_a_predictor_a_class_whatever_is_added_to_all() -> None:
    family = families.Categorical()
    target = family.encode(RESPONSES["three texts"])
    eta = some_eta(family, target)
    assert target.predictors == ("a", "b", "c")
    torch.testing.assert_close(family.log_prob(eta + 5.0, target.y, 1.0), family.log_prob(eta, target.y, 1.0))


def test_unseen_class_in_new_data_is_refused() -> None:
    family = families.Categorical()
    target = family.encode(RESPONSES["whole"])
    with pytest.raises(DesignError, match=r"unseen in training.*3"):
        family.encode_new(Response("y", "numeric", np.array([0.0, 3.0])), target)


@every_family
def test_resolve_finds_names_in_any_case(name: str) -> None:
    assert type(resolve(name.upper())) is FAMILIES[name]
    instance = FAMILIES[name]()
    assert resolve(instance) is instance


def test_resolve_names_what_would_do() -> None:
    with pytest.raises(ValueError, match="did you mean 'gaussian'"):
        resolve("gausian")
    with pytest.raises(TypeError, match="bernoulli"):
        resolve(3)  # type: ignore[arg-type]


@every_family
def test_classes_are_attributes_of_the_package(name: str) -> None:
    assert getattr(families, FAMILIES[name].__name__) is FAMILIES[name]


def test_the_module_lists_the_classes_of_all_families() -> None:
    assert {FAMILIES[name].__name__ for name in FAMILIES} < set(dir(families))
    assert all(hasattr(families, name) for name in dir(families))


def test_text_of_one_value_is_no_matter_of_the_family() -> None:
    response = Response("y", "categorical", np.zeros(3, np.int64), ("a",))
    with pytest.raises(DesignError, match=r"is 'a' in all rows.*two values are needed"):
        families.Bernoulli().encode(response)


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="Weibull"):
        _ = families.Weibull


@pytest.mark.parametrize("name", [name for name in FAMILIES if "counts" in READS[name]])
@pytest.mark.parametrize(("successes", "missing"), [(0.0, "success"), (4.0, "failure")])
def test_counts_of_one_outcome_are_refused(name: str, successes: float, missing: str) -> None:
    counts = Response("p(k, n)", "counts", np.column_stack([np.full(N, successes), np.full(N, 4.0)]))
    with pytest.raises(DesignError, match=rf"`p\(k, n\)` has no {missing} in any row"):
        resolve(name).encode(counts)
