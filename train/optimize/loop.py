"""The loop over iterations of one chunk, and what becomes of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from deepsim.train.optimize.chunk import Chunk
from deepsim.train.optimize.evaluation import Evaluated, Wanted
from deepsim.train.optimize.job import Job
from deepsim.train.optimize.lockstep import Array, minimise
from deepsim.train.optimize.outcome import Outcome
from deepsim.train.optimize.pictures import uint8
from deepsim.train.optimize.rules import Rule, ppgn_direction


class Watcher(Protocol):
    """Is told of every iteration; may save, log, draw, or raise to end the run."""

    def begin(self, chunk: Chunk, rule: Rule) -> None:
        """A chunk begins; an earlier run's state may be put into it."""
        ...

    def iterated(self, chunk: Chunk, rule: Rule, found: Evaluated | None) -> None:
        """An iteration is over; what it found, None where an earlier run has told of it."""
        ...

    def replay(self) -> Iterator[tuple[Array, Array]]:
        """Yield what an earlier run of L-BFGS-B evaluated, in its order: losses (n,) and gradients (n, d)."""
        ...

    def evaluated(self, losses: Array, gradients: Array) -> None:
        """L-BFGS-B evaluated some rows."""
        ...


def optimise_chunk(job: Job, numbers: range, watcher: Watcher) -> Outcome:
    """Optimise the targets ``numbers``, all their starts together, and choose each one's best start."""
    with job.place.exactly():
        return _optimise_chunk(job, numbers, watcher)


def _optimise_chunk(job: Job, numbers: range, watcher: Watcher) -> Outcome:
    settings, pictures = job.evaluator.settings, job.evaluator.pictures
    wanted, rule = job.wanted(numbers), job.rule()
    chunk = Chunk.begin(job.streams(numbers), settings, pictures.shape, job.place)
    rule.begin(chunk.variable)
    watcher.begin(chunk, rule)
    (_by_lbfgs if settings.optimizer == "lbfgs" else _by_rule)(job, chunk, wanted, rule, watcher)
    return _outcome(job, numbers, chunk)


def _by_rule(job: Job, chunk: Chunk, wanted: Wanted, rule: Rule, watcher: Watcher) -> None:
    settings = job.evaluator.settings
    while chunk.iteration < settings.iterations and not chunk.is_over:
        found, gradient = _look(job, chunk, wanted)
        last = chunk.iteration + 1 == settings.iterations
        if last and settings.keep != "final":
            chunk.iteration += 1  # no update: nobody would see it
        else:
            chunk.move(rule.advance(chunk.variable, gradient, chunk.iteration))
        watcher.iterated(chunk, rule, found)
    if settings.keep == "final" and not chunk.is_over:
        _note(chunk, job.evaluator.evaluate(chunk.variable, wanted))


def _look(job: Job, chunk: Chunk, wanted: Wanted) -> tuple[Evaluated, Tensor]:
    """Evaluate the variables of this iteration; return what was found and the gradient to step by."""
    settings, iteration, shape = job.evaluator.settings, chunk.iteration, chunk.variable.shape[1:]
    looked_at, spread = chunk.variable, settings.at("disturbance", iteration)
    if spread:
        drawn = [stream.disturbance(iteration, shape) for stream in chunk.streams]
        looked_at = looked_at + spread * job.place.put(torch.stack(drawn))
    shifts = []
    if settings.jitter and iteration < settings.jitter_until:
        shifts = [stream.shift(iteration, settings.jitter) for stream in chunk.streams]
    found = job.evaluator.evaluate(looked_at, wanted, shifts)
    _note(chunk, found)
    gradient = torch.where(_rows(chunk.ended < 0, found.gradient), found.gradient, torch.zeros_like(found.gradient))
    if found.again is not None:
        gradient = ppgn_direction(settings, chunk.variable, gradient, found.again, chunk.streams, iteration)
    return found, gradient


def _note(chunk: Chunk, found: Evaluated) -> None:
    finite = found.gradient.flatten(1).isfinite().all(1) & found.loss.isfinite()
    chunk.note(found.loss, found.layers, finite)


