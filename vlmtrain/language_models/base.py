"""The seam to a pretrained language model: everything vlmtrain needs of OPT, Llama, Mamba or T5, and no more."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vlmtrain.batch import TargetStates
from vlmtrain.layout import Layout
from vlmtrain.nn.shared_rows import SharedRows


class LanguageModel(nn.Module, ABC):
    """A language model that reads embeddings."""

    width: int  # D
    source: str = "random"  # name or folder of the pretrained weights

    @property
    @abstractmethod
    def input_layers(self) -> nn.ModuleList:
        """The residual blocks that process the T input positions, in order; of an encoder-decoder the encoder's."""

    @property
    def shared_rows(self) -> SharedRows | None:
        """While a pass of training runs in which samples share rows: how; None where every row is a sample."""
        return None

    @abstractmethod
    def layout(self) -> Layout:
        """How this language model wants its text laid out."""

    @abstractmethod
    def embed(self, input_ids: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]"""

    @abstractmethod
    def target_states(self, embeddings: Tensor, attention_mask: Tensor, targets: Tensor) -> TargetStates:
        """[B, T, D], [B, T], [B, L] -> states of the supervised positions only, and the head that reads them."""

    @abstractmethod
    def logits(self, embeddings: Tensor, attention_mask: Tensor, targets: Tensor) -> Tensor:
        """[B, T, D], [B, T], [B, L] -> [B, L, vocabulary].  For tests and probes; training never makes them."""

    @abstractmethod
    def generate(self, embeddings: Tensor, attention_mask: Tensor, max_new_tokens: int, num_beams: int = 1) -> Tensor:
        """Most likely continuation, greedy or by beam search: [B, T, D], [B, T] -> token ids [B, new]."""
