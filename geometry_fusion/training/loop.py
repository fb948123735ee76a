"""The training loop: one for every task, one process or several.

A task knows its model, its batches, its losses and its validation; the loop knows optimisers,
schedules, checkpoints and logs. Everything random in a step is a pure function of (seed, step,
micro-batch, process), so that a resumed run repeats exactly what an uninterrupted one would have
done, and no generator state has to be stored.

Hugging Face Accelerate starts the processes (`accelerate launch` or `torchrun`), wraps the model
for data parallelism and averages gradients; it is the most widely used engine that leaves the loop
ours to read.
"""

import json
import math
import random
import statistics
import time
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from omegaconf import OmegaConf
from tqdm import tqdm

from geometry_fusion.devices import autocast, peak_memory, pick_device
from geometry_fusion.errors import InputError
from geometry_fusion.files import replacing_file
from geometry_fusion.training.checkpoints import load_resume, save_resume, save_weights
from geometry_fusion.training.run_log import RunLog, SilentLog
from geometry_fusion.training.schedule import describe_groups, lr_scale, parameter_groups

SETTLED = 4  # steps after which time and memory are told
# Keys (prefixes) in which a resumed run may differ from the one it continues.
MAY_CHANGE = (
    *(
        f"trainer.{key}"
        for key in ("device", "precision", "threads", "run_dir", "resume", "max_steps", "init_from")
    ),
    *(f"trainer.{key}" for key in ("log_every", "eval_every", "save_every", "eval_first")),
    "trainer.accumulate",  # counted with the processes
    *("data.root", "data.workers", "data.val_scenes", "data.val_seeds", "val_", "validation"),
    *("geometry_cache", "experiment_name", "name"),
)
ANEW = "choose another trainer.run_dir or set trainer.resume=false"
OTHER_DATA = {
    "facts.video": "on other frames or masks than data.frames and data.masks hold now"
}  # a digest says little


class Task(Protocol):
    """What is trained. `score` in the validation result decides which checkpoint is best (larger is
    better).
    """

    model: torch.nn.Module

    def batch(self, rng: np.random.Generator, step: int): ...

    def losses(
        self, model: torch.nn.Module, batch, rng: np.random.Generator
    ) -> dict[str, torch.Tensor]: ...

    def validate(self) -> dict[str, float]: ...

    def pictures(self) -> dict[str, np.ndarray]: ...

    def weights(self) -> dict[str, torch.Tensor]:
        """What a checkpoint shares: all of the model, or only what differs from the backbones it
        names.
        """

    def metadata(self) -> dict: ...


def step_seed(seed: int, step: int, unit: int) -> int:
    """One integer per micro-batch of a step, the same on every run.

    unit: its number among all micro-batches of all processes: two processes compute what one does
    that accumulates two.
    """
    return int(np.random.SeedSequence([seed, step, unit, 0]).generate_state(1)[0])


