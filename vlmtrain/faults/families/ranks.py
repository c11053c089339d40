"""Ranks that are not alike: slower, of another start, of other weights, with other data."""

import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import vlmtrain
from vlmtrain.config.stored import write_config
from vlmtrain.faults.bench import BATCH, PATIENCE, STAGE, Bench, Silent
from vlmtrain.faults.comparison import closeness, samples_by_step
from vlmtrain.faults.injection import Injection
from vlmtrain.faults.row import Case, Row
from vlmtrain.launch.failures import USER_ERROR
from vlmtrain.launch.processes import find_free_port
from vlmtrain.training.heartbeat import read_beat

SOON = 10.0
ALWAYS = 10**6
STEPS_TO_BE_NAMED = 50
UNEVEN = ((61, BATCH), (17, BATCH), (9, 4), (8, BATCH))  # samples, batch: tails, and data that one batch swallows
# Captions of pictures and texts without any, one by one: with one sample a rank, one often has no image.
SOMETIMES_NO_IMAGE = (
    "data=scenes_and_texts", "data.shares={pairs: 1, texts: 1}", "data.parts.pairs.num_train=32",
    "data.parts.pairs.num_test=8", "data.parts.pairs.num_compositional=8", "data.parts.pairs.num_processes=1",
    "data.parts.texts.num_train=32", "data.parts.texts.num_held_out=4",
    "stages.align.form={_target_: vlmtrain.data.forms.by_origin.ByOrigin, forms: {"
    "pairs: {_target_: vlmtrain.data.forms.captioning.Captioning},"
    " texts: {_target_: vlmtrain.data.forms.text_documents.TextDocuments}}}",
    "trainer.batch_size=2", "trainer.log_every=1", "model.language_model.architecture.attention_dropout=0.0",
)  # fmt: skip
LOSS, WEIGHT = 1e-6, 1e-5


def straggler(bench: Bench) -> list[Case]:
    def attempt() -> None:
        slow = Injection("forward", "sleep", 0, ALWAYS, value=0.2)
        run = bench.start(bench.folder(), 2, (), slow)
        assert (code := run.wait()) == 0, f"exit code {code}: a slow rank is no reason to stop"
        assert "rank 1 is slow" in run.said() and "rank 0 is slow" not in run.said(), run.said()[-300:]
        assert (run.folder / "logs" / STAGE / "stragglers.jsonl").is_file()
        bench.finish_as_undisturbed(run.folder, 2)

    return [Case("every step of rank 1 takes longer", attempt)]


