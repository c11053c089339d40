"""encoder -> connector -> fusion -> language model."""

from collections.abc import Callable

from torch import Tensor, nn

from vlmtrain.batch import TargetStates, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.connectors.base import Connector
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.fusions.base import Fusion
from vlmtrain.language_models.base import LanguageModel
from vlmtrain.layout import Layout
from vlmtrain.models.encode_images import encode_images


class VisionLanguageModel(nn.Module):
    """LLaVA, BLIP-2, Flamingo, PaLI and Cobra are settings of this one.  WritesText, Captions."""

    def __init__(
        self, encoder: VisionEncoder, connector: Connector, fusion: Fusion, language_model: LanguageModel
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.connector = connector
        self.fusion = fusion
        self.language_model = language_model
        fusion.install(language_model)

    def layout(self) -> Layout:
        return self.connector.layout(self.language_model.layout())

    def placeholders_per_item(self, tiles: int) -> int:
        return self.fusion.placeholders(self.connector.tokens_per_item(tiles))

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return encode_images(self.encoder, visual)

    def target_states(self, visual: VisualFeatures, text: TextBatch) -> TargetStates:
        if text.targets is None:
            raise ValueError("These rows are prompts without targets; write them with Layout.write.")
        with self.fusion.entering(self.language_model, text, self.connector(visual, text)) as embeddings:
            return self.language_model.target_states(embeddings, text.attention_mask, text.targets)

    def write(self, visual: VisualFeatures, text: TextBatch, max_new_tokens: int, num_beams: int = 1) -> Tensor:
        with self.fusion.entering(self.language_model, text, self.connector(visual, text)) as embeddings:
            return self.language_model.generate(embeddings, text.attention_mask, max_new_tokens, num_beams)


def assemble(
    encoder: VisionEncoder,
    language_model: LanguageModel,
    connector: Callable[..., Connector],
    fusion: Callable[..., Fusion],
    adaptation: Callable[[LanguageModel], LanguageModel] | None = None,
    encoder_adaptation: Callable[[VisionEncoder], VisionEncoder] | None = None,
    packing: Callable[[LanguageModel], LanguageModel] | None = None,
) -> VisionLanguageModel:
    """What a config names as target: the pretrained ends first, then the parts between, made to measure.

    `connector` is called with (encoder width, patches per tile, language width), `fusion` with (language width), so
    that no width stands in a config twice.  An adaptation takes a pretrained end and gives it back with something added
    that learns while the rest stays frozen: low-rank updates, new tokens, a soft prompt.  `packing` lets samples share
    the rows of the language model.
    """
    encoder = encoder if encoder_adaptation is None else encoder_adaptation(encoder)
    language_model = language_model if adaptation is None else adaptation(language_model)
    language_model = language_model if packing is None else packing(language_model)
    return VisionLanguageModel(
        encoder=encoder,
        connector=connector(encoder.width, encoder.patches_per_tile, language_model.width),
        fusion=fusion(language_model.width),
        language_model=language_model,
    )
