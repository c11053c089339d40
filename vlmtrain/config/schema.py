"""The closed sections of a run's configuration: what vlmtrain itself reads.

Open sections (any node with `_target_`) have no schema here: the signature of their target is their schema.
Each field says in its metadata what it means, which range or choices it has and under which other names people look
for it; `--help`, `vlmtrain config explain` and every error message are made from that.
"""

# ruff: noqa: RUF009  (`option` makes a dataclass field, as `field` does)

from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any

REQUIRED = object()


def option(
    default: object,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
) -> Any:
    """A field of a closed section: `low` <= value <= `high`, value > `above`, value in `choices`; `also`: synonyms."""
    metadata = {"doc": doc, "low": low, "high": high, "above": above, "choices": choices, "also": also}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class TrainerConfig:
    max_steps: int = option(
        1000,
        "optimizer steps; 0 trains nothing and evaluates",
        low=0,
        also=("steps", "num_steps", "iterations", "max_iters", "epochs"),
    )
    batch_size: int = option(
        32, "samples per optimizer step, over all processes", low=1, also=("batch", "bs", "global_batch_size")
    )
    accumulate: int = option(
        1, "micro-batches per process and step", low=1, also=("gradient_accumulation_steps", "grad_accum")
    )
    precision: str = option(
        "auto",
        "number format of arithmetic; fp16 with a loss scale",
        choices=("auto", "fp32", "bf16", "fp16"),
        also=("dtype",),
    )
    gradient_clip_norm: float | None = option(
        1.0, "largest gradient norm; null: no limit", above=0, also=("grad_clip", "max_grad_norm", "clip")
    )
    gradient_shares_every: int = option(
        0, "steps between measuring what each term brings of the gradient (single, ddp); 0: never", low=0
    )
    gradient_checkpointing: bool = option(False, "recompute activations to save memory", also=("checkpointing",))
    compile: bool = option(False, "torch.compile the step")
    ema_decay: float | None = option(None, "decay of the averaged weights; null: none", above=0, high=1, also=("ema",))
    log_every: int = option(10, "steps between lines in metrics.jsonl", low=1)
    save_every: int = option(500, "steps between checkpoints", low=1, also=("save_steps", "checkpoint_every"))
    save_asynchronously: bool = option(
        False, "write checkpoints in a thread, while training goes on", also=("async_save", "async_checkpoint")
    )
    save_in_parts: bool = option(
        False, "every process writes what it holds of a checkpoint", also=("sharded_checkpoint", "save_sharded")
    )
    evaluate_every: int = option(0, "steps between evaluations; 0: only at the end", low=0, also=("eval_every",))
    keep_checkpoints: int = option(2, "checkpoints kept per stage; the second is there if the newest is damaged", low=2)
    num_workers: int = option(0, "processes that read data, per training process", low=0, also=("workers",))
    log_samples: bool = option(False, "write the sample ids of every step to logs/")
    max_skipped_steps: int = option(3, "non-finite steps in a row before the run stops", low=1)
    threads: int | None = option(None, "CPU threads per process; null: decided at start", low=1)


@dataclass
class OptimizerConfig:
    lr: float = option(1e-4, "peak learning rate", above=0, also=("learning_rate",))
    min_lr: float = option(0.0, "learning rate at the end", low=0, also=("lr_min", "end_lr"))
    warmup: int | str = option(
        "3 percent", "steps of linear warm-up, or 'N percent' of them", low=0, also=("warmup_steps", "warm_up")
    )
    schedule: str = option(
        "cosine", "shape after the warm-up", choices=("cosine", "linear", "constant"), also=("scheduler",)
    )
    betas: list[float] = option(lambda: [0.9, 0.98], "decay of AdamW's two moments", low=0, high=1)
    eps: float = option(1e-8, "AdamW's epsilon", above=0)
    weight_decay: float = option(0.05, "decoupled decay of matrices (never biases, norms)", low=0, also=("wd", "decay"))
    layer_decay: float | None = option(None, "factor of the rate per layer downwards; null: none", above=0, high=1)


@dataclass
class DistributedConfig:
    num_processes: int = option(
        1, "training processes; under SLURM nodes times tasks", low=1, also=("nproc", "gpus", "world_size")
    )
    engine: dict[str, Any] | None = option(
        None, "how they share weights and gradients: a _target_ node; null: one process", also=("strategy",)
    )
    first_that_fits: dict[str, Any] | None = option(
        None,
        "where engine is null: name -> a _target_ node, fastest first; chosen before processes start",
        also=("auto",),
    )
    memory_gigabytes: float | None = option(
        None, "of a process's device, for first_that_fits; null: what this machine has", above=0
    )
    reason: str | None = option(None, "why this engine was chosen; written by vlmtrain into config.yaml")
    hang_seconds: float | None = option(
        60.0, "a phase that takes longer, and hang_factor times its longest, ends the run; null: nobody looks", above=0
    )
    hang_factor: float = option(10.0, "how many times its longest a phase may take", low=1)
    hang_limits: dict[str, float | None] = option(
        lambda: dict.fromkeys(("init", "batch", "step", "evaluation", "save", "writing"), 1800.0),
        "phase -> seconds it may take at first; null: it is never judged",
    )


