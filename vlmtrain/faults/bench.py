"""Where faults are tried: small real trainings, started, watched and hit from outside."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmtrain.config.overrides import read_arguments
from vlmtrain.faults import warm
from vlmtrain.faults.comparison import compare
from vlmtrain.faults.injection import Injection
from vlmtrain.main import resolve
from vlmtrain.training.heartbeat import Beat, read_beat, state_of

STEPS, BATCH, STAGE = 24, 8, "align"
PATIENCE = 240.0  # seconds until a run that should have ended counts as one that hangs
# Patches through a linear layer, an MLP, two layers of Llama; dropout, so that randomness has to come back as well.
TOY = [
    "experiment=llava", f"stages=[{STAGE}]", "model/encoder=patch_embedding", "model/language_model=llama_scratch",
    "model.encoder.image_size=32", "model.encoder.width=32",
    "model.language_model.architecture.hidden_size=64", "model.language_model.architecture.intermediate_size=96",
    "model.language_model.architecture.num_hidden_layers=2", "model.language_model.architecture.num_key_value_heads=4",
    "model.language_model.architecture.attention_dropout=0.1",
    "stages.align.trainable={encoder: 1.0, connector: 1.0, fusion: null, language_model: 1.0}",
    f"trainer.max_steps={STEPS}", f"trainer.batch_size={BATCH}", "trainer.num_workers=0", "trainer.log_every=2",
    "trainer.save_every=5", "trainer.threads=1", "optimizer.warmup=0",
]  # fmt: skip
SCENES = ["data.num_train=64", "data.num_test=8", "data.num_compositional=8", "data.num_processes=1"]


class Loud(Exception):
    """Not what was promised, but the run stopped with a message that names cause and remedy: half the points."""


class Silent(Exception):
    """A wrong result that calls itself right: no points, and the whole harness fails."""


class Run:
    """One start of a training."""

    def __init__(self, folder: Path, overrides: list[str], environment: dict[str, str]) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self.log.unlink(missing_ok=True)
        shutil.rmtree(folder / "logs" / "ranks", ignore_errors=True)
        self.process = warm.start([*overrides, f"run_dir={folder}"], environment, self.log)
        self.began = time.monotonic()

    def wait(self, patience: float = PATIENCE) -> int:
        """The exit code, as a shell would give it.  TimeoutError, and everything killed, where it hangs."""
        self.process.join(patience)
        if self.process.exitcode is None:
            said = self.said()
            self.kill()
            raise TimeoutError(f"still there after {patience:.0f} s; it said: {said[-600:]}")
        code = self.process.exitcode
        return 128 - code if code < 0 else code

    def beat(self, rank: int = 0) -> Beat | None:
        """Where a rank stands; None before it has begun."""
        return read_beat(self.folder / "logs" / "ranks" / f"rank{rank}.json")

    def wait_for(self, happens: Callable[[], object], patience: float = PATIENCE) -> None:
        """Until it does, or the run has ended."""
        until = time.monotonic() + patience
        while not happens() and self.process.exitcode is None:
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError("what was waited for never happened")
            time.sleep(0.01)

    def wait_for_step(self, step: int, rank: int = 0) -> None:
        self.wait_for(lambda: (beat := self.beat(rank)) is not None and beat.phase != "init" and beat.step >= step)

    def wait_until_all_have_begun(self, ranks: int) -> None:
        self.wait_for(lambda: len(self.ranks()) == ranks)

    def wait_until_gone(self) -> None:
        """Launcher and ranks."""
        self.process.join(PATIENCE)
        while self.ranks():
            time.sleep(0.01)

    def ranks(self) -> list[int]:
        """Process ids of the ranks that have begun and live."""
        files = sorted((self.folder / "logs" / "ranks").glob("rank*.json"))
        pids = [beat.pid for beat in map(read_beat, files) if beat is not None]
        return [pid for pid in pids if is_alive(pid)]

    def signal(self, number: int, rank: int) -> None:
        beat = self.beat(rank)
        if beat is not None and is_alive(beat.pid):
            os.kill(beat.pid, number)

    def kill(self) -> None:
        """SIGKILL to everything: launcher and ranks."""
        for pid in [self.process.pid or 0, *self.ranks()]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.join()

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.is_file() else ""


class Bench:
    """Starts runs below `home`.  `many` is how often random things are done: more in the full tier."""

    def __init__(self, home: Path, seed: int, is_full: bool, repeat: int | None = None) -> None:
        self.home = home
        self.chance = random.Random(seed)
        self.is_full = is_full
        self.repeat = repeat
        self._references: dict[tuple[str, ...], tuple[Path, float]] = {}
        self._count = 0

    def times(self, smoke: int, full: int) -> int:
        """How many random tries a row makes."""
        return self.repeat or (full if self.is_full else smoke)

    def folder(self) -> Path:
        """A new one."""
        self._count += 1
        return self.home / f"run-{self._count:03d}"

    def scenes(self) -> list[str]:
        """What the toy sees."""
        return [*SCENES, f"data.folder={self.home / 'scenes'}"]

    def configuration(self, *overrides: str) -> dict[str, Any]:
        """The toy's, resolved, for who starts it by other means."""
        return resolve(read_arguments([*TOY, *self.scenes(), *overrides], []))

    def start(
        self, folder: Path, ranks: int = 1, overrides: tuple[str, ...] = (), fault: Injection | None = None
    ) -> Run:
        """The toy training, in `folder`, from wherever it was left there.  Overrides may choose other data=."""
        shared = [] if ranks == 1 else ["distributed=ddp", f"distributed.num_processes={ranks}"]
        has_own_data = any(override.startswith("data=") for override in overrides)
        typed = [*TOY, *([] if has_own_data else self.scenes()), *shared, *overrides]
        quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", "COLUMNS": "200"}
        return Run(folder, typed, quiet | (fault.environment() if fault is not None else {}))

    def finish(self, folder: Path, ranks: int = 1, overrides: tuple[str, ...] = ()) -> None:
        """Runs it to its end.  RuntimeError where it fails."""
        run = self.start(folder, ranks, overrides)
        code = run.wait()
        if code:
            raise RuntimeError(f"exit code {code} where none was expected; it said: {run.said()[-600:]}")

    def reference(self, ranks: int = 1, overrides: tuple[str, ...] = ()) -> tuple[Path, float]:
        """The same training without a fault, and the seconds that it took; done once."""
        key = (str(ranks), *overrides)
        if key not in self._references:
            warm.boot()  # whose seconds are not the run's
            folder, began = self.home / f"reference-{len(self._references)}", time.monotonic()
            self.finish(folder, ranks, overrides)
            self._references[key] = (folder, time.monotonic() - began)
        return self._references[key]

    def finish_as_undisturbed(self, folder: Path, ranks: int = 1, overrides: tuple[str, ...] = ()) -> None:
        """Runs it to its end, which has to be that of a run without a fault; nothing is left of it then."""
        self.finish(folder, ranks, overrides)
        found = compare(self.reference(ranks, overrides)[0], folder)
        if found:
            raise Silent(f"{len(found)} differences from a run without the fault, among them {', '.join(found[:3])}")
        shutil.rmtree(folder)


def is_alive(pid: int) -> bool:
    """Is there such a process, and is it no zombie?"""
    state = state_of(pid)
    return state is not None and state.letter != "Z"
