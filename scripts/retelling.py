"""How many captions a language model gets right that is told the scene in words: what it cannot do
so, it will hardly do of images.

    python scripts/retelling.py                                    # the embedded one
    python scripts/retelling.py --folder FOLDER --scenes 500

Each scene is told once, then comes the mark that begins a text, and the model goes on greedily.  The grammar judges.
"""

import argparse
import sys

from vlmtrain.config.embedded import resolve_source
from vlmtrain.data.scenes.grammar import Verdict, caption, judge
from vlmtrain.data.scenes.text import SEPARATOR
from vlmtrain.data.scenes.world import make_scene
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.layout import Text

SEED = 77  # of scenes that no training has used
MOST_TOKENS = 64


def main() -> None:
    arguments = _read_arguments()
    model = CausalLanguageModel(source=resolve_source(arguments.folder), max_tokens=2 * MOST_TOKENS).eval()
    for split in ("test", "compositional"):
        verdicts = [retell(model, split, index) for index in range(arguments.scenes)]
        captions = sum(verdict.correct for verdict in verdicts) / len(verdicts)
        things = sum(verdict.right_things for verdict in verdicts) / sum(verdict.named_things for verdict in verdicts)
        relations = sum(verdict.true_relations for verdict in verdicts) / max(
            1, sum(verdict.spoken_relations for verdict in verdicts)
        )
        sys.stdout.write(f"{split}: captions {captions:.1%}, things {things:.1%}, relations {relations:.1%}\n")


def retell(model: CausalLanguageModel, split: str, index: int) -> Verdict:
    """The verdict on what the model says after one caption of the scene."""
    scene = make_scene(SEED, split, index)
    told = Text(caption(scene, index) + SEPARATOR, supervised=False)
    prompt = model.layout().write_prompts([[told]], lambda tiles: 0)
    written = model.generate(model.embed(prompt.input_ids), prompt.attention_mask, MOST_TOKENS)
    return judge(model.layout().read(written[0].tolist()), scene)


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="embedded:opt_scenes")
    parser.add_argument("--scenes", type=int, default=300, help="of each split")
    return parser.parse_args()


if __name__ == "__main__":
    main()
