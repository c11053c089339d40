"""From the width of a tower to the width of the space that images and texts share."""

from torch import Tensor, nn


class Plain(nn.Linear):
    """One matrix (CLIP: Radford et al. 2021, section 2.3), starting so that unit variance stays unit variance."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__(width, embedding_width, bias=False)
        nn.init.normal_(self.weight, std=width**-0.5)


class WithBias(nn.Linear):
    """A matrix and a bias: SigLIP's text tower, and behind the attention pooling of CLIP's ResNets."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__(width, embedding_width)
        nn.init.normal_(self.weight, std=width**-0.5)
        nn.init.zeros_(self.bias)


class Unchanged(nn.Module):
    """No projection: the tower's width is that of the space (SigLIP's image tower)."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        if width != embedding_width:
            raise ValueError(
                f"the tower is {width} wide, embedding_width {embedding_width}: let them agree, or project."
            )

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, W] -> [B, W]"""
        return pooled
