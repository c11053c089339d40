"""Makes the embedded pretrained parts, vlmtrain/embedded/*_scenes, from vlmtrain's own recipes.

    python scripts/make_embedded.py tokenizers      # first: words and byte pairs of the scenes' text
    python scripts/make_embedded.py vit             # experiment pretrain_vit: image encoder and text tower
    python scripts/make_embedded.py opt             # experiment pretrain_opt: language model
    python scripts/make_embedded.py qwen            # experiment pretrain_qwen: language model that answers questions
    python scripts/make_embedded.py t5              # experiment pretrain_t5: encoder-decoder
    python scripts/make_embedded.py blip2           # experiment blip2_opt: the Q-Former that MiniGPT-4 begins with

Running it again goes on where it was interrupted.  All but `tokenizers` take further overrides of the configuration.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, OPTConfig, PreTrainedTokenizerFast, ViTConfig

from vlmtrain.config.build import build
from vlmtrain.config.stored import CONFIG_FILE, read_config
from vlmtrain.data.scenes.grammar import vocabulary
from vlmtrain.data.scenes.text import document
from vlmtrain.encoders.vit_files import save_pretrained
from vlmtrain.training.checkpoint import newest_valid
from vlmtrain.training.hand_over import load_part
from vlmtrain.training.manifest import read_manifest
from vlmtrain.training.publish import publish
from vlmtrain.training.saved import read_group

EMBEDDED = Path(__file__).resolve().parents[1] / "vlmtrain" / "embedded"
ABOUT = {
    "vit_scenes": "A small vision transformer with a convolutional stem (64 px, patches of 8 px), trained on "
    "vlmtrain's procedural scenes: first as the image tower of a CLIP-style dual encoder, then to tell what stands "
    "where, in which order captions name it, and how it stands to the other things. "
    "`vlmtrain.encoders.vit_files.pretrained` loads it.",
    "bert_scenes": "A small BERT: the text tower of the dual encoder that vit_scenes began in. vlmtrain's tiny "
    "Q-Former starts from it. `transformers.BertModel` loads it.",
    "opt_scenes": "A small OPT, trained on text about procedural scenes, captions and notes; it never saw an image. "
    "`transformers.OPTForCausalLM` loads it.",
    "qwen_scenes": "A small Qwen3 with the tokenizer of opt_scenes, trained on text about scenes: captions, notes, "
    "questions with answers; it never saw an image. `transformers.Qwen3ForCausalLM` loads it.",
    "t5_scenes": "A small T5 with the tokenizer of opt_scenes, trained on the same text: what was said goes to the "
    "encoder, the decoder says it again. It never saw an image. `transformers.T5ForConditionalGeneration` loads it.",
    "blip2_scenes": "BLIP-2 on procedural scenes, as far as it was trained: the Q-Former between vit_scenes and "
    "opt_scenes. A run like any other, of which `init_from=embedded:blip2_scenes` takes the stage `language`.",
}
LANGUAGE_MODELS = ("opt", "qwen", "t5")
NUM_DOCUMENTS = 5000
BYTE_PAIRS = 320
SEED = 1


def make_tokenizers() -> None:
    """A word tokenizer for BERT and the Q-Former, a byte-pair one for OPT; each into its folder with a bare config."""
    documents = [document(SEED, index) for index in range(NUM_DOCUMENTS)]
    _save(_word_tokenizer(documents), "bert_scenes", BertConfig())
    _save(_byte_pair_tokenizer(documents), "opt_scenes", OPTConfig())
    ViTConfig().save_pretrained(EMBEDDED / "vit_scenes")  # so that configurations may name it before it is there


def make_vit(overrides: list[str]) -> None:
    """Train, then write the encoder as ViT, and the text tower that it had in the contrastive stage as BERT."""
    run = _train("pretrain_vit", overrides)
    save_pretrained(_trained_part(run, "regions", "encoder"), EMBEDDED / "vit_scenes")
    _trained_part(run, "contrastive", "text_encoder").save_pretrained(EMBEDDED / "bert_scenes")
    figures = _figures(run)
    _describe("vit_scenes", figures)
    _describe("bert_scenes", figures | {"stages": figures["stages"][:1]})


def make_language_model(name: str, overrides: list[str]) -> None:
    """Train, then write the language model in transformers' layout; all of them have the tokenizer of OPT."""
    run = _train(f"pretrain_{name}", overrides)
    folder = EMBEDDED / f"{name}_scenes"
    PreTrainedTokenizerFast.from_pretrained(EMBEDDED / "opt_scenes").save_pretrained(folder)
    _trained_part(run, list(read_config(run)["stages"])[-1], "language_model").model.save_pretrained(folder)
    _describe(f"{name}_scenes", _figures(run))


def make_blip2(overrides: list[str]) -> None:
    """Train, then keep what a later stage takes of the run: its configuration and the connector."""
    keep_run(_train("blip2_opt", overrides), "language", "connector", "blip2_scenes")


