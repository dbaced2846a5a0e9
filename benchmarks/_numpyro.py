"""NumPyro's NUTS on the posterior of random intercepts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from glmmnet.joint import JointModel, Parameters

# One thread, as everything else here; read when jax is first imported.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")


@dataclass(frozen=True)
class Chains:
    """Draws (chains, draws, effects), what they cost without compilation, leapfrogs a draw."""

    draws: np.ndarray
    seconds: float
    seconds_tuning: float
    steps: float
    divergences: int


def draw(
    joint: JointModel,
    fixed: Tensor,
    params: Parameters,
    seed: int,
    chains: int,
    draws: int,
    warmup: int,
    picked: np.ndarray,
) -> Chains:
    """Draw b in units of its prior; the warmup tunes the step size and a diagonal mass matrix.

    Parameters
    ----------
    fixed : Tensor, (n, C, 1)
        The part of eta that is free of b.
    picked : ndarray of int
        Effects, rows of b (Q, C) one after the other, whose draws are kept.
    """
    import jax
    from numpyro.infer import NUTS

    with jax.enable_x64(True):
        kernel = NUTS(potential_fn=_potential(joint, fixed, params))
        start = jax.numpy.zeros(joint.n_effects * joint.n_classes)
        tune = jax.jit(lambda key: _transitions(kernel, picked, warmup, kernel.init(key, warmup, start, (), {}))[0])
        keep = jax.jit(partial(_transitions, kernel, picked, draws))
        tuning, kept, parts, steps, diverging = 0.0, 0.0, [], [], 0
        for chain in range(-1, chains):
            key = jax.random.PRNGKey(1 + chains * seed + chain)
            began = time.perf_counter()
            state = jax.block_until_ready(tune(key))
            tuned = time.perf_counter()
            _, (b, n_steps, divergent) = jax.block_until_ready(keep(state))
            ended = time.perf_counter()
            if chain < 0:  # this one has paid for the compilation
                continue
            tuning, kept = tuning + tuned - began, kept + ended - tuned
            parts.append(np.asarray(b))
            steps.append(float(np.mean(n_steps)))
            diverging += int(np.sum(divergent))
    return Chains(np.stack(parts), kept, tuning, float(np.mean(steps)), diverging)


def _transitions(kernel: Any, picked: np.ndarray, length: int, state: Any) -> Any:
    """`length` transitions: the last state, and of each the picked effects, leapfrogs, divergence."""
    import jax

    def one(state: Any, _: None) -> Any:
        state = kernel.sample(state, (), {})
        return state, (state.z[picked], state.num_steps, state.diverging)

    return jax.lax.scan(one, state, None, length=length)


def _potential(joint: JointModel, fixed: Tensor, params: Parameters) -> Any:
    """-log p(y, u) for u = b / sd, flat; rows in single precision and sums in double where our own samplers do so."""
    import jax
    import jax.numpy as jnp

    kind = jnp.float32 if joint.family.single_precision else jnp.float64
    offset, y = (jnp.asarray(part[:, :, 0].numpy(), dtype=kind) for part in (fixed, joint.target.y))
    terms = [
        (jnp.asarray(term.index.numpy()), term.rows, jnp.asarray(sigma[:, 0, 0].sqrt().numpy(), dtype=kind))
        for term, sigma in zip(joint.terms, params.sigma, strict=True)
    ]
    minus_log_p = {
        "bernoulli": lambda eta: jax.nn.softplus(eta) - y * eta,
        "gaussian": lambda eta: jnp.square(y - eta) / (2.0 * params.phi),
        "categorical": lambda eta: jax.nn.logsumexp(eta, axis=1) - (y * eta).sum(axis=1),
    }[joint.family.name]

    def potential(u: Any) -> Any:
        b = u.reshape(-1, joint.n_classes).astype(kind)
        eta = offset
        for index, rows, sd in terms:
            eta = eta + (b[rows] * sd)[index]
        return minus_log_p(eta).sum(dtype=jnp.float64) + 0.5 * jnp.square(u).sum()

    return potential
