"""Weights that stay in their files: which do, what is read of them meanwhile, and what they are when taken out."""

from pathlib import Path

import pytest
import torch
from torch import nn

from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.probes import FEW, try_out
from vlmtrain.nn.file_weights import format_of, is_in_file, overwrite, set_format, take_all_out, weights_left_in_files
from vlmtrain.nn.transformers_loading import load_model

CPU = torch.device("cpu")


def make(folder: Path, stored: torch.dtype, **changes: object) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = LlamaConfig(**{**sizes, "num_attention_heads": 2, **changes})
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(stored).save_pretrained(folder)
    return folder


def load(folder: Path, asked: torch.dtype, leaves: bool = True) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    if not leaves:
        return load_model(AutoModelForCausalLM, str(folder), config, None, asked)
    with weights_left_in_files():
        return load_model(AutoModelForCausalLM, str(folder), config, None, asked)


def is_mapped(parameter: nn.Parameter) -> bool:
    """Whether its bytes are pages of a file."""
    lines = (line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "safetensors" in line)
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]
    return any(first <= parameter.data_ptr() < last for first, last in spans)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float32, torch.float32)],
)
def test_taken_out_they_are_what_is_read_whole(stored: torch.dtype, asked: torch.dtype, tmp_path: Path) -> None:
    wanted, model = load(make(tmp_path, stored), asked, leaves=False), load(tmp_path, asked)
    for parameter in model.parameters():
        assert is_in_file(parameter) and is_mapped(parameter)
        assert (parameter.dtype, format_of(parameter)) == (stored, asked)
    take_all_out(model, CPU)
    assert model.config.dtype == wanted.config.dtype == asked
    for (name, value), (_, other) in zip(model.state_dict().items(), wanted.state_dict().items(), strict=True):
        assert value.dtype == other.dtype == asked and torch.equal(value, other), name
    assert not any(is_in_file(parameter) for parameter in model.parameters())


def test_what_would_be_rounded_is_read_as_it_was_asked_for(tmp_path: Path) -> None:
    """Whoever measures a weight meanwhile (DoRA, new rows) would measure other numbers."""
    model = load(make(tmp_path, torch.float32), torch.bfloat16)
    assert {(value.dtype, is_in_file(value)) for value in model.parameters()} == {(torch.bfloat16, False)}


def test_missing_weights_are_drawn_as_they_always_were(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = make(tmp_path, torch.bfloat16, tie_word_embeddings=False) / "model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if name != "lm_head.weight"}, file)
    torch.manual_seed(1)
    wanted = load(tmp_path, torch.float32, leaves=False)
    torch.manual_seed(1)
    model = load(tmp_path, torch.float32)
    assert torch.equal(model.lm_head.weight, wanted.lm_head.weight)
    assert model.lm_head.weight.dtype == torch.float32 and not is_in_file(model.lm_head.weight)


def test_outside_of_the_block_weights_are_what_was_asked_for(tmp_path: Path) -> None:
    model = load(make(tmp_path, torch.bfloat16), torch.float32, leaves=False)
    assert {(value.dtype, is_in_file(value)) for value in model.parameters()} == {(torch.float32, False)}


def test_formats_change_and_values_come_without_reading_the_file(tmp_path: Path) -> None:
    model = load(make(tmp_path, torch.bfloat16), torch.float32)
    lowered, given = model.lm_head.weight, model.model.norm.weight
    set_format(lowered, torch.bfloat16)
    assert is_mapped(lowered) and format_of(lowered) == torch.bfloat16
    value = torch.full_like(given, 1.001, dtype=torch.float32)
    overwrite(given, value)
    assert torch.equal(given, value), "the format of the file would have rounded it"
    take_all_out(model, CPU)
    assert lowered.dtype == torch.bfloat16 and given.dtype == torch.float32


def test_a_deep_model_is_tried_on_its_first_blocks_and_comes_back_whole(tmp_path: Path) -> None:
    model = load(make(tmp_path, torch.bfloat16, num_hidden_layers=FEW + 3), torch.float32)
    blocks = list(model.model.layers)
    assert try_out(model, lambda: len(model.model.layers)) == FEW
    assert list(model.model.layers) == blocks and "model.layers.10.mlp.up_proj.weight" in model.state_dict()


def test_what_is_refused_in_the_format_of_the_file_is_tried_in_the_one_asked_for(tmp_path: Path) -> None:
    model = load(make(tmp_path, torch.float16), torch.float32)

    def overflow() -> torch.dtype:
        if model.lm_head.weight.dtype == torch.float16:
            raise ValueError("its numbers are too large")
        return model.lm_head.weight.dtype

    assert try_out(model, overflow) == torch.float32
    assert not is_mapped(model.lm_head.weight)


def test_a_language_model_of_one_file_stays_in_it(tmp_path: Path) -> None:
    from vlmtrain.config.embedded import resolve_source

    with weights_left_in_files():
        model = CausalLanguageModel(resolve_source("embedded:opt_scenes"))
    assert all(is_mapped(parameter) and format_of(parameter) == torch.float32 for parameter in model.parameters())
