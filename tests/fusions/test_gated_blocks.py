"""Gated blocks against transformers' Idefics and Mllama, and against OpenFlamingo's conventions."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fusion_toy import KINDS, items_of, make_gated, make_language_model, open_gates, rows
from torch import Tensor, nn

from vlmtrain.config.build import build
from vlmtrain.config.compose import compose
from vlmtrain.fusions.flamingo_block import FlamingoBlock
from vlmtrain.fusions.gated_block import GatedBlock
from vlmtrain.fusions.idefics_block import IdeficsBlock
from vlmtrain.fusions.mllama_block import MllamaBlock
from vlmtrain.fusions.visual_memory import visual_memory
from vlmtrain.nn.cross_attention import CrossAttention
from vlmtrain.training.trainability import set_trainability

WIDTH, HEADS, INNER = 32, 4, 88
PATTERNS = ("itt", "tti", "ttt", "iit")


def randomize(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """x [4, 3, D], memory [4, 6, D], visible; some rows see nothing."""
    visual = items_of(*PATTERNS)
    memory = visual_memory(rows(*PATTERNS), visual)
    x = torch.randn(4, 3, WIDTH, generator=torch.Generator().manual_seed(5))
    return x, memory.tokens, memory.visible


def copy_attention(ours: CrossAttention, theirs: nn.Module, norm: nn.Module, query_norm: str, key_norm: str) -> None:
    ours.norm.load_state_dict(norm.state_dict())
    ours.to_query.load_state_dict(theirs.q_proj.state_dict())
    ours.to_key_value.weight.data = torch.cat([theirs.k_proj.weight, theirs.v_proj.weight]).detach().clone()
    ours.to_out.load_state_dict(theirs.o_proj.state_dict())
    ours.query_norm.load_state_dict(getattr(theirs, query_norm).state_dict())
    ours.key_norm.load_state_dict(getattr(theirs, key_norm).state_dict())


def copy_feed_forward(ours: nn.Module, theirs: nn.Module, norm: nn.Module) -> None:
    ours[0].load_state_dict(norm.state_dict())
    pairs = (("to_switch", "gate_proj"), ("expand", "up_proj"), ("contract", "down_proj"))
    for own, name in pairs:
        getattr(ours[1], own).load_state_dict(getattr(theirs, name).state_dict())


def pairs_of_gradients(block: GatedBlock, attention: nn.Module, mlp: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """(ours, theirs) of every weight that both classes name differently."""
    own, inner = block.attention, block.feed_forward[1]
    return [
        (own.to_query.weight.grad, attention.q_proj.weight.grad),
        (own.to_key_value.weight.grad, torch.cat([attention.k_proj.weight.grad, attention.v_proj.weight.grad])),
        (own.to_out.weight.grad, attention.o_proj.weight.grad),
        (inner.to_switch.weight.grad, mlp.gate_proj.weight.grad),
        (inner.expand.weight.grad, mlp.up_proj.weight.grad),
        (inner.contract.weight.grad, mlp.down_proj.weight.grad),
    ]


def hold(pairs: list[tuple[Tensor, Tensor]]) -> None:
    for ours, theirs in pairs:
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_parity_with_transformers_idefics(implementation: str) -> None:
    from transformers import IdeficsConfig
    from transformers.models.idefics.modeling_idefics import IdeficsGatedCrossAttentionLayer

    config = IdeficsConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        qk_layer_norms=True,
        alpha_type="float",
        vision_config={"embed_dim": WIDTH},
        attn_implementation=implementation,
    )
    theirs = IdeficsGatedCrossAttentionLayer(config, layer_idx=0).eval()
    randomize(theirs)
    ours = IdeficsBlock(WIDTH, HEADS, WIDTH // HEADS, INNER / WIDTH, norm_eps=config.rms_norm_eps)
    copy_attention(ours.attention, theirs.cross_attn, theirs.input_layernorm, "q_layer_norm", "k_layer_norm")
    copy_feed_forward(ours.feed_forward, theirs.mlp, theirs.post_attention_layernorm)
    ours.attention_gate.data, ours.feed_forward_gate.data = theirs.alpha_cross_attn.data, theirs.alpha_dense.data

    x, memory, visible = inputs()
    leaves = [[x.clone().requires_grad_(), memory.clone().requires_grad_()] for _ in range(2)]
    made, _ = ours(*leaves[0], visible)
    sees = visible.any(-1)
    wanted = theirs(
        leaves[1][0],
        image_hidden_states=leaves[1][1],
        image_attention_mask=additive(visible),
        cross_attention_gate=sees.float(),
    )
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=0)
    made.square().mean().backward()
    wanted.square().mean().backward()
    hold(
        [
            *((own.grad, other.grad) for own, other in zip(*leaves, strict=True)),
            *pairs_of_gradients(ours, theirs.cross_attn, theirs.mlp),
            (ours.attention_gate.grad, theirs.alpha_cross_attn.grad),
            (ours.feed_forward_gate.grad, theirs.alpha_dense.grad),
            (ours.attention.norm.weight.grad, theirs.input_layernorm.weight.grad),
            (ours.attention.key_norm.weight.grad, theirs.cross_attn.k_layer_norm.weight.grad),
        ]
    )


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_parity_with_transformers_mllama(implementation: str) -> None:
    """Where something is visible.  Elsewhere transformers lets a position read the mean of every token of its row;
    Meta's code, and ours, let it pass unchanged."""
    from transformers.models.mllama.configuration_mllama import MllamaTextConfig
    from transformers.models.mllama.modeling_mllama import MllamaCrossAttentionDecoderLayer

    config = MllamaTextConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        intermediate_size=INNER,
        attn_implementation=implementation,
    )
    theirs = MllamaCrossAttentionDecoderLayer(config, layer_idx=0).eval()
    randomize(theirs)
    ours = MllamaBlock(WIDTH, HEADS, WIDTH // HEADS, 2, INNER / WIDTH, norm_eps=config.rms_norm_eps)
    copy_attention(ours.attention, theirs.cross_attn, theirs.input_layernorm, "q_norm", "k_norm")
    copy_feed_forward(ours.feed_forward, theirs.mlp, theirs.post_attention_layernorm)
    ours.attention_gate.data = theirs.cross_attn_attn_gate.data
    ours.feed_forward_gate.data = theirs.cross_attn_mlp_gate.data

    x, memory, visible = inputs()
    sees = visible.any(-1)
    leaves = [[x.clone().requires_grad_(), memory.clone().requires_grad_()] for _ in range(2)]
    made, _ = ours(*leaves[0], visible)
    wanted = theirs(
        leaves[1][0],
        cross_attention_states=leaves[1][1],
        cross_attention_mask=additive(visible),
        attention_mask=None,
        full_text_row_masked_out_mask=(sees[:, None, :, None].float()),
    )
    torch.testing.assert_close(made[sees], wanted[sees], atol=1e-5, rtol=0)
    assert not sees.all() and torch.equal(made[~sees], x[~sees])
    made[sees].square().mean().backward()
    wanted[sees].square().mean().backward()
    hold(
        [
            *((own.grad, other.grad) for own, other in zip(*leaves, strict=True)),
            *pairs_of_gradients(ours, theirs.cross_attn, theirs.mlp),
            (ours.attention_gate.grad, theirs.cross_attn_attn_gate.grad),
            (ours.feed_forward_gate.grad, theirs.cross_attn_mlp_gate.grad),
            (ours.attention.norm.weight.grad, theirs.input_layernorm.weight.grad),
            (ours.attention.query_norm.weight.grad, theirs.cross_attn.q_norm.weight.grad),
        ]
    )


def additive(visible: Tensor) -> Tensor:
    """As transformers wants it: [B, 1, T, M], 0 or a very large negative value; all 0 where nothing is visible."""
    sees = visible.any(-1, keepdim=True)
    return torch.zeros(visible.shape).masked_fill(~visible & sees, torch.finfo(torch.float32).min).unsqueeze(1)


# OpenFlamingo's conventions, written out ------------------------------------------------------------------------------


def as_openflamingo(block: FlamingoBlock, x: Tensor, memory: list[Tensor | None]) -> Tensor:
    """One row, position by position and head by head; `memory[t]` is the item that position t reads."""
    rows_out = []
    heads, width = block.attention.num_heads, block.attention.to_query.out_features // block.attention.num_heads
    norm, first_norm = block.attention.norm, block.feed_forward[0]
    up, down = block.feed_forward[1].weight, block.feed_forward[3].weight
    for position, item in zip(x, memory, strict=True):
        read = torch.zeros(heads * width)
        if item is not None:
            normed = (position - position.mean()) / (position.var(unbiased=False) + 1e-5).sqrt()
            query = block.attention.to_query.weight @ (normed * norm.weight + norm.bias)
            both = item @ block.attention.to_key_value.weight.T
            keys, values = both[:, : heads * width], both[:, heads * width :]
            for head in range(heads):
                mine = slice(head * width, (head + 1) * width)
                shares = (keys[:, mine] @ query[mine] / math.sqrt(width)).softmax(0)
                read[mine] = shares @ values[:, mine]
        position = position + torch.tanh(block.attention_gate) * (block.attention.to_out.weight @ read)
        normed = (position - position.mean()) / (position.var(unbiased=False) + 1e-5).sqrt()
        inner = up @ (normed * first_norm.weight + first_norm.bias)
        thought = down @ (inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))))
        rows_out.append(position + torch.tanh(block.feed_forward_gate) * thought)
    return torch.stack(rows_out)


