"""Categorical family: one linear predictor a class (symmetric), or one a class but the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glmmnet.errors import FitError, OptionError
from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target
from glmmnet.families._classes import ClassFamily
from glmmnet.links import BASELINE_LOGIT, SOFTMAX
from glmmnet.typing import Dispersion, Response

#: Classes up to which a softmax is quicker over columns than over rows.
_FEW_CLASSES = 32


@FAMILIES.register("categorical")
class Categorical(ClassFamily):
    """y is class c with probability softmax(eta)_c.

    Parameters
    ----------
    reference : class label, optional
        None: the paper's symmetric form, a linear predictor and a variance a class; the fixed effects of the
        classes sum to zero. A label: baseline-category logits, as mclogit and brms have them; the
        reference's linear predictor is 0.
    class_cov : {"independent", "us"}
        Random effects of different classes independent, or with an unstructured covariance of all columns and classes
        of a term, named ``column[class]``; the latter needs a reference, the symmetric form does not identify it.

    Examples
    --------
    >>> from glmmnet.families import Categorical
    >>> Categorical(reference="a")
    Categorical(reference='a')
    """

    name = "categorical"
    single_precision = True
    canonical = True

    def __init__(self, reference: Any = None, class_cov: str = "independent") -> None:
        if class_cov not in ("independent", "us"):
            raise OptionError(f"class_cov={class_cov!r}; write 'independent' or 'us'.")
        if class_cov == "us" and reference is None:
            raise OptionError(
                "class_cov='us' needs a reference class, families.Categorical(reference=..., class_cov='us'): without "
                "one the covariance of the classes is not identified."
            )
        self.reference, self.class_cov = reference, class_cov
        self.symmetric = reference is None
        self.link = SOFTMAX if reference is None else BASELINE_LOGIT

    def encode(self, response: Response) -> Target:
        if response.kind == "counts":
            raise self.disagree(response, "gives successes and trials", "use family='binomial'")
        if response.kind == "categorical":
            labels = response.levels
        else:
            values = np.unique(response.values)
            if response.kind == "numeric" and not np.all(values == np.round(values)):
                wrong = values[values != np.round(values)][0]
                raise self.disagree(
                    response,
                    f"has values that are no class, e.g. {wrong:g}",
                    "use family='gaussian' or whole numbers",
                )
            labels = tuple(v.item() if response.kind == "boolean" else int(v) for v in values)
        if len(labels) < 2:
            raise self.disagree(response, f"has one class, {list(labels)}", "two or more are needed")
        if self.reference is not None:
            if self.reference not in labels:
                raise self.disagree(
                    response,
                    f"has no class {self.reference!r}",
                    f"reference is one of {', '.join(map(repr, map(str, labels[:20])))}",
                )
            labels = (self.reference, *(label for label in labels if label != self.reference))
        predictors = tuple(str(label) for label in (labels if self.reference is None else labels[1:]))
        note = "" if self.reference is None else f"reference: {self.reference!r}"
        correlated = self.class_cov == "us"
        target = Target(torch.empty(0), labels=labels, predictors=predictors, note=note, correlated=correlated)
        return replace(target, y=self.encode_new(response, target))

    def encode_new(self, response: Response, target: Target) -> Tensor:
        known = {label: code for code, label in enumerate(target.labels)}
        found = response.levels if response.kind == "categorical" else tuple(np.unique(response.values))
        codes = response.values if response.kind == "categorical" else np.searchsorted(found, response.values)
        if unknown := [level for level in found if level not in known]:
            raise self.disagree(response, f"has classes unseen in training, {unknown[:5]}", "leave those rows out")
        translate = torch.tensor([known[level] for level in found])
        index = translate[torch.as_tensor(np.asarray(codes, dtype=np.int64))]
        y = torch.nn.functional.one_hot(index, len(target.labels)).to(torch.float64)
        if y.shape[1] <= _FEW_CLASSES:
            y = y.T.contiguous().T
        return y[:, :, None]

    def _by_class(self, eta: Tensor) -> Tensor:
        """Scores of all classes, classes first in memory if few: a softmax over short rows takes 15 times as long."""
        scores = eta.movedim(1, 0)
        scores = scores.contiguous() if len(scores) <= _FEW_CLASSES else scores
        return scores if self.reference is None else torch.cat([torch.zeros_like(scores[:1]), scores])

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        scores = self._by_class(eta)
        return (y.movedim(1, 0) * scores).sum(dim=0) - torch.logsumexp(scores, dim=0)

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        log_p, own = torch.log_softmax(self._by_class(eta), dim=0), y.movedim(1, 0)
        score = own - torch.exp(log_p)
        score = score if self.reference is None else score[1:]
        return (own * log_p).sum(dim=0), score.movedim(0, 1).contiguous()

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        p = torch.softmax(self._by_class(eta), dim=0)
        p = p if self.reference is None else p[1:]
        weight = -p[:, None] * p[None]
        torch.diagonal(weight, dim1=0, dim2=1).add_(p.movedim(0, -1))
        return weight.movedim(2, 0)

    def weight_diagonal(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        p = torch.softmax(self._by_class(eta), dim=0)
        p = p if self.reference is None else p[1:]
        return (p * (1 - p)).movedim(0, 1)

    def unbounded(self, y: Tensor) -> Tensor:
        own = y[:, :, 0]
        rows = own[:, None, :] - torch.eye(own.shape[1], dtype=y.dtype)
        return rows if self.reference is None else rows[:, :, 1:]

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        share = (weights[:, None] * y[:, :, 0]).sum(dim=0) / weights.sum()
        return self.link.link(share[None])[0], 1.0

    def linear_predictors(self, eta: Tensor, intercepts: Tensor) -> Tensor:
        # One eta is enough where the other class is the reference.
        least = 2 if self.reference is None else 1
        if eta.shape[1] < least:
            raise OptionError(
                f"{self!r} has an eta for each class; f must return {least} columns or more, (n, classes)."
            )
        self.check_predictors(eta[:, :1], intercepts, 0, "")
        return eta

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        raise FitError(
            "the classes of family 'categorical' have no order, so that none is below another: it has no quantile "
            "residuals. For ordered classes use family='cumulative'."
        )

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        probabilities = self.mean(eta, phi).transpose(1, 2)
        flat = probabilities.reshape(-1, probabilities.shape[2])
        return torch.multinomial(flat, 1).reshape(probabilities.shape[:2]).to(eta.dtype)

    def __repr__(self) -> str:
        correlated = ", class_cov='us'" if self.class_cov == "us" else ""
        return f"Categorical(reference={self.reference!r}{correlated})"