def keep_run(run: Path, stage: str, part: str, name: str) -> None:
    """The newest checkpoint of a stage as a run of its own, of one part and in half precision."""
    checkpoint, folder = newest_valid(run / "checkpoints" / stage), EMBEDDED / name
    if checkpoint is None:
        raise ValueError(f"{run} holds no checkpoint of stage {stage}: the training has not come to its end")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(run / CONFIG_FILE, folder)
    file = f"{part}.safetensors"
    weights = {key: value.half() for key, value in read_group(checkpoint, part).items()}
    facts = {key: fact for key, fact in read_manifest(checkpoint).items() if key not in ("files", "sha256", "frozen")}
    target = folder / "checkpoints" / stage / checkpoint.name
    publish(target, [(file, save(weights))], {**facts, "layout": "whole", "frozen": {}})
    _tell_origin(name, target / file, _figures(run))


def _train(experiment: str, overrides: list[str]) -> Path:
    run = Path("runs") / experiment / "embedded"
    command = [sys.executable, "-m", "vlmtrain.main", f"experiment={experiment}", f"run_dir={run}", *overrides]
    subprocess.run(command, check=True)
    return run


def _trained_part(run: Path, stage: str, part: str) -> Any:
    """The part as the stage left it, in this run or in the one that it began from."""
    config = read_config(run)
    if stage not in config["stages"] and config["init_from"]:
        return _trained_part(Path(config["init_from"]), stage, part)
    checkpoint = newest_valid(run / "checkpoints" / stage)
    if checkpoint is None:
        raise ValueError(f"{run} holds no checkpoint of stage {stage}: the training has not come to its end")
    module = build(config["stages"][stage]["model"]).get_submodule(part)
    load_part(checkpoint, part, module)
    return module


def _figures(run: Path) -> dict[str, Any]:
    """The summary of the run, with the stages of the one that it began from before its own."""
    figures = json.loads((run / "summary.json").read_text())
    before = read_config(run)["init_from"]
    return figures | {"stages": (_figures(Path(before))["stages"] if before else []) + figures["stages"]}


def _word_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    splitter = pre_tokenizers.BertPreTokenizer()
    words = {word for text in documents for word, _ in splitter.pre_tokenize_str(text)} | set(vocabulary())
    ids = {word: number for number, word in enumerate([*special, *sorted(words)])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", bos_token="[DEC]", **names)


def _byte_pair_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """Ids of the special tokens as in OPT: <pad> 1, </s> 2 (it begins and ends a text)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=BYTE_PAIRS, special_tokens=["<s>", "<pad>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="</s>", eos_token="</s>")


def _save(tokenizer: PreTrainedTokenizerFast, name: str, config: BertConfig | OPTConfig) -> None:
    folder = EMBEDDED / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    config.vocab_size = len(tokenizer)
    config.save_pretrained(folder)
    sys.stderr.write(f"{name}: {len(tokenizer)} tokens\n")


def _describe(name: str, figures: dict[str, Any]) -> None:
    """Weights in half precision, and where they come from."""
    file = EMBEDDED / name / "model.safetensors"
    weights = {key: value.half() if value.is_floating_point() else value for key, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    _tell_origin(name, file, figures)


def _tell_origin(name: str, file: Path, figures: dict[str, Any]) -> None:
    """The hash of the weights beside the figures of their training, and the model card."""
    origin = {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "experiment": figures["experiment"],
        "stages": figures["stages"],
        "total_parameters": figures["total_parameters"],
        "versions": figures["versions"],
        "git_revision": figures["git_revision"],
    }
    (EMBEDDED / name / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")
    (EMBEDDED / name / "README.md").write_text(_card(name, origin))


def _card(name: str, origin: dict[str, Any]) -> str:
    """The model card."""
    stages = origin["stages"]
    course = ";\n".join(
        f"stage {stage['name']}, {stage['steps']} steps, {stage['samples']} samples, {stage['seconds']:.0f} s"
        for stage in stages
    )
    figures = "\n".join(
        f"| {stage['name']} | {key} | {value:.4g} |"
        for stage in stages
        for key, value in stage["metrics"].items()
        if isinstance(value, float)
    )
    return f"""---
license: apache-2.0
library_name: transformers
---
# {name}

{ABOUT[name]}

Made by `python scripts/make_embedded.py` from the experiment `{origin["experiment"]}`, on two CPU cores:
{course}.
What it was trained on holds none of the colour-shape pairs and relation combinations that the compositional split keeps
back. It knows nothing but these scenes.

sha256 of the weights: `{origin["sha256"]}`

| stage | figure at its end | value |
| --- | --- | --- |
{figures}
"""


def main() -> None:
    verb, *overrides = sys.argv[1:] or ["help"]
    if verb == "tokenizers":
        make_tokenizers()
    elif verb == "vit":
        make_vit(overrides)
    elif verb == "blip2":
        make_blip2(overrides)
    elif verb in LANGUAGE_MODELS:
        make_language_model(verb, overrides)
    else:
        sys.stderr.write(__doc__ or "")


if __name__ == "__main__":
    main()