def test_openflamingo_the_block_written_out() -> None:
    """Pre-norm, no biases, heads narrower than the text, GELU; text reads its own item, the placeholder included."""
    block = FlamingoBlock(WIDTH, num_heads=2, head_width=8)
    randomize(block)
    pattern = "tittiit"
    visual = items_of(pattern)
    first, second, third = visual.embeddings.split(visual.tokens_per_item)
    memory = visual_memory(rows(pattern), visual)
    x = torch.randn(1, 7, WIDTH, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        made, _ = block(x, memory.tokens, memory.visible)
        wanted = as_openflamingo(block, x[0], [None, first, first, first, second, third, third])
    torch.testing.assert_close(made[0], wanted, atol=1e-5, rtol=0)


def test_openflamingo_names_and_shapes_of_a_block() -> None:
    """8 heads of 64, whatever the width; a feed-forward factor of 4; LayerNorms alone have biases; two gates at 0."""
    shapes = {name: tuple(parameter.shape) for name, parameter in FlamingoBlock(WIDTH).named_parameters()}
    assert shapes == {
        "attention_gate": (1,),
        "feed_forward_gate": (1,),
        "attention.norm.weight": (WIDTH,),
        "attention.norm.bias": (WIDTH,),
        "attention.to_query.weight": (512, WIDTH),
        "attention.to_key_value.weight": (1024, WIDTH),
        "attention.to_out.weight": (WIDTH, 512),
        "feed_forward.0.weight": (WIDTH,),
        "feed_forward.0.bias": (WIDTH,),
        "feed_forward.1.weight": (4 * WIDTH, WIDTH),
        "feed_forward.3.weight": (WIDTH, 4 * WIDTH),
    }
    block = FlamingoBlock(WIDTH)
    assert block.attention_gate.item() == block.feed_forward_gate.item() == 0.0


@pytest.mark.parametrize(("every", "layers"), [(1, 24), (2, 12), (4, 6)])
def test_openflamingo_places_of_the_blocks(every: int, layers: int) -> None:
    """`(layer + 1) % cross_attn_every_n_layers == 0`, of a language model of 24 layers."""
    from vlmtrain.language_models.causal import CausalLanguageModel

    with torch.device("meta"):
        language_model = CausalLanguageModel(architecture={**KINDS["opt"], "num_hidden_layers": 24})
        fusion = make_gated(language_model, every)
    assert [int(name) for name in fusion.blocks] == [layer for layer in range(24) if (layer + 1) % every == 0]
    assert len(fusion.blocks) == layers


def test_openflamingo_what_trains() -> None:
    """Resampler, gated blocks and the embedding of `<image>`: one vector, where nothing else of the text can move."""
    language_model = make_language_model("opt")
    fusion = make_gated(language_model)
    model = nn.ModuleDict({"fusion": fusion, "language_model": language_model})
    trained = set_trainability(model, {"fusion": 1.0, "language_model": None})
    assert {name.split(".")[1] for name in trained} == {"blocks", "placeholder_offset"}
    text = rows("titt")
    with torch.no_grad():
        fusion.placeholder_offset.fill_(1.0)
        with fusion.entering(language_model, text, items_of("titt")) as embeddings:
            moved = embeddings - language_model.embed(text.input_ids)
    torch.testing.assert_close(moved[0], text.visual_mask[0, :, None].expand(-1, WIDTH).float())


def test_openflamingo_gates_and_norms_do_not_decay() -> None:
    from vlmtrain.training.optimizer import AdamWChoices, build_optimizer

    language_model = make_language_model("opt")
    model = nn.ModuleDict({"fusion": make_gated(language_model)})
    optimizer = build_optimizer(model, set_trainability(model, {"fusion": 1.0}), AdamWChoices(weight_decay=0.1))
    decays: dict[float, set[str]] = {}
    for group in optimizer.param_groups:
        decays.setdefault(group["weight_decay"], set()).update(group["names"])
    assert all(name.endswith(".weight") and "norm" not in name for name in decays[0.1])
    assert {name for name in decays[0.0] if name.endswith("gate")} and "fusion.placeholder_offset" in decays[0.0]
    assert not [name for name in decays[0.0] if "to_" in name or "feed_forward.1" in name or "feed_forward.3" in name]


# Files and mistakes ---------------------------------------------------------------------------------------------------


def test_remembered_memory_gives_the_same() -> None:
    block = MllamaBlock(WIDTH, HEADS, 8, 2)
    open_all(block)
    x, memory, visible = inputs()
    first, remembered = block(x, memory, visible)
    second, _ = block(x, torch.zeros_like(memory), visible, remembered)
    assert torch.equal(first, second)


def open_all(block: GatedBlock) -> None:
    with torch.no_grad():
        block.attention_gate.fill_(0.5)
        block.feed_forward_gate.fill_(0.5)


def test_heads_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match="num_heads 4 cannot share num_key_value_heads 3"):
        MllamaBlock(WIDTH, 4, 8, 3)


FOLDER = Path(__file__).parents[2] / "conf" / "model" / "connector"
GATED = sorted(path.stem for path in FOLDER.glob("*.yaml") if "gated_cross_attention" in path.read_text())


@pytest.mark.parametrize("name", GATED)
def test_files_of_conf_build_blocks_of_the_right_width(name: str) -> None:
    node: dict[str, Any] = compose([f"model/connector={name}"]).config["model"]["fusion"]
    language_model = make_language_model("llama")
    fusion = build(node)(language_width=WIDTH)
    fusion.install(language_model)
    assert list(fusion.blocks) == ["3"]
    open_gates(fusion, 0.5)
    with fusion.entering(language_model, rows("it"), items_of("it")) as embeddings:
        assert language_model.logits(embeddings, rows("it").attention_mask, rows("it").input_ids).isfinite().all()
