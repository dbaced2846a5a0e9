import pytest
import torch

from glmmnet.links import BASELINE_LOGIT, IDENTITY, LOGIT, SOFTMAX, Link

SCALAR = [IDENTITY, LOGIT]
CLASSES = [SOFTMAX, BASELINE_LOGIT]


def name_of(link: Link) -> str:
    return link.name


def grid(link: Link) -> torch.Tensor:
    eta = torch.linspace(-12, 12, 60, dtype=torch.float64).reshape(10, 3, 2)
    return eta - eta.mean(dim=1, keepdim=True) if link is SOFTMAX else eta


@pytest.mark.parametrize("link", SCALAR + CLASSES, ids=name_of)
def test_round_trip(link: Link) -> None:
    eta = grid(link)
    torch.testing.assert_close(link.link(link.inverse(eta)), eta, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("link", SCALAR + CLASSES, ids=name_of)
def test_means_lie_in_the_domain(link: Link) -> None:
    mean = link.inverse(grid(link))
    low, high = link.domain
    assert bool(((mean > low) & (mean < high)).all())


@pytest.mark.parametrize("link", SCALAR, ids=name_of)
def test_means_grow_with_eta(link: Link) -> None:
    eta = torch.linspace(-12, 12, 60, dtype=torch.float64)
    assert bool((link.inverse(eta).diff() > 0).all())


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
