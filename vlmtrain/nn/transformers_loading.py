"""Weights of transformers from their files; left there where that is wanted and changes no number."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils.quantization_config import QuantizationConfigMixin

from vlmtrain.nn.file_weights import is_exact, leaves_weights_in_files, note_format
from vlmtrain.nn.pretrained import is_local

logger = logging.getLogger(__name__)

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
FORMATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
NUMBERS = ("F", "BF")  # how the names of formats begin that are not of integers or truth values


def load_model(
    kind: Any, source: str, config: PretrainedConfig, revision: str | None, number_format: torch.dtype
) -> PreTrainedModel:
    """`kind.from_pretrained`: a model with the weights of `source`, a folder or hub name.

    Inside `weights_left_in_files` they stay in the files, in the format that they have there, and are noted to become
    `number_format`.  Not where that could round, where some are missing and drawn by chance, or where buffers
    follow the format of the weights: then they are loaded as otherwise, whole and in `number_format`.
    """
    stored = _find_format(source, revision) if leaves_weights_in_files() else None
    if stored is None or not is_exact(stored, number_format):
        if stored is not None:
            _tell(source, f"its files hold {stored} and {number_format} was asked for, which rounds")
        return _load(kind, source, config, revision, number_format)[0]
    drawn = torch.get_rng_state()
    model, is_complete = _load(kind, source, config, revision, stored)
    if stored != number_format:
        follows = any(each.is_floating_point() and each.dtype != torch.float32 for each in model.buffers())
        if follows or not is_complete:
            _tell(source, "buffers follow the format of the weights" if follows else "some weights are not in it")
            torch.set_rng_state(drawn)
            return _load(kind, source, config, revision, number_format)[0]
        for part in (model.config, *(getattr(model.config, name) for name in model.config.sub_configs)):
            if part is not None:
                part.dtype = number_format
    if is_complete:
        for parameter in model.parameters():
            note_format(parameter, number_format if stored != number_format else parameter.dtype)
    return model


def load_quantized(
    kind: Any,
    source: str,
    config: PretrainedConfig,
    revision: str | None,
    number_format: torch.dtype,
    quantization: QuantizationConfigMixin,
) -> PreTrainedModel:
    """As `load_model`, rounded as `quantization` says; read at once, and `number_format` is that of the rest."""
    return _load(kind, source, config, revision, number_format, quantization)[0]


def _load(
    kind: Any,
    source: str,
    config: PretrainedConfig,
    revision: str | None,
    number_format: torch.dtype,
    quantization: QuantizationConfigMixin | None = None,
) -> tuple[PreTrainedModel, bool]:
    """The model, and whether all of its weights come from the files."""
    local = is_local(source)
    model, told = kind.from_pretrained(
        str(Path(source).expanduser()) if local else source,
        config=config,
        revision=revision,
        dtype=number_format,
        local_files_only=local,
        trust_remote_code=False,
        quantization_config=quantization,
        output_loading_info=True,
    )
    return model, not (told["missing_keys"] or told["mismatched_keys"])


def _find_format(source: str, revision: str | None) -> torch.dtype | None:
    """The one number format in the safetensors files of `source`; None where there are several, or no such files."""
    found: set[str] = set()
    for path in _find_files(source, revision):
        with safe_open(path, "pt") as file:
            found |= {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 - no dict
    numbers = [name for name in found if name.startswith(NUMBERS)]
    return FORMATS.get(numbers[0]) if len(numbers) == 1 else None


def _find_files(source: str, revision: str | None) -> list[Path]:
    """All that hold its weights; none where it has no safetensors."""
    whole = _find_file(source, FILE, revision)
    if whole is not None:
        return [whole]
    index = _find_file(source, INDEX, revision)
    names = set(json.loads(index.read_text())["weight_map"].values()) if index is not None else set()
    return [path for name in sorted(names) if (path := _find_file(source, name, revision)) is not None]


def _find_file(source: str, name: str, revision: str | None) -> Path | None:
    local = is_local(source)
    found = cached_file(
        str(Path(source).expanduser()) if local else source,
        name,
        revision=revision,
        local_files_only=local,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def _tell(source: str, reason: str) -> None:
    logger.info(
        "%s: %s, so every process reads it whole; to leave it in its files give the part the precision that they have",
        *(source, reason),
    )
