"""Gated cross-attention in a frozen language model: T42-T47, T49."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fusion_toy import (
    BLOCKS,
    DEPTH,
    KINDS,
    items,
    items_of,
    logits_of,
    make_gated,
    make_language_model,
    open_gates,
    plain_logits,
    rows,
)
from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualBatch, VisualTokens
from vlmtrain.config.build import build
from vlmtrain.config.compose import compose
from vlmtrain.fusions.gated_cross_attention import GatedCrossAttention
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.layout import Part, Text, Visual
from vlmtrain.models.vision_language_model import VisionLanguageModel
from vlmtrain.training.files import whole_files
from vlmtrain.training.hand_over import load_part
from vlmtrain.training.optimizer import AdamWChoices, build_optimizer
from vlmtrain.training.precision import set_weight_precision
from vlmtrain.training.publish import publish
from vlmtrain.training.state import Progress, TrainingState
from vlmtrain.training.trainability import set_trainability

MIXED = ("titt", "ttt", "iititt")  # one item, none, two adjacent and a third
PATTERNS = {"mixed": MIXED, "none": ("ttt", "tt"), "one": ("itt",), "many": ("it" * 33, "t" * 5)}


# T42: the frozen language model, bit by bit ---------------------------------------------------------------------------


def logits_in_own_precision(language_model: CausalLanguageModel, text: TextBatch, embeddings: Tensor) -> Tensor:
    """Of every position; transformers' Mamba, too, casts its states before the head."""
    assert text.targets is not None
    found = language_model.target_states(embeddings, text.attention_mask, text.targets)
    return found.head(found.states.to(language_model.embed(text.input_ids).dtype))


