import pytest
import scipy.stats
import torch

from glmmnet.links import (
    BASELINE_LOGIT,
    CLOGLOG,
    IDENTITY,
    INVERSE,
    LOG,
    LOGIT,
    POSITIVE_IDENTITY,
    PROBIT,
    SOFTMAX,
    SQRT,
    Link,
    PositiveLink,
    ProbabilityLink,
)

PROBABILITY = [LOGIT, PROBIT, CLOGLOG]
POSITIVE = [LOG, POSITIVE_IDENTITY, INVERSE, SQRT]
SCALAR = [IDENTITY, *PROBABILITY, *POSITIVE]
CLASSES = [SOFTMAX, BASELINE_LOGIT]


def name_of(link: Link) -> str:
    return link.name


def grid(link: Link) -> torch.Tensor:
    if link in (POSITIVE_IDENTITY, INVERSE, SQRT):
        return torch.logspace(-6, 6, 60, dtype=torch.float64).reshape(10, 3, 2)
    far = 6 if link in (PROBIT, CLOGLOG) else 12
    eta = torch.linspace(-far, min(far, 3) if link is CLOGLOG else far, 60, dtype=torch.float64).reshape(10, 3, 2)
    return eta - eta.mean(dim=1, keepdim=True) if link is SOFTMAX else eta


@pytest.mark.parametrize("link", SCALAR + CLASSES, ids=name_of)
def test_round_trip(link: Link) -> None:
    eta = grid(link)
    # A probability near 1 keeps few digits of what it lacks.
    tolerance = 1e-6 if link is PROBIT else 1e-8
    torch.testing.assert_close(link.link(link.inverse(eta)), eta, rtol=tolerance, atol=1e-8)


@pytest.mark.parametrize("link", SCALAR + CLASSES, ids=name_of)
def test_means_lie_in_the_domain(link: Link) -> None:
    mean = link.inverse(grid(link))
    low, high = link.domain
    assert bool(((mean > low) & (mean < high)).all())


@pytest.mark.parametrize("link", SCALAR, ids=name_of)
def test_means_are_monotone_in_eta(link: Link) -> None:
    step = link.inverse(grid(link).reshape(-1)).diff()
    assert bool((step < 0).all() if link is INVERSE else (step > 0).all())


@pytest.mark.parametrize("link", POSITIVE, ids=name_of)
def test_log_mean_and_its_slope(link: PositiveLink) -> None:
    eta = grid(link).requires_grad_()
    torch.testing.assert_close(link.log_inverse(eta), torch.log(link.inverse(eta)), rtol=1e-12, atol=1e-12)
    link.log_inverse(eta).sum().backward()
    torch.testing.assert_close(link.log_slope(eta.detach()), eta.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("link", POSITIVE, ids=name_of)
def test_positive_means_stay_numbers_whatever_eta(link: PositiveLink, dtype: torch.dtype) -> None:
    eta = torch.tensor([-1e15, -800.0, -1.0, -1e-12, 0.0, 1e-12, 1.0, 800.0], dtype=dtype)
    for values in (link.log_inverse(eta), link.log_slope(eta)):
        assert values.dtype == dtype
        assert bool(torch.isfinite(values).all())
    assert bool((link.inverse(eta) > 0).all())


@pytest.mark.parametrize("link", [POSITIVE_IDENTITY, INVERSE], ids=name_of)
def test_means_meet_smoothly_where_the_link_ends(link: PositiveLink) -> None:
    end = torch.finfo(torch.float64).tiny ** 0.25
    around = end * torch.tensor([1 - 1e-9, 1 + 1e-9], dtype=torch.float64)
    for values in (link.inverse(around), link.log_slope(around)):
        torch.testing.assert_close(values[0], values[1], rtol=1e-8, atol=0)


@pytest.mark.parametrize("link", PROBABILITY, ids=name_of)
def test_log_probabilities_and_their_slopes(link: ProbabilityLink) -> None:
    eta = torch.linspace(-50, 50, 401, dtype=torch.float64)
    eta = eta[eta < 5] if link is CLOGLOG else eta
    distribution = {LOGIT: scipy.stats.logistic, PROBIT: scipy.stats.norm, CLOGLOG: scipy.stats.gumbel_l}[link]
    for k, (log, slope) in enumerate(zip(link.logs(eta), link.slopes(eta), strict=True)):
        expected = (distribution.logcdf, distribution.logsf)[k](eta.numpy())
        torch.testing.assert_close(log, torch.as_tensor(expected), rtol=1e-11, atol=1e-300)
        density = torch.as_tensor(distribution.logpdf(eta.numpy()))
        torch.testing.assert_close(slope, (-1) ** k * torch.exp(density - log), rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("link", PROBABILITY, ids=name_of)
def test_probabilities_stay_numbers_whatever_eta(link: ProbabilityLink, dtype: torch.dtype) -> None:
    eta = torch.tensor([-1e4, -800.0, -50.0, -18.0, 0.0, 18.0, 50.0, 800.0, 1e4], dtype=dtype)
    for values in (*link.logs(eta), *link.slopes(eta)):
        assert values.dtype == dtype
        assert bool(torch.isfinite(values).all())


@pytest.mark.parametrize("link", CLASSES, ids=name_of)
def test_classes_sum_to_one(link: Link) -> None:
    mean = link.inverse(grid(link))
    torch.testing.assert_close(mean.sum(dim=1), torch.ones(10, 2, dtype=torch.float64))
    assert mean.shape[1] == (3 if link is SOFTMAX else 4)


def test_baseline_is_the_first_class() -> None:
    mean = BASELINE_LOGIT.inverse(torch.zeros(1, 2, dtype=torch.float64))
    torch.testing.assert_close(mean, torch.full((1, 3), 1 / 3, dtype=torch.float64))
    shifted = BASELINE_LOGIT.inverse(torch.tensor([[2.0, 0.0]], dtype=torch.float64))
    assert shifted[0].argmax() == 1
