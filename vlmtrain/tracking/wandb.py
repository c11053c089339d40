"""Weights & Biases, online or offline."""

from pathlib import Path
from re import sub
from typing import Any, Literal

from vlmtrain.tracking.base import Row, RunInfo


class Wandb:
    """Sends rows to wandb; run it through Background.

    Steps start anew in every stage, so metrics are named `<stage>/<metric>` and drawn over `<stage>/step`.  A resumed
    run goes on in the same wandb run, whose id is made of the run's name.  Offline runs lie in `logs/wandb` of the run
    folder and are sent with `wandb sync`.
    """

    def __init__(
        self,
        project: str = "vlmtrain",
        mode: Literal["online", "offline"] = "offline",
        name: str | None = None,
        entity: str | None = None,
        tags: list[str] | None = None,
        start_seconds: float = 30.0,
    ) -> None:
        if mode not in ("online", "offline"):
            raise ValueError(f"The mode of wandb is online or offline, not {mode!r}.")
        self.project = project
        self.mode: Literal["online", "offline"] = mode
        self.name = name
        self.entity = entity
        self.tags = tags
        self.start_seconds = start_seconds
        self._run: Any = None
        self._stages: set[str] = set()

    def start(self, run: RunInfo) -> None:
        import wandb

        folder = run.folder / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=self.name or run.name,
            id=sub(r"[^A-Za-z0-9_-]+", "-", run.name)[:64],
            tags=self.tags,
            mode=self.mode,
            dir=str(folder),
            config=dict(run.config),
            resume="allow",
            settings=wandb.Settings(
                init_timeout=self.start_seconds, console="off", silent=True, disable_git=True, save_code=False
            ),
        )

    def log(self, row: Row) -> None:
        if row.stage not in self._stages:
            self._stages.add(row.stage)
            self._run.define_metric(f"{row.stage}/step")
            self._run.define_metric(f"{row.stage}/*", step_metric=f"{row.stage}/step")
        named = {f"{row.stage}/{name}": value for name, value in row.metrics.items()}
        timed = {f"{row.stage}/timing/{name}": value for name, value in row.timing.items()}
        self._run.log({f"{row.stage}/step": row.step, **named, **timed})

    def image(self, stage: str, step: int, path: Path) -> None:
        import wandb

        self._run.log({f"{stage}/step": step, f"{stage}/{path.stem}": wandb.Image(str(path))})

    def finish(self) -> None:
        if self._run is not None:
            self._run.finish()