@pytest.mark.parametrize("patterns", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16 within autocast", "fp32 within autocast"])
@pytest.mark.parametrize("kind", KINDS)
def test_t42_starts_as_the_frozen_language_model(kind: str, precision: str, patterns: tuple[str, ...]) -> None:
    language_model = make_language_model(kind)
    if precision.startswith("bf16"):
        language_model.to(torch.bfloat16)
    fusion, text, visual = make_gated(language_model), rows(*patterns), items_of(*patterns)
    made = []
    with torch.autocast("cpu", torch.bfloat16, enabled="autocast" in precision), torch.no_grad():
        wanted = logits_in_own_precision(language_model, text, language_model.embed(text.input_ids))
        for gates in (0.0, 0.5):
            open_gates(fusion, gates)
            with fusion.entering(language_model, text, visual) as embeddings:
                made.append(logits_in_own_precision(language_model, text, embeddings))
        again = logits_in_own_precision(language_model, text, language_model.embed(text.input_ids))
    assert wanted.isfinite().all() and torch.equal(made[0], wanted)
    assert made[1].dtype == wanted.dtype and made[1].isfinite().all() and not torch.equal(made[1], wanted)
    assert torch.equal(again, wanted), "outside of `entering` nothing is changed"


@pytest.mark.parametrize("block", BLOCKS)
def test_t42_holds_for_every_block(block: str) -> None:
    language_model, text = make_language_model("llama"), rows(*MIXED)
    fusion = make_gated(language_model, block=block)
    with torch.no_grad():
        assert torch.equal(
            logits_of(language_model, fusion, text, items_of(*MIXED)), plain_logits(language_model, text)
        )


def test_t42_the_language_model_keeps_its_modules_and_names() -> None:
    language_model, untouched = make_language_model("opt"), make_language_model("opt")
    make_gated(language_model)
    assert [(name, type(module)) for name, module in language_model.named_modules()] == [
        (name, type(module)) for name, module in untouched.named_modules()
    ]
    untouched.load_state_dict(language_model.state_dict())


# T43: the gates -------------------------------------------------------------------------------------------------------


def loss_of(language_model: CausalLanguageModel, fusion: GatedCrossAttention, visual: VisualTokens) -> Tensor:
    text = rows(*MIXED)
    assert text.targets is not None
    return F.cross_entropy(logits_of(language_model, fusion, text, visual).flatten(0, 1), text.targets.flatten())


@pytest.mark.parametrize("block", BLOCKS)
def test_t43_at_first_only_gates_and_the_placeholder_learn(block: str) -> None:
    language_model, visual = make_language_model("opt"), items_of(*MIXED)
    fusion = make_gated(language_model, block=block)
    gates = {name for name, _ in fusion.named_parameters() if name.endswith("gate")}
    assert gates == {f"blocks.{layer}.{part}_gate" for layer in (1, 3) for part in ("attention", "feed_forward")}
    assert all(parameter.shape == (1,) for name, parameter in fusion.named_parameters() if name in gates)
    visual.embeddings.requires_grad_()
    optimizer = torch.optim.SGD(fusion.parameters(), lr=0.5)
    loss_of(language_model, fusion, visual).backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, name
        learns = name in gates or name == "placeholder_offset"
        assert bool((parameter.grad != 0).any()) == learns, name
    assert visual.embeddings.grad is not None and (visual.embeddings.grad == 0).all()
    optimizer.step()
    optimizer.zero_grad()
    loss_of(language_model, fusion, visual).backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name
    assert (visual.embeddings.grad != 0).any()


def test_t43_the_trap_of_a_zero_projection_is_a_trap() -> None:
    """With zeros behind a closed gate nothing has a gradient, and the block never trains."""
    language_model = make_language_model("opt")
    fusion = make_gated(language_model)
    for block in fusion.blocks.values():
        nn.init.zeros_(block.attention.to_out.weight)
    loss_of(language_model, fusion, items_of(*MIXED)).backward()
    for block in fusion.blocks.values():
        assert block.attention_gate.grad.item() == 0.0 and block.feed_forward_gate.grad.item() != 0.0
        assert (block.attention.to_out.weight.grad == 0).all()


# T44: where the blocks stand, and what trains -------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "layers"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2]), (4, [3])])
def test_t44_blocks_stand_between_layers_and_are_named_after_them(every: int, layers: list[int]) -> None:
    language_model = make_language_model("opt")
    fusion = make_gated(language_model, every)
    assert list(fusion.blocks) == [str(layer) for layer in layers]
    ran: list[str] = []
    named = [*fusion.blocks.items(), *((f"layer {n}", layer) for n, layer in enumerate(language_model.input_layers))]
    for name, module in named:
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    logits_of(language_model, fusion, rows("it"), items(1))
    assert ran == [name for n in range(DEPTH) for name in ([str(n), f"layer {n}"] if n in layers else [f"layer {n}"])]


def test_t44_too_few_layers_and_odd_intervals_are_named() -> None:
    language_model = make_language_model("opt")
    with pytest.raises(ValueError, match=r"every_n_layers 5 .* 4 layers; set model.fusion.every_n_layers to 4"):
        make_gated(language_model, 5)
    with pytest.raises(ValueError, match="every_n_layers 0"):
        make_gated(language_model, 0)


def test_layers_of_another_width_than_the_embeddings_are_named() -> None:
    architecture = {**KINDS["opt"], "word_embed_proj_dim": 16}
    language_model = CausalLanguageModel(architecture=architecture).eval()
    fusion = make_gated(language_model)
    with pytest.raises(ValueError, match=r"layers are 32 wide and its embeddings 16"):
        logits_of(language_model, fusion, rows("it"), items(1, width=16))


def test_t44_a_step_changes_the_new_blocks_and_nothing_else() -> None:
    language_model = make_language_model("opt")
    fusion = make_gated(language_model)
    before = {name: value.clone() for name, value in language_model.state_dict().items()}
    own = {name: value.clone() for name, value in fusion.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in [*fusion.parameters(), *language_model.parameters()] if p.requires_grad])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(own)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(language_model, fusion, items_of(*MIXED)).backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in language_model.state_dict().items())
    assert not [name for name, value in fusion.state_dict().items() if torch.equal(value, own[name])]