def units_of(rank: int, processes: int, accumulate: int) -> range:
    """Numbers of the micro-batches that a process draws in every step: over all processes each
    number comes once.
    """
    return range(rank, accumulate * processes, processes)


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def set_modes(model: torch.nn.Module) -> None:
    """Training mode where something is trained, evaluation mode elsewhere: frozen norms keep their
    statistics too.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def run_identity(config: dict, facts: dict, units: int) -> dict[str, str]:
    """What a run must share with the one it resumes: dotted key -> value. Where things lie and how
    often they are logged may change, and which process draws which of the `units` micro-batches of
    a step."""
    flat = {}

    def visit(prefix: str, value) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(f"{prefix}.{key}" if prefix else str(key), inner)
        elif not prefix.startswith(MAY_CHANGE):
            flat[prefix] = json.dumps(value)

    visit("", {k: v for k, v in config.items() if k not in ("trainable_presets",)})
    visit("facts", facts)
    flat["processes x trainer.accumulate"] = str(units)
    return flat


def train(
    task: Task,
    run_dir: Path,
    config: dict,
    *,
    device: str,
    precision: str,
    max_steps: int,
    trainable: Mapping[str, float],
    seed: int,
    resume: bool,
    accumulate: int,
    weight_decay: float,
    grad_clip: float,
    warmup_steps: int,
    final_lr_scale: float,
    log_every: int,
    eval_every: int,
    save_every: int,
    eval_first: bool = False,
) -> dict[str, float]:
    """Train `task` until `max_steps` and return the last validation; with no steps left, only
    validate.

    eval_first: validate before the first step as well, and let what was there before compete for
    checkpoint_best.

    config: the resolved config, written to run_dir/config.yaml and into the checkpoints. Also
    writes run_dir/checkpoints/{checkpoint_last,checkpoint_best}.safetensors and resume.pt, logs and
    TensorBoard events. Raises InputError when the loss is not finite (naming the batch) or when the
    run to resume does not fit.
    """
    wanted = pick_device(device)
    accelerator = Accelerator(
        cpu=wanted.type == "cpu",
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            # The first process validates while the others wait; NCCL's own patience is ten minutes.
            InitProcessGroupKwargs(timeout=timedelta(hours=12)),
        ],
    )
    first = accelerator.is_main_process
    units = units_of(accelerator.process_index, accelerator.num_processes, accumulate)
    groups = parameter_groups(task.model, trainable, weight_decay)
    optimizer = torch.optim.AdamW(groups)
    resume_file = run_dir / "checkpoints" / "resume.pt"
    identity = run_identity(config, task.metadata(), accumulate * accelerator.num_processes)
    start, best = 0, float("-inf")
    if resume and resume_file.exists():
        start, best = _restore(resume_file, task.model, optimizer, identity)
    model = accelerator.prepare(task.model)
    log = RunLog(run_dir, start) if first else SilentLog()
    if (
        first
    ):  # only now: a run that cannot start or resume must not replace the config of an earlier one
        with replacing_file(run_dir / "config.yaml") as fresh:
            fresh.write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    for line in [*getattr(task, "notes", ()), *describe_groups(groups)]:
        log.say(line)
    trained = sum(p.numel() for group in groups for p in group["params"])
    log.say(f"trains {trained:,} of {sum(p.numel() for p in task.model.parameters()):,} parameters")
    log.say(
        f"device {accelerator.device}, {accelerator.num_processes} process(es), steps {start} to "
        f"{max_steps}"
    )

    def validated(step: int, totals: dict[str, float]) -> dict[str, float]:
        result = task.validate()
        log.record(step, "val", result)
        shown = (
            f"{k} {v}" if isinstance(v, int) else f"{k} {v:.4f}"
            for k, v in {**totals, **result}.items()
        )
        log.say(f"step {step}: " + " ".join(shown))
        for name, picture in task.pictures().items():
            log.image(step, name, picture)
        return result

    result: dict[str, float] = {}
    if first and start < max_steps and start == 0 and eval_first:
        result = validated(0, {})
        best = result["score"]
        metadata = {**task.metadata(), "config": config, "step": 0, "metrics": result}
        save_weights(
            run_dir / "checkpoints" / "checkpoint_best.safetensors", task.weights(), metadata
        )
    accelerator.wait_for_everyone()
    seconds: list[float] = []
    bar = tqdm(total=max_steps, initial=start, unit="step", disable=None if first else True)
    for step in range(start, max_steps):
        began = time.perf_counter()
        scale = lr_scale(step, max_steps, warmup_steps, final_lr_scale)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        set_modes(task.model)
        totals: dict[str, float] = {}
        for unit in units:
            unit_seed = step_seed(seed, step, unit)
            seed_all(unit_seed)
            rng = np.random.default_rng(unit_seed)
            batch = task.batch(rng, step).to(accelerator.device)
            with nullcontext() if unit == units[-1] else accelerator.no_sync(model):
                with autocast(accelerator.device, precision):
                    losses = task.losses(model, batch, rng)
                _stop_if_not_finite(losses["total"], step, batch)
                accelerator.backward(losses["total"] / accumulate)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach()) / accumulate
        grad_norm = accelerator.clip_grad_norm_(task.model.parameters(), grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        done = step + 1
        bar.update()
        seconds.append(time.perf_counter() - began)
        if len(seconds) == SETTLED and done < max_steps:
            pace = statistics.median(seconds[1:])  # the first step also starts the machine
            memory = peak_memory(accelerator.device) / 2**30
            minutes = math.ceil(pace * (max_steps - done) / 60)
            log.say(
                f"{pace:.1f} s a step, about {minutes} min for the {max_steps - done} steps left, "
                f"validation not counted; peak memory so far {memory:.1f} GB"
            )
        if done % log_every == 0 or done == max_steps:
            speed = {
                "lr_scale": scale,
                "grad_norm": float(grad_norm),
                "seconds": time.perf_counter() - began,
            }
            log.record(done, "train", {**totals, **speed})
            bar.set_postfix(loss=f"{totals['total']:.3f}")
        evaluated = done % eval_every == 0 or done == max_steps
        if first and evaluated:
            result = validated(done, totals)
        if first and (evaluated or done % save_every == 0):
            metadata = {**task.metadata(), "config": config, "step": done, "metrics": result}
            weights = task.weights()
            if evaluated and result["score"] > best:
                best = result["score"]
                save_weights(
                    run_dir / "checkpoints" / "checkpoint_best.safetensors", weights, metadata
                )
            save_weights(run_dir / "checkpoints" / "checkpoint_last.safetensors", weights, metadata)
            state = {
                "model": task.model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": done,
                "best": best,
            }
            state["identity"] = identity
            save_resume(resume_file, state)
        accelerator.wait_for_everyone()
    bar.close()
    if first and start >= max_steps:  # nothing to train: only measure
        if start:
            log.say(
                f"complete at step {start}: raise trainer.max_steps, or choose another "
                "trainer.run_dir to train anew"
            )
        result = validated(start, {})
    log.close()
    return result


def _restore(
    file: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, str]
) -> tuple[int, float]:
    """Load a resume file into `model` and `optimizer`; returns its step and its best score so
    far.
    """
    state = load_resume(file)
    before = state.get("identity", identity)
    if not isinstance(before, dict):
        raise InputError(f"{file}: holds no resumable run (identity {before!r}); {ANEW}")
    for key in sorted(before.keys() | identity.keys()):
        if before.get(key) != identity.get(key):
            other = f"with {key}={before.get(key)}, this run has {identity.get(key)}"
            raise InputError(f"{file}: was trained {OTHER_DATA.get(key, other)}; {ANEW}")
    step, best = state.get("step"), state.get("best")
    if not (
        type(step) is int and step >= 0 and isinstance(best, int | float) and not math.isnan(best)
    ):
        raise InputError(f"{file}: holds no resumable run (step {step!r}, best {best!r}); {ANEW}")
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        _check_shapes(optimizer)
    except Exception:  # torch meets edited states with errors of every kind
        raise InputError(
            f"{file}: holds another model or other trainable parts than this config; {ANEW}"
        ) from None
    return step, best


def _check_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError for moments of other shapes than their parameters', which torch would only
    meet in a step.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if torch.is_tensor(value) and value.dim() and value.shape != parameter.shape:
                raise ValueError(
                    f"{name} is {tuple(value.shape)}, its parameter {tuple(parameter.shape)}"
                )


def _stop_if_not_finite(loss: torch.Tensor, step: int, batch) -> None:
    if not torch.isfinite(loss):
        raise InputError(
            f"loss is {float(loss)} at step {step}, batch: {'; '.join(batch.sources)}. The last "
            "checkpoint is intact: "
            "lower the learning rates in trainer.trainable or look at these frames, then resume"
        )