def _by_lbfgs(job: Job, chunk: Chunk, wanted: Wanted, rule: Rule, watcher: Watcher) -> None:
    """Let SciPy take the steps; ``chunk.iteration`` counts evaluations."""
    shape, earlier = chunk.variable.shape[1:], watcher.replay()

    def evaluate(rows: list[int], variables: Array) -> tuple[Array, Array]:
        chosen = torch.tensor(rows, device=job.place.device)
        asked = job.place.put(torch.from_numpy(variables).view(-1, *shape))
        there, found = next(earlier, None), None
        if there is not None:
            losses, gradients = there
        else:
            found = job.evaluator.evaluate(asked, wanted.rows(chosen))
            losses, gradients = (_array(values) for values in (found.loss, found.gradient.flatten(1)))
            watcher.evaluated(losses, gradients)
        _note_rows(chunk, chosen, asked, losses, gradients, found)
        watcher.iterated(chunk, rule, found)
        return losses, gradients

    begun = _array(rule.clip(chunk.variable)).reshape(len(chunk.streams), -1)
    lower, upper = (None if limit is None else _array(limit.expand(shape)).ravel() for limit in job.bounds)
    found = minimise(evaluate, begun, (lower, upper), job.evaluator.settings.iterations)
    for row, minimum in enumerate(found):
        if minimum is not None:
            variable = job.place.put(torch.from_numpy(minimum.variable).view(shape))
            chunk.kept[row], chunk.kept_loss[row] = variable, minimum.loss


def _note_rows(
    chunk: Chunk, chosen: Tensor, asked: Tensor, losses: Array, gradients: Array, found: Evaluated | None
) -> None:
    """Take down the losses of some rows; the others keep what they have."""
    device = asked.device
    usable = torch.ones_like(chunk.ended, dtype=torch.bool)
    usable[chosen] = torch.from_numpy(np.isfinite(gradients).all(1) & np.isfinite(losses)).to(device)
    chunk.variable = chunk.variable.index_copy(0, chosen, asked)
    loss = chunk.kept_loss.index_copy(0, chosen, torch.from_numpy(losses).to(chunk.kept_loss))
    layers = {
        tap: chunk.layers.get(tap, torch.full_like(loss, torch.nan)).index_copy(0, chosen, values)
        for tap, values in (found.layers if found else {}).items()
    }
    chunk.note(loss, layers, usable)
    chunk.iteration += 1


def _array(values: Tensor) -> Array:
    return values.double().cpu().numpy()


def _rows(chosen: Tensor, like: Tensor) -> Tensor:
    return chosen.view(-1, *[1] * (like.ndim - 1))


def _outcome(job: Job, numbers: range, chunk: Chunk) -> Outcome:
    """Choose the start with the lowest loss of each target, and draw the pictures."""
    best = job.evaluator.settings.keep == "best"
    codes, losses = (chunk.best, chunk.best_loss) if best else (chunk.kept, chunk.kept_loss)
    table = losses.double().cpu().view(len(numbers), job.starts)
    starts = table.argmin(1)  # of the first of equals
    rows = (torch.arange(len(numbers)) * job.starts + starts).to(job.place.device)
    chosen = codes[rows]
    found = table.gather(1, starts[:, None])[:, 0]
    ended, iterations = chunk.ended[rows].tolist(), chunk.iteration
    full, images = draw(job, chosen)
    return Outcome(
        names=tuple(job.targets.names[number] for number in numbers),
        codes=chosen.float().cpu().numpy(),
        images=images,
        full=full,
        losses=torch.where(found.isfinite(), found, torch.nan).numpy(),
        starts=starts.numpy(),
        iterations=np.array([iterations if when < 0 else when for when in ended], np.int64),
        ended=np.array(ended, np.int64) + 1,
        layer_losses={tap: values[rows].double().cpu().numpy() for tap, values in chunk.layers.items()},
    )


def draw(job: Job, variables: Tensor) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Return the pictures of variables as uint8 RGB, whole and as the encoder sees them."""
    pictures, view = job.evaluator.pictures, job.evaluator.view
    full, seen = [], []
    for part in torch.split(variables, job.evaluator.at_once):
        drawn = pictures.run(part).output.detach()
        full.append(uint8(drawn, pictures.pixels))
        seen.append(uint8(view.cut(drawn), pictures.pixels))
    return torch.cat(full).numpy(), torch.cat(seen).numpy()


class NoWatcher:
    """A watcher that does nothing."""

    def begin(self, chunk: Chunk, rule: Rule) -> None:
        """Do nothing."""

    def iterated(self, chunk: Chunk, rule: Rule, found: Evaluated | None) -> None:
        """Do nothing."""

    def replay(self) -> Iterator[tuple[Array, Array]]:
        """Yield nothing."""
        return iter(())

    def evaluated(self, losses: Array, gradients: Array) -> None:
        """Do nothing."""
