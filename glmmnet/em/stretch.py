"""The size of f, estimated once more with everything else after the network has learned.

Weight decay and early stopping leave f a little too flat. Beside it the variances come out too small: a factor of f
that the likelihood is free to choose, a column of X in all but name, mends both.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from glmmnet.em.boundary import floored
from glmmnet.em.state import EMState
from glmmnet.joint import JointModel, Parameters
from glmmnet.marginal import marginal_information
from glmmnet.networks import NeuralPredictor

#: Name of the column; no term of a formula is called so.
_COLUMN = "nn()"
#: Standard error of the factor below which it is free. What f has learned of the rows' noise makes the factor too large
#: by hundreds of times its variance: as much as it mends here, by 10 and 20 % with 5,000 and 2,000 binary rows.
_KNOWN = 0.015


class Stretch:
    """The model in which f is a column of X, and the way back.

    Parameters
    ----------
    joint : JointModel
        With one output of the network.
    predictor : NeuralPredictor
        Its scale and centre follow the factor of f, see :meth:`folded`.
    f : Tensor, (n, 1)
        Its output on all rows, centred.
    """

    def __init__(self, joint: JointModel, predictor: NeuralPredictor, f: Tensor) -> None:
        self._predictor, self._f = predictor, f
        self._scale, self._centre = predictor.scale.clone(), predictor.centre.clone()
        loading = joint.x_loading
        if loading is not None:
            assert joint.f_loading is not None
            loading = torch.cat([loading, joint.f_loading[None]])
        self.joint = replace(
            joint, X=torch.cat([joint.X, f], dim=1), x_names=(*joint.x_names, _COLUMN), x_loading=loading
        )

    def first_step(self, params: Parameters, b: Tensor) -> float | None:
        """The factor after one step from 1, given draws b (Q, C, S); None where the rows tell it too little.

        What the other columns and the random effects can take of f tells nothing.
        """
        joint, params = self.joint, self.start(params)
        fixed = joint.fixed_eta(params)
        weight = joint.weight(fixed, params.phi)[..., 0]
        information, _ = marginal_information(joint, floored(joint, params), weight, joint.columns)
        _, score = joint.log_likelihood_and_score(fixed + joint.random_eta(b), params.phi)
        score = joint.columns.transpose(score).mean(dim=1)
        share = torch.linalg.pinv(information[:-1, :-1], hermitian=True) @ information[:-1, -1]
        left = float(information[-1, -1] - share @ information[:-1, -1])
        return 1.0 + float(score[-1] - share @ score[:-1]) / left if left > _KNOWN**-2 else None

    @staticmethod
    def start(params: Parameters) -> Parameters:
        """`params` with a factor of 1."""
        return replace(params, beta=torch.cat([params.beta, torch.ones(1, 1, dtype=torch.float64)]))

    def folded(self, state: EMState) -> EMState:
        """The state of the model itself; the network's output becomes that much larger."""
        factor = state.params.beta[-1]
        self._predictor.scale.copy_(self._scale * factor[0])
        self._predictor.centre.copy_(self._centre * factor)
        params = replace(state.params, beta=state.params.beta[:-1])
        return replace(state, params=params, f=self._f * factor)