# T45-T47, T49: who reads what -----------------------------------------------------------------------------------------


def without_self_attention(kind: str = "opt") -> CausalLanguageModel:
    language_model = make_language_model(kind)
    for layer in language_model.input_layers:
        nn.init.zeros_(layer.self_attn.out_proj.weight)
    return language_model


def change_item(visual: VisualTokens, number: int) -> VisualTokens:
    """Other tokens for item `number`."""
    moved = list(visual.embeddings.split(visual.tokens_per_item))
    moved[number] = moved[number] + 1.0
    return VisualTokens(torch.cat(moved), visual.tokens_per_item, visual.items_per_sample)


@pytest.mark.parametrize("block", BLOCKS)
def test_t45_a_position_reads_the_item_before_it_and_no_other(block: str) -> None:
    language_model = without_self_attention()
    fusion = make_gated(language_model, block=block, gates=1.0)
    patterns = ("ttittiitt", "ittt", "tt")
    text, visual = rows(*patterns), items_of(*patterns)
    readers = [(0, range(2, 5)), (0, range(5, 6)), (0, range(6, 9)), (1, range(9))]  # the last with its padding
    with torch.no_grad():
        base = logits_of(language_model, fusion, text, visual)
        for number, (row, positions) in enumerate(readers):
            changed = logits_of(language_model, fusion, text, change_item(visual, number))
            moved = (changed != base).any(-1)
            wanted = torch.zeros_like(moved)
            wanted[row, list(positions)] = True
            assert torch.equal(moved, wanted), f"item {number}"


@pytest.mark.parametrize("kind", KINDS)
def test_t46_text_before_the_first_item_reads_nothing(kind: str) -> None:
    """With the feed-forward gates at 0, whatever the attention gates."""
    language_model = make_language_model(kind)
    fusion, text = make_gated(language_model), rows("tttitt", "tttttt")
    with torch.no_grad():
        for block in fusion.blocks.values():
            block.attention_gate.fill_(2.0)
        made = logits_of(language_model, fusion, text, items(1, 0))
        wanted = plain_logits(language_model, text)
    assert torch.equal(made[0, :3], wanted[0, :3]) and torch.equal(made[1], wanted[1])
    assert made.isfinite().all() and (made[0, 3:] != wanted[0, 3:]).any(-1).all()


def test_t46_the_block_of_mllama_leaves_such_text_alone_with_both_gates_open() -> None:
    language_model = make_language_model("llama")
    fusion, text = make_gated(language_model, block="mllama", gates=1.0), rows("tttitt")
    with torch.no_grad():
        made, wanted = logits_of(language_model, fusion, text, items(1)), plain_logits(language_model, text)
    assert torch.equal(made[0, :3], wanted[0, :3])


@pytest.mark.parametrize("kind", KINDS)
def test_t47_earlier_items_are_remembered_by_the_language_model(kind: str) -> None:
    language_model = make_language_model(kind)
    fusion, text, visual = make_gated(language_model, gates=1.0), rows("tittitt"), items(2)
    with torch.no_grad():
        base = logits_of(language_model, fusion, text, visual)
        changed = logits_of(language_model, fusion, text, change_item(visual, 0))
    assert torch.equal(changed[0, :1], base[0, :1])
    assert ((changed - base)[0, 4:].abs().amax(-1) > 1e-5).all(), "also behind the second item"


@pytest.mark.parametrize("kind", KINDS)
def test_t49_what_comes_later_changes_nothing_before(kind: str) -> None:
    language_model = make_language_model(kind)
    fusion, text, visual = make_gated(language_model, gates=1.0), rows("titittit"), items(3)
    with torch.no_grad():
        base = logits_of(language_model, fusion, text, visual)
        for number, place in enumerate((1, 3, 6)):
            changed = logits_of(language_model, fusion, text, change_item(visual, number))
            torch.testing.assert_close(changed[0, :place], base[0, :place], atol=1e-6, rtol=0)
            assert (changed[0, place:] - base[0, place:]).abs().max() > 1e-5
        text.input_ids[0, 4] = 77
        changed = logits_of(language_model, fusion, text, visual)
        torch.testing.assert_close(changed[0, :4], base[0, :4], atol=1e-6, rtol=0)
        assert (changed[0, 4] - base[0, 4]).abs().max() > 1e-5