@dataclass
class LauncherConfig:
    kind: str = option("local", "who starts the processes", choices=("local", "slurm"))
    nodes: int = option(1, "machines of the job", low=1, also=("num_nodes",))
    tasks_per_node: int = option(1, "processes on each, one per GPU", low=1, also=("ntasks_per_node",))
    gpus_per_node: int | None = option(None, "GPUs on each; null: as many as tasks, 0: none", low=0)
    cpus_per_task: int = option(8, "cores of each process, its loader workers' among them", low=1)
    time: int | str | None = option(
        None, "time limit: minutes, or 24:00:00; null: the partition's", also=("timeout", "walltime")
    )
    partition: str | None = option(None, "SLURM's partition; null: its default")
    account: str | None = option(None, "who pays")
    qos: str | None = option(None, "quality of service")
    memory: str | None = option(None, "of each machine, such as 200G", also=("mem",))
    seconds_to_save: int = option(180, "how long before the time limit a job is told to save and end", low=10)
    most_requeues: int = option(100, "how often a job that saved goes back into the queue", low=0)
    setup: list[str] = option(list, "lines of shell before it starts: module load cuda, export NCCL_DEBUG=WARN")
    container: list[str] = option(list, 'words before python: [apptainer, exec, "--nv", vlmtrain.sif]')
    srun_options: list[str] = option(list, 'further options of srun: ["--container-image=vlmtrain.sqsh"]')
    options: dict[str, str] = option(dict, "further options of sbatch: {constraint: a100}")
    chain_stages: bool = option(False, "one job per stage, each waiting for the one before, instead of one for all")
    dry_run: bool = option(False, "write the script, submit nothing")
    local_cache: str | None = option(
        None, "folder on each node's own disk that data are copied to, once a node; null: read where they are"
    )
    cached: list[str] = option(lambda: ["path", "folder"], "arguments of data that name what is copied there")


@dataclass
class StageConfig:
    model: dict[str, Any] = option(REQUIRED, "what is trained: a _target_ node")
    objective: dict[str, Any] = option(REQUIRED, "what it should get better at: a _target_ node")
    form: dict[str, Any] = option(REQUIRED, "how a record becomes text and images: a _target_ node")
    data: dict[str, Any] | None = option(None, "this stage's own data: a _target_ node; null: the run's")
    transform: dict[str, Any] = option(
        dict, "ImageTransform's arguments (crop_scale, flip, resize), or a partial _target_"
    )
    trainable: dict[str, float | dict[str, float] | None] = option(
        REQUIRED, "part -> multiple of optimizer.lr, or {from_step: N, rate: multiple}; null freezes"
    )
    trainer: TrainerConfig = option(TrainerConfig, "this stage's own values")
    optimizer: OptimizerConfig = option(OptimizerConfig, "this stage's own values")
    start_from: dict[str, Any] | None = option(dict, "part -> {stage, part} of an earlier stage; null: from nothing")
    evaluation: dict[str, Any] = option(dict, "name -> _target_ node of an evaluation")


@dataclass
class RunConfig:
    experiment: str | None = option(None, "the experiment's name")
    scale: str = option("tiny", "how large: sizes, lengths and batch of the experiment")
    seed: int = option(0, "key of all randomness", low=0)
    shuffle_images: bool = option(False, "train on other samples' images: the control that cannot learn to look")
    run_dir: str | None = option(
        None, "the run's folder; null: runs/<experiment>/<date-hash>", also=("output_dir", "out", "save_dir", "workdir")
    )
    init_from: str | None = option(
        None, "an earlier run's folder to start from, or embedded:NAME", also=("checkpoint", "ckpt")
    )
    run_stages: list[str] | None = option(None, "the stages to run (typed as stages=[a,b]); null: all")
    data: dict[str, Any] = option(REQUIRED, "the data: a _target_ node", also=("dataset",))
    model: dict[str, Any] = option(REQUIRED, "the parts of the model: a _target_ node")
    trainer: TrainerConfig = option(TrainerConfig, "length, batch and housekeeping of every stage")
    optimizer: OptimizerConfig = option(OptimizerConfig, "AdamW and its schedule in every stage", also=("optim",))
    distributed: DistributedConfig = option(DistributedConfig, "processes")
    launcher: LauncherConfig = option(LauncherConfig, "who starts them")
    tracker: dict[str, Any] = option(dict, "name -> _target_ node of a tracker beside metrics.jsonl", also=("logger",))
    stages: dict[str, StageConfig] = option(dict, "what is trained, in order; comes from the experiment")


def list_keys(section: type, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> dataclass field, of `section` and the closed sections below it."""
    keys: dict[str, Any] = {}
    for entry in fields(section):
        keys[prefix + entry.name] = entry
        if isinstance(entry.type, type) and is_dataclass(entry.type):
            keys.update(list_keys(entry.type, f"{prefix}{entry.name}."))
    return keys


def make_defaults(section: type) -> dict[str, Any]:
    """Name -> default of a closed section's own values (sections below it and required ones are left out)."""
    made = {entry.name: default_of(entry) for entry in fields(section)}
    return {name: value for name, value in made.items() if value is not REQUIRED and not is_dataclass(value)}


def default_of(entry: Field[Any]) -> Any:
    """The default of a field, or REQUIRED."""
    return entry.default_factory() if callable(entry.default_factory) else entry.default


def spell_type(entry: Field[Any]) -> str:
    """The field's annotation as it is written."""
    return entry.type.__name__ if type(entry.type) is type else str(entry.type)
