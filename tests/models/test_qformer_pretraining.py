"""BLIP-2 stage 1 against transformers' Blip2ForImageTextRetrieval, and what it computes only once."""

import gc
import subprocess
import sys
import weakref
from copy import deepcopy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TextBatch, VisualBatch
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.layout import Text
from vlmtrain.layouts.pair import PairLayout
from vlmtrain.layouts.qformer_words import DECODER_START
from vlmtrain.models.capabilities import EmbedsBoth, MatchesPairs, WritesText
from vlmtrain.models.qformer_pretraining import QFormerPretraining, text_for
from vlmtrain.nn.qformer import QFormer
from vlmtrain.nn.qformer_text import TextHead

WIDTH, DEPTH, HEADS, QUERIES, INNER, SHARED, ENCODER = 32, 4, 4, 5, 48, 16, 24
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]


class TransformersTower(VisionEncoder):
    """The vision tower of transformers' BLIP-2 behind our seam, so that both models see the same pixels."""

    width, patches_per_tile, image_size = ENCODER, 17, 32

    def __init__(self, tower: nn.Module) -> None:
        super().__init__((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.tower = deepcopy(tower)
        self.tower.post_layernorm = nn.Identity()  # ours stands at the entrance of the Q-Former: patch_norm
        self.calls = 0

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        return self.tower(pixels).last_hidden_state


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def theirs():
    from transformers import Blip2Config, Blip2ForImageTextRetrieval

    torch.manual_seed(0)
    config = Blip2Config(
        vision_config={
            "hidden_size": ENCODER,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        qformer_config={
            "vocab_size": len(WORDS) + 1,
            "hidden_size": WIDTH,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": HEADS,
            "intermediate_size": INNER,
            "encoder_hidden_size": ENCODER,
            "cross_attention_frequency": 2,
            "use_qformer_text_input": True,
        },
        text_config={"model_type": "opt", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        num_query_tokens=QUERIES,
        image_text_hidden_size=SHARED,
        image_token_index=None,
    )
    model = Blip2ForImageTextRetrieval(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def ours(theirs, tokenizer_folder) -> QFormerPretraining:
    qformer = partial(QFormer, width=WIDTH, num_queries=QUERIES, depth=DEPTH, num_heads=HEADS, feed_forward_width=INNER)
    model = QFormerPretraining(TransformersTower(theirs.vision_model), qformer, tokenizer_folder, SHARED).eval()
    model.encoder.requires_grad_(False)
    copy_from_transformers(theirs, model)
    return model


@torch.no_grad()
def copy_from_transformers(theirs: nn.Module, ours: QFormerPretraining) -> None:
    """The weights of Blip2ForImageTextRetrieval under our names; every tensor of theirs must find its place."""
    given = {name: value for name, value in theirs.state_dict().items() if not name.startswith("vision_model.")}

    def pair(target: nn.Module, *sources: str) -> None:
        target.weight.copy_(torch.cat([given.pop(f"{source}.weight") for source in sources]))
        target.bias.copy_(torch.cat([given.pop(f"{source}.bias") for source in sources]))

    ours.qformer.queries.copy_(given.pop("query_tokens")[0])
    ours.text.words.weight.copy_(given.pop("embeddings.word_embeddings.weight"))
    ours.text.positions.weight.copy_(given.pop("embeddings.position_embeddings.weight"))
    norm = theirs.vision_model.post_layernorm
    ours.qformer.patch_norm.load_state_dict(norm.state_dict())
    ours.qformer.patch_norm.eps = norm.eps
    pair(ours.qformer.norm, "qformer.layernorm")
    for index, (layer, text_forward) in enumerate(zip(ours.qformer.layers, ours.text.feed_forwards, strict=True)):
        at = f"qformer.encoder.layer.{index}"
        for name, block in {"attention": layer.self_attention, "crossattention": layer.cross_attention}.items():
            if block is not None:
                pair(block.to_query, f"{at}.{name}.attention.query")
                pair(block.to_key_value, f"{at}.{name}.attention.key", f"{at}.{name}.attention.value")
                pair(block.to_out, f"{at}.{name}.output.dense")
                pair(block.norm, f"{at}.{name}.output.LayerNorm")
        for suffix, forward in (("", text_forward), ("_query", layer.feed_forward)):
            pair(forward.expand, f"{at}.intermediate{suffix}.dense")
            pair(forward.contract, f"{at}.output{suffix}.dense")
            pair(forward.norm, f"{at}.output{suffix}.LayerNorm")
    pair(ours.visual_projection, "vision_projection")
    pair(ours.text_projection, "text_projection")
    pair(ours.match_head, "itm_head")
    assert not given, sorted(given)


def visual_of(size: int = 3) -> VisualBatch:
    pixels = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return VisualBatch(pixels, [1] * size, [1] * size)


def written(model: QFormerPretraining, captions: tuple[str, ...] = ("a b c d", "e f", "g h i")) -> TextBatch:
    return model.layout().write([[Text(caption)] for caption in captions], model.placeholders_per_item)


def run_theirs(
    theirs: nn.Module, ours: QFormerPretraining, visual: VisualBatch, text: TextBatch, match: bool
) -> Tensor:
    pixels = (visual.pixels.float() - ours.encoder.pixel_mean) / ours.encoder.pixel_std
    with torch.no_grad():
        return theirs(
            pixel_values=pixels,
            input_ids=text.input_ids,
            attention_mask=text.attention_mask.long(),
            use_image_text_matching_head=match,
        ).logits_per_image


def test_contrastive_scores_equal_transformers(theirs, ours):
    visual, text = visual_of(), written(ours)
    with torch.no_grad():
        features = ours.encode(visual)
        scores = torch.einsum("bqe,ce->bqc", ours.embed_visual(features), ours.embed_text(text)).amax(1)
    assert (scores - run_theirs(theirs, ours, visual, text, match=False)).abs().max() < 1e-5


def test_matching_logits_equal_transformers(theirs, ours):
    visual, text = visual_of(), written(ours)
    wanted = run_theirs(theirs, ours, visual, text, match=True)
    with torch.no_grad():
        got = ours.match(ours.encode(visual), text, torch.arange(3))
    assert (got - (wanted[:, 1] - wanted[:, 0])).abs().max() < 1e-5
    is_match = torch.tensor([1, 0, 1])
    torch.testing.assert_close(
        F.binary_cross_entropy_with_logits(got, is_match.float()), F.cross_entropy(wanted, is_match)
    )


def test_matching_picks_the_image_of_each_row(ours):
    features, text = ours.encode(visual_of()), written(ours)
    image_of_row = torch.tensor([2, 2, 0])
    with torch.no_grad():
        crossed = ours.match(features, text, image_of_row)
        picked = ours.encode(VisualBatch(visual_of().pixels[image_of_row], [1] * 3, [1] * 3))
        assert (crossed - ours.match(picked, text, torch.arange(3))).abs().max() < 1e-6


def test_captioning_starts_with_its_own_token_and_predicts_every_next_one(ours):
    features, text = ours.encode(visual_of()), written(ours)
    states = ours.target_states(features, text)
    assert len(states.states) == text.supervised == len(states.targets)
    assert torch.equal(states.targets, text.targets[text.targets != IGNORED_TARGET])
    assert states.head(states.states).shape == (text.supervised, len(WORDS) + 1)
    other = TextBatch(text.input_ids.clone(), text.attention_mask, text.visual_mask, text.targets)
    other.input_ids[:, 0] = 7  # [CLS] or anything: [DEC] takes its place
    assert torch.equal(ours.target_states(features, other).states, states.states)
    assert text.input_ids[0, 0] == WORDS.index("[CLS]")  # the batch is left as it was


def test_caption_states_are_causal_and_see_the_image(ours):
    features, text = ours.encode(visual_of()), written(ours, ("a b c d",) * 3)
    changed = TextBatch(text.input_ids.clone(), text.attention_mask, text.visual_mask, text.targets)
    changed.input_ids[:, 3] = WORDS.index("z")
    before, after = (ours.target_states(features, x).states.unflatten(0, (3, -1)) for x in (text, changed))
    assert torch.equal(before[:, :3], after[:, :3]) and (before[:, 3:] != after[:, 3:]).any(-1).all()
    other_image = ours.target_states(
        ours.encode(visual_of().__class__(255 - visual_of().pixels, [1] * 3, [1] * 3)), text
    )
    assert (other_image.states.unflatten(0, (3, -1)) != before).any(-1).all()


def test_unsupervised_text_is_read_but_not_learned(ours):
    text = ours.layout().write([[Text("a b", supervised=False), Text("c d")]], ours.placeholders_per_item)
    states = ours.target_states(ours.encode(visual_of(1)), text)
    assert len(states.targets) == text.supervised == 3  # c, d, [SEP]
    other = TextBatch(text.input_ids.clone(), text.attention_mask, text.visual_mask, text.targets)
    other.input_ids[:, 1] = WORDS.index("z")
    assert not torch.equal(ours.target_states(ours.encode(visual_of(1)), other).states, states.states)


def all_three(model: QFormerPretraining, features, text: TextBatch) -> Tensor:
    images, texts = model.embed_visual(features), model.embed_text(text)
    match = model.match(features, text, torch.tensor([1, 2, 0]))
    states = model.target_states(features, text)
    captions = F.cross_entropy(states.head(states.states), states.targets)
    return (images @ texts.T).square().sum() + match.sum() + captions


def counting(monkeypatch, module: nn.Module, name: str) -> list[bool]:
    calls, original = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: calls.append(torch.is_grad_enabled()) or original(*given))
    return calls


def test_image_memory_and_query_pass_are_computed_once_for_all_three_views(ours, monkeypatch):
    remembered, read = counting(monkeypatch, ours.qformer, "remember"), counting(monkeypatch, ours.qformer, "read")
    all_three(ours, ours.encode(visual_of()), written(ours))
    assert remembered == read == [True] and ours.encoder.calls == 1


def test_features_of_a_survey_give_full_gradient_afterwards_and_can_be_used_again(ours, monkeypatch):
    text = written(ours)
    all_three(ours, ours.encode(visual_of()), text).backward()
    wanted = {name: p.grad.clone() for name, p in ours.named_parameters() if p.grad is not None}
    remembered = counting(monkeypatch, ours.qformer, "remember")
    with torch.no_grad():
        features = ours.encode(visual_of())
        ours.embed_visual(features)
    for _ in range(2):  # the second use must not meet the graph that the first backward freed
        ours.zero_grad()
        all_three(ours, features, text).backward()
        got = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
        assert got.keys() == wanted.keys()
        assert all((got[name] - wanted[name]).abs().max() < 1e-5 for name in wanted)
    assert remembered == [False, True, True]


def test_every_trainable_parameter_learns_except_what_no_view_reads(ours):
    all_three(ours, ours.encode(visual_of()), written(ours)).backward()
    silent = {name for name, p in ours.named_parameters() if p.requires_grad and p.grad is None}
    assert silent == {"log_temperature"}


def test_a_frozen_encoder_builds_no_graph_and_a_learning_one_does(ours):
    assert not ours.encode(visual_of()).patches.requires_grad
    ours.encoder.requires_grad_(True)
    assert ours.encode(visual_of()).patches.requires_grad
    ours.encoder.requires_grad_(False)


@pytest.mark.parametrize("low_format", [torch.bfloat16, torch.float16])
def test_autocast_over_frozen_patches_of_its_format_stays_close_and_finite(ours, low_format):
    text = written(ours)
    wanted = all_three(ours, ours.encode(visual_of()), text)
    features = ours.encode(visual_of())
    low = type(features)(features.patches.to(low_format), features.tiles_per_item, features.items_per_sample)
    with torch.autocast("cpu", low_format):
        got = all_three(ours, low, text)
    got.backward()
    assert abs(got - wanted) < 0.05 * abs(wanted)
    assert all(p.grad is None or p.grad.isfinite().all() for p in ours.parameters())


def test_features_that_no_backward_used_are_freed_without_the_garbage_collector(ours):
    gc.disable()
    try:
        features = ours.encode(visual_of())
        states = weakref.ref(ours.read(features).states)
        assert states() is not None
        del features
        assert states() is None
    finally:
        gc.enable()


def test_no_tokenizer_is_asked_in_a_forward_pass(ours):
    """LAVIS tokenizes its targets in every forward pass, on the main process."""
    text = written(ours)
    wanted = all_three(ours, ours.encode(visual_of()), text)
    ours.tokenizer = None
    assert torch.equal(all_three(ours, ours.encode(visual_of()), text), wanted)


def test_no_weights_are_read_unless_they_are_named(ours, tokenizer_folder, monkeypatch):
    """LAVIS' pre-training silently loads the released checkpoint (issues 149 and 257)."""

    def refuse(*_, **__):
        raise AssertionError("weights are read")

    for reader in ("safetensors.torch.load_file", "torch.load", "vlmtrain.nn.bert_weights.load_file"):
        monkeypatch.setattr(reader, refuse)
    qformer = partial(QFormer, width=WIDTH, num_queries=QUERIES, depth=DEPTH, num_heads=HEADS)
    two = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        two.append(QFormerPretraining(ours.encoder, qformer, tokenizer_folder, SHARED))
    assert not torch.equal(two[0].qformer.queries, two[1].qformer.queries)
    assert not torch.equal(two[0].text.words.weight, two[1].text.words.weight)


def test_a_wrong_vocabulary_size_is_refused_with_both_numbers(ours, tokenizer_folder):
    with pytest.raises(ValueError, match=r"vocab_size is 99, but tokenizer .* has 32 words"):
        QFormerPretraining(ours.encoder, lambda memory_width: ours.qformer, tokenizer_folder, vocab_size=99)


def test_a_batch_of_one_keeps_every_shape(ours):
    features, text = ours.encode(visual_of(1)), written(ours, ("a",))
    assert ours.embed_visual(features).shape == (1, QUERIES, SHARED) and ours.embed_text(text).shape == (1, SHARED)
    assert ours.match(features, text, torch.zeros(1, dtype=torch.long)).shape == (1,)


def test_features_survive_a_move_to_another_device_without_stale_memory(ours):
    features = ours.encode(visual_of())
    ours.embed_visual(features)
    moved = features.to("cpu")
    assert moved is not features and type(moved) is type(features)
    torch.testing.assert_close(ours.embed_visual(moved), ours.embed_visual(features))


def test_temperature_is_learned_and_bounded(ours):
    assert abs(ours.similarity_scale().item() - 1 / 0.07) < 1e-3
    for log_temperature, scale in ((-20.0, 1000.0), (3.0, 2.0)):
        ours.log_temperature.data.fill_(log_temperature)
        assert abs(ours.similarity_scale().item() - scale) < 1e-2 * scale
        (gradient,) = torch.autograd.grad(ours.similarity_scale(), ours.log_temperature)
        assert gradient != 0, "a temperature at its bound must be able to come back"
    with pytest.raises(ValueError, match=r"temperature 7.* 0.07 is usual"):
        QFormerPretraining(ours.encoder, lambda memory_width: ours.qformer, "nowhere", temperature=7.0)


def test_one_image_of_one_tile_per_sample_is_asked_for(ours):
    pixels = visual_of().pixels
    with pytest.raises(ValueError, match=r"one image of one tile per sample.*\[2, 0, 1\]"):
        ours.encode(VisualBatch(pixels, [1, 1, 1], [2, 0, 1]))
    with pytest.raises(ValueError, match=r"one image of one tile"):
        ours.encode(VisualBatch(pixels, [3], [1]))


def test_offers_its_capabilities_layout_and_components(ours):
    for capability in (EmbedsBoth, MatchesPairs, WritesText):
        assert isinstance(ours, capability)
    layout = ours.layout()
    assert isinstance(layout, PairLayout) and ours.placeholders_per_item(1) == 0
    assert written(ours, ("a " * 99,)).input_ids.shape == (1, 32)
    assert [name for name, _ in ours.named_children()] == [
        *("encoder", "qformer", "text", "visual_projection", "text_projection", "match_head", "text_head")
    ]
    assert ours.decoder_start == len(WORDS) and DECODER_START in ours.tokenizer.get_vocab()
    assert ours.text.words.num_embeddings == len(WORDS) + 1


def test_t21_no_language_model_is_imported_or_built(tokenizer_folder):
    code = f"""
import sys
from copy import deepcopy
from functools import partial
from torch import nn
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.models.qformer_pretraining import QFormerPretraining
from vlmtrain.nn.qformer import QFormer

class Tower(VisionEncoder):
    width = 8
    def encode_tiles(self, pixels): ...

qformer = partial(QFormer, width=8, num_queries=2, depth=2, num_heads=2)
model = QFormerPretraining(Tower((0.5,) * 3, (0.5,) * 3), qformer, {tokenizer_folder!r})
model.layout()
assert not any("language" in name for name, _ in model.named_modules())
models = [name for name in sys.modules if name.startswith("vlmtrain.language_models.") and not name.endswith(".base")]
models += [name for name in sys.modules if name.startswith("transformers.models.") and "modeling_" in name]
models.remove("transformers.models.auto.modeling_auto")  # the table of names, which the tokenizer brings along
assert not models, models
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_t27_published_size_on_the_meta_device():
    """Li et al. 2023 give 188M for the Q-Former; BERT-base, 32 queries, ViT-g, both text and query feed-forwards."""
    with torch.device("meta"):
        qformer = QFormer(768, 1408, 32, 12, 12)
        text, head = text_for(qformer, 30_523), TextHead(768, 30_523, 1e-12)
        heads = [nn.Linear(768, 256), nn.Linear(768, 256), nn.Linear(768, 2)]
    counts = {
        "query side": sum(p.numel() for p in qformer.parameters()),
        "text side": sum(p.numel() for p in text.parameters()),
        "heads": sum(p.numel() for part in (head, *heads) for p in part.parameters()),
    }
    total = sum(counts.values())
    assert abs(total / 188e6 - 1) < 0.01, (counts, total)
    assert counts == {"query side": 105_165_056, "text side": 80_522_496, "heads": 1_017_917}, counts