def test_t42_t48_any_number_of_items_in_one_batch_is_each_row_alone() -> None:
    patterns = ("it" * 33, "tttt", "itt", "ttiittit")
    language_model = make_language_model("opt")
    fusion, text, visual = make_gated(language_model, gates=0.5), rows(*patterns), items_of(*patterns)
    with torch.no_grad():
        together = logits_of(language_model, fusion, text, visual)
        assert together.isfinite().all()
        first = 0
        for row, pattern in enumerate(patterns):
            alone, count = rows(pattern), pattern.count("i")
            alone.input_ids.copy_(text.input_ids[row : row + 1, : len(pattern)])
            own = visual.embeddings[3 * first : 3 * (first + count)]
            made = logits_of(language_model, fusion, alone, VisualTokens(own, [3] * count, [count]))
            torch.testing.assert_close(made[0], together[row, : len(pattern)], atol=1e-5, rtol=0)
            first += count


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS)
def test_a_batch_without_items_runs_every_block_and_gives_every_weight_a_gradient(block: str) -> None:
    language_model = make_language_model("opt")
    fusion = make_gated(language_model, block=block, gates=0.5)
    visual = items(0, 0)
    visual.embeddings.requires_grad_()
    logits_of(language_model, fusion, rows("tt", "ttt"), visual).sum().backward()
    assert not [name for name, parameter in fusion.named_parameters() if parameter.grad is None]
    assert visual.embeddings.grad is not None
    of_reading = [p for name, p in fusion.named_parameters() if ".attention." in name or "placeholder" in name]
    assert of_reading and all((parameter.grad == 0).all() for parameter in of_reading)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_gradient(kind: str) -> None:
    gradients, runs = [], []
    for is_on in (False, True):
        language_model = make_language_model(kind)
        fusion, visual = make_gated(language_model, gates=0.5), items_of(*MIXED)
        visual.embeddings.requires_grad_()
        if is_on:
            language_model.enable_gradient_checkpointing()
            fusion.enable_gradient_checkpointing()
        ran: list[int] = []
        for block in fusion.blocks.values():
            block.attention.register_forward_hook(lambda *_, ran=ran: ran.append(1))
        first = loss_of(language_model, fusion, visual)  # two passes alive before one backward
        (first + 2 * loss_of(language_model, fusion, visual)).backward()
        runs.append(len(ran))
        gradients.append([visual.embeddings.grad, *(parameter.grad for parameter in fusion.parameters())])
    assert runs == [4, 8], "each block is computed again exactly once"
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("error:Mismatch dtype")
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("low_format", [torch.bfloat16, torch.float16])
def test_blocks_stay_in_full_precision_in_a_language_model_of_low_precision(
    low_format: torch.dtype, autocast: bool, block: str
) -> None:
    exact_model = make_language_model("llama")
    exact = loss_of(exact_model, make_gated(exact_model, block=block, gates=0.5), items_of(*MIXED))
    language_model = make_language_model("llama").to(low_format)
    fusion = make_gated(language_model, block=block, gates=0.5)
    seen: list[tuple[torch.dtype, bool]] = []
    for each in fusion.blocks.values():
        each.attention.to_query.register_forward_hook(
            lambda _, __, out: seen.append((out.dtype, torch.is_autocast_enabled("cpu")))
        )
    with torch.autocast("cpu", low_format, enabled=autocast):
        low = loss_of(language_model, fusion, items_of(*MIXED))
    low.backward()
    assert set(seen) == {(low_format if autocast else torch.float32, autocast)}
    assert {parameter.grad.dtype for parameter in fusion.parameters()} == {torch.float32}
    torch.testing.assert_close(low.float(), exact, atol=0.1, rtol=0.05)


