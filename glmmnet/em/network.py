"""The network's share of EM: minibatches, with the draws of b refreshed inside the epoch.

By Fisher's identity fresh draws make the minibatch gradient that of the marginal likelihood; draws kept for a whole
epoch let b absorb what f has not yet learned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.em.config import EMConfig
from glmmnet.em.e_step import EStep
from glmmnet.em.expansion import Carrier, find_carriers
from glmmnet.em.m_step import m_step
from glmmnet.em.state import EMState
from glmmnet.em.stopping import Patience
from glmmnet.errors import FitError
from glmmnet.joint import JointModel, Parameters
from glmmnet.laplace import level_whitening
from glmmnet.networks import NeuralPredictor, WeightAverage
from glmmnet.typing import Sampler

#: Minibatches a fit takes at least, and the epochs that may give them.
_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 1700, 12, 200
#: Epochs whose first refresh tunes the sampler's step size, and the transitions it takes.
_TUNED_EPOCHS, _TUNING = (0, 2, 8), 10
#: Pairs of points that stand for the posterior of b in the held-out deviance.
_SPREAD = 4
#: Deviance that the held-out rows lose where they speak against something.
_WORSE = 2.0
#: Gain of the averaging while the network learns, after the first epochs.
_GAIN, _FULL_GAIN_EPOCHS = 0.3, 2


@dataclass
class Rows:
    """Some of the training rows: the model and the network inputs there."""

    joint: JointModel
    xs: list[Tensor]

    def subset(self, rows: Tensor) -> Rows:
        """The same on fewer rows."""
        return Rows(self.joint.subset(rows), [x[rows] for x in self.xs])


class NetworkTraining:
    """Trains `predictor` in place; iterate :meth:`run`, which leaves the best weights in it.

    Parameters
    ----------
    rows : Rows
        All training rows.
    predictor : NeuralPredictor
    held : Tensor of bool, (n,), optional
        Rows held out for early stopping; None: `config.valid_fraction` of them at random.
    """

    def __init__(
        self,
        rows: Rows,
        predictor: NeuralPredictor,
        config: EMConfig,
        sampler: Sampler | None,
        held: Tensor | None = None,
    ) -> None:
        n = rows.joint.n
        if held is None:
            held = torch.zeros(n, dtype=torch.bool)
            held[torch.randperm(n)[: round(n * config.valid_fraction)]] = True
        some = bool(held.any())
        self.valid = rows.subset(held.nonzero()[:, 0]) if some else None
        self.train = rows.subset((~held).nonzero()[:, 0]) if some else rows
        self.config = config
        self.predictor = predictor
        self.e_step = EStep(self.train.joint, sampler, config.network_draws)
        self.carriers: tuple[Carrier, ...] = find_carriers(self.train.joint)
        half = torch.randn(rows.joint.n_effects, rows.joint.n_classes, _SPREAD, dtype=torch.float64)
        self._noise = torch.cat([half, -half], dim=2)
        self._learner = copy.deepcopy(predictor)
        self._average = WeightAverage(self._learner, config.weight_average)
        n_train = self.train.joint.n
        self._batch = config.batch_size or _batch_size(n_train)
        batches = math.ceil(n_train / self._batch) + config.refreshes
        self.epochs = config.epochs or min(max(math.ceil(_STEPS / batches), _FEWEST_EPOCHS), _MOST_EPOCHS)
        groups = [{"params": b.parameters(), "weight_decay": b.weight_decay} for b in self._learner.blocks]
        self._optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, max_lr=config.learning_rate, total_steps=self.epochs * batches + 1, pct_start=0.2
        )

    def run(self, params: Parameters) -> Iterator[EMState]:
        """One state an epoch; the last one's `params` go with the weights left in `predictor`."""
        patience = Patience(self.config.patience)
        best = (copy.deepcopy(self.predictor.state_dict()), params)
        for epoch in range(self.epochs):
            for k, part in enumerate(torch.randperm(self.train.joint.n).chunk(self.config.refreshes)):
                tune = _TUNING if epoch in _TUNED_EPOCHS and k == 0 else 0
                params, f, b, deviance = self._refresh(params, epoch, tune)
                self._descend(part, params, b)
            self._copy_average()
            valid = self._valid_deviance(params, f)
            if patience.improved(valid):
                best = (copy.deepcopy(self.predictor.state_dict()), params)
            yield EMState(
                epoch + 1, "network", params, f, b, deviance, valid, float("nan"), False, self.e_step.single_step_size
            )
            if patience.exhausted:
                break
        self.predictor.load_state_dict(best[0])
        self.best_params = best[1]

    def _copy_average(self) -> None:
        """The averaged weights into `predictor`, with the centre that the learner has."""
        self._average.copy_to(self.predictor)
        self.predictor.centre.copy_(self._learner.centre)

    def _refresh(self, params: Parameters, epoch: int, tune: int) -> tuple[Parameters, Tensor, Tensor, float]:
        """New f from the averaged weights, draws of b, and estimates of everything but the network."""
        joint = self.train.joint
        self._copy_average()
        f = self.predictor.predict(self.train.xs)
        if not bool(torch.isfinite(f).all()):
            rate = self.config.learning_rate
            raise FitError(f"the network's output is not finite; a learning_rate lower than {rate:g} may help.")
        params, f = centre(self.predictor, joint, params, f)
        self._learner.centre.copy_(self.predictor.centre)
        b = self.e_step(joint.fixed_eta(params, f), params, sweeps=1, warmup=tune)
        step = m_step(joint, self.carriers, params, b, f)
        gain = 1.0 if epoch < _FULL_GAIN_EPOCHS else _GAIN
        new = params.blend(step.params, gain)
        self.e_step.shift(gain * step.shift)
        return new, f, b - gain * step.shift[:, :, None], step.deviance

    def _descend(self, part: Tensor, params: Parameters, b: Tensor) -> None:
        """Minibatches over the rows `part`, each row with one of the draws."""
        joint, config, family = self.train.joint, self.config, self.train.joint.family
        fixed = joint.fixed_eta(params)[part]
        pick = torch.randint(b.shape[2], (len(part),))
        random = joint.random_eta(b)[part, :, pick][:, :, None]
        # Rows are gathered once here, not a minibatch at a time.
        offsets = (fixed + random).to(torch.float32).split(self._batch)
        marginals = fixed.to(torch.float32).split(self._batch)
        ys = joint.target.y[part].to(torch.float32).split(self._batch)
        phi = joint.row_phi(params.phi, part)
        phis = phi.to(torch.float32).split(self._batch) if isinstance(phi, Tensor) else (phi,) * len(ys)
        weights = joint.weights[part].to(torch.float32).split(self._batch)
        inputs = [x[part].split(self._batch) for x in self.train.xs]
        self._learner.train()
        for k, y in enumerate(ys):
            f = joint.loaded(self._learner([x[k] for x in inputs]))[:, :, None]
            log_p = family.log_prob(f + offsets[k], y, phis[k])[:, 0]
            if config.fe_loss_weight:
                log_p = log_p + config.fe_loss_weight * family.log_prob(f + marginals[k], y, phis[k])[:, 0]
            loss = -(weights[k] * log_p).mean() if joint.weighted else -log_p.mean()
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            self._schedule.step()
            self._average.update()

    def refutes(self, factor: float, params: Parameters) -> bool:
        """Whether the held-out rows speak against an f that is larger by a factor; without such rows nothing may be."""
        if self.valid is None:
            return True
        f = self.predictor.predict(self.train.xs)
        larger, own = (self._valid_deviance(params, f, by) for by in (factor, 1.0))
        return (larger - own) * float(self.valid.joint.weights.sum()) > _WORSE

    def _valid_deviance(self, params: Parameters, f: Tensor, factor: float = 1.0) -> float:
        """-2 log predictive density a held-out row, b integrated over its Laplace approximation given f (n, C).

        At a point of b it would favour small f and small variances: what is uncertain must not be claimed. The same
        normal numbers serve every epoch, so that epochs can be told apart. `factor` is that of f on these rows alone.
        """
        if self.valid is None:
            return float("-inf")
        joint = self.valid.joint
        eta = joint.fixed_eta(params, factor * self.predictor.predict(self.valid.xs))
        if joint.terms:
            eta = eta + joint.random_eta(self._spread_out(params, f))
        log_p = joint.family.log_prob(eta, joint.target.y, joint.row_phi(params.phi))
        log_mean = torch.logsumexp(log_p, dim=1) - math.log(log_p.shape[1])
        return -2.0 * float(joint.weights @ log_mean) / float(joint.weights.sum())

    def _spread_out(self, params: Parameters, f: Tensor) -> Tensor:
        """B at the points of the Laplace approximation that stand for it, (Q, C, S)."""
        joint, mode = self.train.joint, self.e_step.mode
        if mode is None:
            mode = torch.zeros(joint.n_effects, joint.n_classes, dtype=torch.float64)
        return level_whitening(joint, mode, joint.fixed_eta(params, f), params).to_b(self._noise)


def centre(predictor: NeuralPredictor, joint: JointModel, params: Parameters, f: Tensor) -> tuple[Parameters, Tensor]:
    """Move the mean of f (n, C) over the rows into the intercept; nothing moves when there is none."""
    if joint.constant is None:
        return params, f
    mean = f.mean(dim=0)
    beta = params.beta + joint.constant[:, None] * mean
    predictor.centre += mean.to(torch.float32)
    return Parameters(beta, params.sigma, params.phi), f - mean


def _batch_size(n: int) -> int:
    """512 rows from 30,000 rows on; fewer below, so that an epoch has about 60 minibatches."""
    return min(512, max(32, 2 ** round(math.log2(max(n, 64) / 60))))
