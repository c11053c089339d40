"""A language model by itself, trained on text: how the embedded frozen language model is made."""

import torch
from torch import Tensor, nn

from vlmtrain.batch import TargetStates, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.language_models.base import LanguageModel
from vlmtrain.layout import Layout


class TextOnly(nn.Module):
    """Plain causal language modelling; whatever images a batch holds are not looked at.  WritesText, Captions."""

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__()
        self.language_model = language_model

    def layout(self) -> Layout:
        return self.language_model.layout()

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        nothing = visual.pixels.new_zeros(len(visual.pixels), 0, 0, dtype=torch.float32)
        return VisualFeatures(nothing, visual.tiles_per_item, visual.items_per_sample)

    def target_states(self, visual: VisualFeatures, text: TextBatch) -> TargetStates:
        if text.targets is None:
            raise ValueError("These rows are prompts without targets; write them with Layout.write.")
        embeddings = self.language_model.embed(text.input_ids)
        return self.language_model.target_states(embeddings, text.attention_mask, text.targets)

    def write(self, visual: VisualFeatures, text: TextBatch, max_new_tokens: int) -> Tensor:
        embeddings = self.language_model.embed(text.input_ids)
        return self.language_model.generate(embeddings, text.attention_mask, max_new_tokens)
