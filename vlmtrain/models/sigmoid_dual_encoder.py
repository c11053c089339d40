"""A dual encoder whose similarities say by themselves whether a pair belongs together."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.language_models.text_encoder import TextEncoder
from vlmtrain.models.dual_encoder import DualEncoder
from vlmtrain.nn.pooling import ClassToken, Pooling
from vlmtrain.nn.projections import Plain


class SigmoidDualEncoder(DualEncoder):
    """SigLIP (Zhai et al. 2023, arXiv:2303.15343, section 3.2): DualEncoder with a learned bias.  EmbedsBothWithBias.

    Args:
        bias: at the start: so low that the many wrong pairs of a batch are judged right.
        temperature: 0.1, a scale of 10, and no bound.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        text_encoder: TextEncoder,
        embedding_width: int,
        temperature: float = 0.1,
        bias: float = -10.0,
        pooling: Callable[..., Pooling] = ClassToken,
        visual_projection: Callable[[int, int], nn.Module] = Plain,
        text_projection: Callable[[int, int], nn.Module] = Plain,
    ) -> None:
        super().__init__(
            encoder,
            text_encoder,
            embedding_width,
            temperature,
            pooling,
            visual_projection,
            text_projection,
            max_scale=None,
        )
        self.bias = nn.Parameter(torch.tensor(bias))

    def similarity_bias(self) -> Tensor:
        return self.bias
