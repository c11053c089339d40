"""A signal in any phase ends the run at a step boundary, with the state saved."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_toy import Guessing, build_trainer

from vlmtrain.batch import Batch
from vlmtrain.training.signals import Signals
from vlmtrain.training.stops import Preempted


class Hit:
    """Sends this process a signal in step 4, from within a chosen phase."""

    def __init__(self, number: int) -> None:
        self.number, self.step, self.every = number, 0, 1

    def __call__(self, *_: object, **__: object) -> None:
        self.step += 1
        if self.step == 4:
            os.kill(os.getpid(), self.number)


def in_phase(trainer, phase: str, hit: Hit) -> None:
    if phase == "forward":
        trainer.update.training_step.register_forward_hook(hit)
    elif phase == "backward":
        trainer.model.connector[0].weight.register_post_accumulate_grad_hook(hit)
    elif phase == "optimizer":
        trainer.update.optimizer.register_step_pre_hook(hit)
    elif phase == "action":
        trainer.actions = [hit, *trainer.actions]
    else:
        trainer.source = Waiting(trainer.source, hit)


class Waiting:
    def __init__(self, source, hit: Hit) -> None:
        self.source, self.hit = source, hit

    def steps(self, start: int) -> Iterator[list[Batch]]:
        for batches in self.source.steps(start):
            self.hit()
            yield batches


@pytest.mark.parametrize("phase", ["data", "forward", "backward", "optimizer", "action"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_in_every_phase(tmp_path: Path, phase: str, number: int) -> None:
    trainer = build_trainer(tmp_path, save_every=0, objective=Guessing())
    in_phase(trainer, phase, Hit(number))
    with Signals() as signals, pytest.raises(Preempted) as stopped:
        trainer.train(signals)
    assert stopped.value.exit_code == 143
    step = trainer.progress.step
    assert 4 <= step <= 5  # at most one step more
    again = build_trainer(tmp_path)
    assert again.resume() and again.progress.step == step
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_signal_inside_a_save_lets_it_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build_trainer(tmp_path)
    hit, fsync = Hit(signal.SIGTERM), os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (hit(), fsync(descriptor))[1])
    with Signals() as signals, pytest.raises(Preempted):
        trainer.train(signals)
    assert {path.name for path in (tmp_path / "checkpoints/toy").iterdir()} == {"step-00000003", "step-00000004"}


def test_signal_in_the_last_step_just_ends(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, max_steps=4)
    in_phase(trainer, "forward", Hit(signal.SIGTERM))
    with Signals() as signals:
        trainer.train(signals)
    assert trainer.progress.step == 4


def test_second_signal_ends_at_once() -> None:
    code = (
        "import os, signal, time\nfrom vlmtrain.training.signals import Signals\nwith Signals() as signals:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    assert signals.requested == signal.SIGTERM\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(30)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 143


def test_forked_workers_ignore_the_signal() -> None:
    with Signals() as signals:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7 if signals.requested is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_signal_during_the_imports_is_obeyed_by_the_next_block_and_by_that_alone() -> None:
    code = (
        "import os, signal\n"
        "from vlmtrain.training.signals import Signals, remember_early_signals\n"
        "remember_early_signals()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "for _ in range(2):\n"
        "    with Signals() as signals:\n"
        "        print(signals.requested)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(int(signal.SIGUSR1)), "None"]
