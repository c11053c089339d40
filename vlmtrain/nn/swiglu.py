"""The feed-forward block of Llama and its kin."""

import torch.nn.functional as F
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """Two projections up, one of them through SiLU, multiplied; one down; no biases (Shazeer 2020, section 2)."""

    def __init__(self, width: int, inner_width: int, output_width: int | None = None) -> None:
        """`output_width`: `width`, if nothing else is said."""
        super().__init__()
        self.to_switch = nn.Linear(width, inner_width, bias=False)
        self.expand = nn.Linear(width, inner_width, bias=False)
        self.contract = nn.Linear(inner_width, output_width or width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., output_width]"""
        return self.contract(F.silu(self.to_switch(x)) * self.expand(x))
