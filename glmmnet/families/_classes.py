"""What families of several classes share: the response is one-hot, the mean a probability a class."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.families._base import Family
from glmmnet.families._of_mean import MeanFamily
from glmmnet.typing import Dispersion


class ClassFamily(MeanFamily):
    """y (n, classes, 1) is one-hot, and so is the observed response; its mean is (n, classes)."""

    class_means = True

    def as_simulated(self, y: Tensor) -> Tensor:
        return y[:, :, 0].argmax(dim=1)

    def observed(self, y: Tensor) -> Tensor:
        return y[:, :, 0]

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return mean * (1 - mean)

    def observation_variance(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        # No function of the mean alone, which is a probability a class.
        return Family.observation_variance(self, mean, eta, y, phi)

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.xlogy(y[:, :, 0], mean).sum(dim=1)