def other_starts(bench: Bench) -> list[Case]:
    """Rank 1 starts with another configuration, another file of vlmtrain, another version of a library."""

    def attempt(told: str, change: str) -> None:
        home = bench.folder()
        folder, paths = home / "run", [str(Path(vlmtrain.__file__).parents[1])]
        config = bench.configuration("distributed=ddp", f"run_dir={folder}")
        (folder / "logs").mkdir(parents=True)
        (home / "other").mkdir()
        (home / "other" / "logs").symlink_to(folder / "logs")
        for each in (folder, home / "other"):
            write_config(config, each)
        if change == "config":
            write_config({**config, "seed": 1}, home / "other")
        elif change == "code":
            shutil.copytree(
                Path(vlmtrain.__file__).parent, home / "code" / "vlmtrain", ignore=lambda *_: ["__pycache__"]
            )
            with (home / "code" / "vlmtrain" / "shapes.py").open("a") as file:
                file.write("# a line more\n")
            paths = [str(home / "code")]
        else:
            facts = home / "library" / "pillow-0.0.1.dist-info"
            facts.mkdir(parents=True)
            (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 0.0.1\n")
            paths = [str(home / "library"), *paths]
        ranks = _start_by_hand([folder, home / "other"], paths)
        beats = [folder / "logs" / "ranks" / f"rank{rank}.json" for rank in range(2)]
        until = time.monotonic() + PATIENCE
        while not all(read_beat(file) for file in beats) and time.monotonic() < until:
            time.sleep(0.05)
        began = time.monotonic()
        codes = [rank.wait(PATIENCE) for rank in ranks]
        took, said = time.monotonic() - began, (home / "rank0.log").read_text()
        assert codes == [USER_ERROR, USER_ERROR], f"exit codes {codes}: {said[-400:]}"
        assert told in said, f"the message does not say {told!r}: {said[-400:]}"
        assert took < SOON, f"it took {took:.1f} s"

    told = {"config": "rank 1: config seed is 1, and 0 on rank 0", "code": "rank 1: code shapes.py is",
            "library": "rank 1: version of pillow is 0.0.1"}  # fmt: skip
    return [Case(f"another {change}", partial(attempt, told[change], change)) for change in told]


def flipped_bits(bench: Bench) -> list[Case]:
    """One bit of one weight on rank 1, at a random step; checkpoints are saved every five, and compared before."""

    def attempt(step: int, tensor: int) -> None:
        run = bench.start(bench.folder(), 2, (), Injection("after", "flip_a_bit", step, step, 1, tensor))
        assert (code := run.wait()) == 0, f"exit code {code}: {run.said()[-300:]}"
        if "weights differ between ranks; rank 1: " not in run.said():
            raise Silent(f"nobody noticed the bit of tensor {tensor} that was flipped after step {step}")
        assert "back to step" in run.said()
        bench.finish_as_undisturbed(run.folder, 2)

    places = [(bench.chance.randint(6, 23), bench.chance.randrange(20)) for _ in range(bench.times(3, 20))]
    return [Case(f"step {step}, tensor {tensor}", partial(attempt, step, tensor)) for step, tensor in places]


def uneven_data(bench: Bench) -> list[Case]:
    """Numbers of samples that no batch and no number of ranks divides."""

    def attempt(samples: int, batch: int) -> None:
        place = f"data.folder={bench.home / f'scenes-{samples}'}"
        sizes = (place, f"data.num_train={samples}", f"trainer.batch_size={batch}")
        folder = bench.folder()
        code = bench.start(folder, 2, sizes).wait(60)
        assert code == 0, f"exit code {code}"
        steps = samples_by_step(folder, STAGE, batch)
        seen = [name for step in sorted(steps) for name in steps[step]]
        counts = {name: seen.count(name) for name in seen}
        assert all(len(ids) == batch for ids in steps.values()), "a batch is not full"
        if len(counts) != min(samples, len(seen)) or max(counts.values()) - min(counts.values()) > 1:
            raise Silent(f"{samples} samples came unevenly: {min(counts.values())} to {max(counts.values())} times")
        beats = [read_beat(folder / "logs" / "ranks" / f"rank{rank}.json") for rank in range(2)]
        assert beats[0] and beats[1] and beats[0].collectives == beats[1].collectives

    sizes = list(UNEVEN) * bench.times(1, 5)
    return [Case(f"{samples} in batches of {batch}", partial(attempt, samples, batch)) for samples, batch in sizes]


def no_image_on_one_rank(bench: Bench) -> list[Case]:
    """Two ranks of one sample each against one process that accumulates two."""

    def attempt() -> None:
        data = (*SOMETIMES_NO_IMAGE, f"data.parts.pairs.folder={bench.home / 'pairs'}")
        one, two = bench.folder(), bench.folder()
        bench.finish(one, 1, (*data, "trainer.accumulate=2"))
        code = bench.start(two, 2, data).wait(60)
        assert code == 0, f"exit code {code}"
        beats = [read_beat(two / "logs" / "ranks" / f"rank{rank}.json") for rank in range(2)]
        assert beats[0] and beats[1] and beats[0].collectives == beats[1].collectives, "other collectives on rank 1"
        losses, weights = closeness(one, two, STAGE)
        assert losses <= LOSS and weights <= WEIGHT, f"losses differ by {losses:.2g}, weights by {weights:.2g}"

    return [Case("texts without an image, one sample a rank", attempt)]


def _start_by_hand(folders: list[Path], paths: list[str]) -> list[subprocess.Popen[bytes]]:
    """A rank in each folder, as a machine of its own would; `paths`: where the second one finds its modules."""
    here = str(Path(vlmtrain.__file__).parents[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_port()), "WORLD_SIZE": "2",
              "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    ranks = []
    for rank, folder in enumerate(folders):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": os.pathsep.join(paths if rank else [here])}
        with (folder.parent / f"rank{rank}.log").open("wb") as log:
            command = [sys.executable, "-m", "vlmtrain.launch.rank", str(folder)]
            environment = {**os.environ, **shared, **own}
            ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder.parent))
    return ranks


ROWS = (
    Row(
        "F27",
        3,
        "data that do not divide evenly",
        "no hang; full batches; every sample as often, to one; the same steps on all ranks",
        uneven_data,
    ),
    Row(
        "F28",
        3,
        "one rank has no image",
        "no hang; the same collectives on both; equal to one process to 1e-6 (weights 1e-5)",
        no_image_on_one_rank,
    ),
    Row("F33", 1, "a rank that is slow", "named; not ended", straggler),
    Row(
        "F34", 1, "ranks of other config, code or library", "both stop in 10 s with the difference", other_starts, False
    ),
    Row(
        "F35",
        2,
        "a bit flips in one rank's weights",
        "found at the next comparison, named, undone; to the bit",
        flipped_bits,
    ),
)
