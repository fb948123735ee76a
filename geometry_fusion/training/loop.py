"""The training loop: one for every task, on one process or several.

A task defines its model, batches, losses and validation. The loop handles optimisers,
schedules, checkpoints and logs. Everything random in a step is a pure function of (seed, step,
micro-batch), so a resumed run repeats exactly what an uninterrupted one would have done, and no
generator state has to be stored.

Hugging Face Accelerate starts the processes (`accelerate launch` or `torchrun`), wraps the model
for data parallelism and averages gradients. It is the most widely used engine that leaves the loop
ours to read.
"""

import random
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from tqdm import tqdm

from geometry_fusion.devices import autocast, pick_device
from geometry_fusion.errors import InputError
from geometry_fusion.training.run import Pace, Run
from geometry_fusion.training.schedule import describe_groups, lr_scale, parameter_groups
from geometry_fusion.training.task import Task


def step_seed(seed: int, step: int, unit: int) -> int:
    """The seed of one micro-batch of a step, the same on every run.

    unit: its number among the micro-batches of all processes. Two processes therefore compute what
    one process computes that accumulates two micro-batches.
    """
    return int(np.random.SeedSequence([seed, step, unit, 0]).generate_state(1)[0])


def units_of(rank: int, processes: int, accumulate: int) -> range:
    """Numbers of the micro-batches of a step that the process `rank` draws.

    Over all processes every number from 0 to accumulate * processes - 1 occurs once.
    """
    return range(rank, accumulate * processes, processes)


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def set_modes(model: torch.nn.Module) -> None:
    """Training mode, but evaluation mode for modules that are entirely frozen.

    Frozen normalisation layers so keep their running statistics too.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


@dataclass(frozen=True)
class TrainerOptions:
    """The settings of the loop: the keys under `trainer` in the configs, which explain them."""

    device: str
    precision: str
    max_steps: int
    trainable: Mapping[str, float]  # module or parameter prefix -> learning rate
    seed: int
    resume: bool
    accumulate: int  # micro-batches per step and process
    weight_decay: float
    grad_clip: float  # largest norm of all gradients together
    warmup_steps: int
    final_lr_scale: float
    log_every: int  # steps, as the next two
    eval_every: int
    save_every: int
    eval_first: bool = False  # also validate the initial weights; they may stay the best ones


def train(task: Task, run_dir: Path, config: dict, **options) -> dict[str, float]:
    """Train `task` for `max_steps` steps, those of a resumed run included; with none left, only
    validate. Returns the last validation.

    config: the resolved config, written to run_dir/config.yaml and into the checkpoints. options:
    see TrainerOptions.

    Also writes run_dir/checkpoints/{checkpoint_last,checkpoint_best}.safetensors and resume.pt,
    logs and TensorBoard events. Raises InputError when the loss is not finite (naming the batch),
    and when the run to resume does not match this one.
    """
    options = TrainerOptions(**options)
    max_steps = options.max_steps
    accelerator = _start_accelerator(options.device)
    task.model.to(accelerator.device)  # first: a resumed optimizer's state follows its parameters
    groups = parameter_groups(task.model, options.trainable, options.weight_decay)
    optimizer = torch.optim.AdamW(groups)
    run = Run(task, run_dir, config, options.accumulate, accelerator)
    start = run.restore(optimizer) if options.resume else 0
    model = accelerator.prepare(task.model)
    run.open_log(start)
    _log_setup(run, groups, start, max_steps)
    if start == 0 and options.eval_first and max_steps > 0:
        run.validate(0, {})
        run.save_best(0)
    accelerator.wait_for_everyone()
    pace = Pace()
    bar = tqdm(total=max_steps, initial=start, unit="step", disable=None if run.is_first else True)
    for step in range(start, max_steps):
        began = time.perf_counter()
        scale = lr_scale(step, max_steps, options.warmup_steps, options.final_lr_scale)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        losses = _backward(task, model, step, options, accelerator)
        grad_norm = accelerator.clip_grad_norm_(task.model.parameters(), options.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        done = step + 1
        is_last = done == max_steps
        bar.update()
        pace.add(time.perf_counter() - began)
        if pace.is_known and not is_last:
            run.log.write(pace.estimate(max_steps - done, accelerator.device))
        if done % options.log_every == 0 or is_last:
            seconds = time.perf_counter() - began
            speed = {"lr_scale": scale, "grad_norm": float(grad_norm), "seconds": seconds}
            run.log.record(done, "train", {**losses, **speed})
            bar.set_postfix(loss=f"{losses['total']:.3f}")
        evaluates = done % options.eval_every == 0 or is_last
        if evaluates:
            run.validate(done, losses)
        if evaluates or done % options.save_every == 0:
            run.save(done, optimizer, may_be_best=evaluates)
        accelerator.wait_for_everyone()
    bar.close()
    if start >= max_steps:
        run.only_validate(start)
    run.log.close()
    return run.result


def _backward(
    task: Task,
    model: torch.nn.Module,
    step: int,
    options: TrainerOptions,
    accelerator: Accelerator,
) -> dict[str, float]:
    """Add the gradients of this process's micro-batches of a step; returns their mean losses."""
    set_modes(task.model)
    units = units_of(accelerator.process_index, accelerator.num_processes, options.accumulate)
    means: dict[str, float] = {}
    for unit in units:
        unit_seed = step_seed(options.seed, step, unit)
        seed_all(unit_seed)
        rng = np.random.default_rng(unit_seed)
        batch = task.batch(rng, step).to(accelerator.device)
        # Processes exchange their gradients once a step, after the last micro-batch.
        with nullcontext() if unit == units[-1] else accelerator.no_sync(model):
            with autocast(accelerator.device, options.precision):
                losses = task.losses(model, batch, rng)
            _stop_if_not_finite(losses["total"], step, batch)
            accelerator.backward(losses["total"] / options.accumulate)
        for name, value in losses.items():
            means[name] = means.get(name, 0.0) + float(value.detach()) / options.accumulate
    return means


def _start_accelerator(device: str) -> Accelerator:
    return Accelerator(
        cpu=pick_device(device).type == "cpu",
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            # The first process validates while the others wait; NCCL gives up after ten minutes.
            InitProcessGroupKwargs(timeout=timedelta(hours=12)),
        ],
    )


def _log_setup(run: Run, groups: list[dict], start: int, max_steps: int) -> None:
    """Log what is trained, at which rates, and on what."""
    for line in [*getattr(run.task, "notes", ()), *describe_groups(groups)]:
        run.log.write(line)
    trained = sum(p.numel() for group in groups for p in group["params"])
    total = sum(p.numel() for p in run.task.model.parameters())
    run.log.write(f"trains {trained:,} of {total:,} parameters")
    machine = f"device {run.accelerator.device}, {run.accelerator.num_processes} process(es)"
    run.log.write(f"{machine}, steps {start} to {max_steps}")


def _stop_if_not_finite(loss: torch.Tensor, step: int, batch) -> None:
    if not torch.isfinite(loss):
        raise InputError(
            f"loss is {float(loss)} at step {step}, batch: {'; '.join(batch.sources)}. The last "
            "checkpoint is intact: lower the learning rates in trainer.trainable or look at these "
            "frames, then resume"
        )
