"""One vector of a row of states, by attention."""

import torch
from torch import Tensor, nn

from vlmtrain.nn.attention import attend, merge_heads, split_heads
from vlmtrain.nn.pooling import Pooling


class ProbeAttention(Pooling):
    """A learned query reads all states, then an MLP (MAP: Zhai et al. 2022, arXiv:2106.04560, section 3.2; SigLIP).

    Args:
        width: W.
        num_states: not needed; any number of states is read.
        num_heads: of the attention.
        feed_forward_width: of the MLP; None: 4 W.
    """

    def __init__(
        self, width: int, num_states: int | None = None, num_heads: int = 12, feed_forward_width: int | None = None
    ) -> None:
        super().__init__(width, num_states)
        if width % num_heads:
            raise ValueError(f"width {width} cannot be cut into num_heads {num_heads}; give a divisor.")
        hidden = 4 * width if feed_forward_width is None else feed_forward_width
        self.num_heads = num_heads
        self.probe = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.to_query = nn.Linear(width, width)
        self.to_key_value = nn.Linear(width, 2 * width)
        self.to_out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        for linear in (self.to_query, self.to_key_value, self.to_out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        query = split_heads(self.to_query(self.probe.to(states.dtype)), self.num_heads)
        key, value = (split_heads(each, self.num_heads) for each in self.to_key_value(states).chunk(2, dim=-1))
        read = attend(query, key, value, mask=None if mask is None else mask[:, None, None])
        pooled = self.to_out(merge_heads(read))
        return (pooled + self.mlp(self.norm(pooled))).squeeze(1)


class MeanQueryAttention(Pooling):
    """The mean of the patches reads them and itself (CLIP's ResNets: Radford et al. 2021, section 2.4).

    What CLIP calls its output projection follows as the projection of the dual encoder, with a bias.
    """

    def __init__(self, width: int, num_states: int, num_heads: int = 32) -> None:
        super().__init__(width, num_states)
        if width % num_heads:
            raise ValueError(f"width {width} cannot be cut into num_heads {num_heads}; give a divisor.")
        self.num_heads = num_heads
        self.positions = nn.Parameter(torch.randn(1 + num_states, width) * width**-0.5)
        self.to_query, self.to_key, self.to_value = (nn.Linear(width, width) for _ in range(3))
        for linear in (self.to_query, self.to_key, self.to_value):
            nn.init.normal_(linear.weight, std=width**-0.5)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None or states.shape[1] != len(self.positions) - 1:
            raise ValueError(
                f"MeanQueryAttention has positions for {len(self.positions) - 1} patches, all real; it was given "
                f"{states.shape[1]}.  Choose images of the encoder's size, or another pooling."
            )
        tokens = torch.cat([states.mean(dim=1, keepdim=True), states], dim=1) + self.positions.to(states.dtype)
        query = split_heads(self.to_query(tokens[:, :1]), self.num_heads)
        key, value = (split_heads(project(tokens), self.num_heads) for project in (self.to_key, self.to_value))
        return merge_heads(attend(query, key, value)).squeeze(1)
