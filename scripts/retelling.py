"""How many captions a language model gets right that is told the scene in words: what it cannot do
so, it will hardly do of images.

    python scripts/retelling.py                                    # the embedded one
    python scripts/retelling.py model/language_model=NAME --scenes 500 --told notes
    python scripts/retelling.py model.language_model.source=FOLDER

Each scene is told once, in a caption or in notes, then comes the mark that begins a text, and the model goes on
greedily.  Judged as captions of images are.
"""

import argparse
import sys
from collections.abc import Callable

from vlmtrain.config.build import build
from vlmtrain.config.compose import compose
from vlmtrain.data.record import Record
from vlmtrain.data.scenes.grammar import caption
from vlmtrain.data.scenes.scene_judge import SceneJudge, SceneVerdict
from vlmtrain.data.scenes.text import SEPARATOR, notes
from vlmtrain.data.scenes.things import Scene
from vlmtrain.data.scenes.world import make_scene
from vlmtrain.evaluation.base import sum_aspects
from vlmtrain.language_models.base import LanguageModel
from vlmtrain.layout import Text

SEED = 77  # of scenes that no training has used
MOST_TOKENS = 64
TELLINGS: dict[str, Callable[[Scene, int], str]] = {"caption": caption, "notes": lambda scene, index: notes(scene)}


def main() -> None:
    arguments = _read_arguments()
    model = load(arguments.overrides)
    for split in ("test", "compositional"):
        verdicts = [retell(model, split, index, TELLINGS[arguments.told]) for index in range(arguments.scenes)]
        figures = ", ".join(f"{name} {value:.1%}" for name, value in sum_aspects(verdicts).items())
        sys.stdout.write(f"{split}: {figures}\n")


def load(overrides: list[str]) -> LanguageModel:
    """The language model that a run with these overrides would have."""
    composed = compose([*overrides, f"model.language_model.max_tokens={2 * MOST_TOKENS}"])
    model: LanguageModel = build(composed.config["model"]["language_model"]).eval()
    return model


def retell(model: LanguageModel, split: str, index: int, tell: Callable[[Scene, int], str]) -> SceneVerdict:
    """The verdict on what the model says after the scene was told to it."""
    scene = make_scene(SEED, split, index)
    told = Text(tell(scene, index) + SEPARATOR, supervised=False)
    prompt = model.layout().write_prompts([[told]], lambda tiles: 0)
    written = model.generate(model.embed(prompt.input_ids), prompt.attention_mask, MOST_TOKENS)
    record = Record(f"{split} {index}", [], [], {"scene": scene.to_json()})
    return SceneJudge()(model.layout().read(written[0].tolist()), record)


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the configuration: model/language_model=NAME")
    parser.add_argument("--told", choices=sorted(TELLINGS), default="caption")
    parser.add_argument("--scenes", type=int, default=300, help="of each split")
    return parser.parse_args()


if __name__ == "__main__":
    main()