def test_a_frozen_fusion_in_low_precision_reads_in_full_precision_models() -> None:
    language_model = make_language_model("llama")
    fusion = make_gated(language_model, gates=0.5)
    with torch.no_grad():
        exact = loss_of(language_model, fusion, items_of(*MIXED))
        low = loss_of(language_model, fusion.to(torch.bfloat16), items_of(*MIXED))
    torch.testing.assert_close(low, exact, atol=0.1, rtol=0.05)


def test_a_copied_model_reads_with_its_own_blocks() -> None:
    language_model, text, visual = make_language_model("opt"), rows(*MIXED), items_of(*MIXED)
    fusion = make_gated(language_model, gates=0.5)
    with torch.no_grad():
        wanted = logits_of(language_model, fusion, text, visual)
        copied_model, copied = deepcopy((language_model, fusion))
        open_gates(fusion, 0.0)
        torch.testing.assert_close(logits_of(copied_model, copied, text, visual), wanted)


def test_an_error_inside_leaves_the_language_model_free() -> None:
    language_model, text = make_language_model("opt"), rows("it")
    fusion = make_gated(language_model, gates=0.5)
    wanted = plain_logits(language_model, text)
    with pytest.raises(RuntimeError, match="midway"), fusion.entering(language_model, text, items(1)):
        raise RuntimeError("midway")
    torch.testing.assert_close(plain_logits(language_model, text), wanted)


# Through the main path ------------------------------------------------------------------------------------------------


def built_by_config(seed: int) -> VisionLanguageModel:
    """On the embedded pretrained OPT, ready to train."""
    torch.manual_seed(seed)
    typed = ["model/connector=linear_cross_attention", "model.fusion.every_n_layers=2"]
    model = build(compose(typed).config["model"])
    assert isinstance(model, VisionLanguageModel)
    set_trainability(model, {"encoder": None, "connector": 1.0, "fusion": 1.0, "language_model": None})
    set_weight_precision(model, "bf16")
    return model.eval()


@pytest.mark.parametrize("gates", [0.0, 0.5])
def test_t42_built_saved_and_loaded_by_the_main_path(gates: float, tmp_path: Path) -> None:
    """Trained parts only are saved; the language model comes from where it came from."""
    first, second = built_by_config(1), built_by_config(2)
    assert isinstance(first.fusion, GatedCrossAttention)
    open_gates(first.fusion, gates)
    rates = {name: 1.0 for name, parameter in first.named_parameters() if parameter.requires_grad}
    state = TrainingState(first, build_optimizer(first, rates, AdamWChoices()))
    publish(tmp_path / "checkpoint", whole_files(state, Progress()), {})
    assert {path.stem for path in tmp_path.rglob("*.safetensors")} == {"connector", "fusion", "optimizer"}
    for part in ("connector", "fusion"):
        report = load_part(tmp_path / "checkpoint", part, second.get_submodule(part))
        assert report.matched and not report.missing and not report.unexpected
    samples: list[list[Part]] = [
        [Text("a picture of", False), Visual(), Text(" a big red star", False), Visual(2), Text(" a ring")],
        [Text("a small blue ring")],
    ]
    text = first.layout().write(samples, first.placeholders_per_item)
    side = first.encoder.image_size
    pixels = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    visual = VisualBatch(pixels, [1, 2], [2, 0])

    def logits(model: VisionLanguageModel) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return logits_of(model.language_model, model.fusion, text, model.connector(model.encode(visual)))

    with torch.no_grad():
        plain = plain_logits(second.language_model, text)
    assert plain.dtype == torch.bfloat16 and torch.equal(logits(first), logits(second))
    assert torch.equal(logits(second), plain) == (gates == 0.0)
