import importlib

import pytest
import torch

from vlmtrain.layout import NothingToLearn, Text, Visual
from vlmtrain.layouts.open_clip import OpenClipLayout

open_clip = importlib.import_module("open_clip")  # after vlmtrain, whose hook lets torchvision be imported


def test_rows_are_those_of_open_clip_and_cut_ones_are_counted() -> None:
    layout = OpenClipLayout(open_clip.SimpleTokenizer(context_length=8), 8, pad_id=0)
    long = "a very long caption about a small red circle"
    batch = layout.write(
        [[Visual(), Text("a red circle")], [Text("blue "), Text("star")], [Text(long)]], lambda tiles: 0
    )
    assert torch.equal(batch.input_ids, open_clip.tokenize(["a red circle", "blue star", long], context_length=8))
    assert batch.truncated == 1 and batch.attention_mask.all() and not batch.visual_mask.any()


def test_what_cannot_be_done_is_named() -> None:
    layout = OpenClipLayout(open_clip.SimpleTokenizer(), 8, pad_id=0)
    with pytest.raises(NothingToLearn, match="no text"):
        layout.write([[Visual()]], lambda tiles: 0)
    with pytest.raises(ValueError, match="only read"):
        layout.write_prompts([[Text("a")]], lambda tiles: 0)
    with pytest.raises(ValueError, match="read none"):
        layout.read([1])
