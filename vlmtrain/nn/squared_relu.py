"""The activation of Flamingo's resampler and gated blocks ("Primer"; So et al. 2021)."""

import torch.nn.functional as F
from torch import Tensor


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0) squared."""
    return F.relu(x).square()
