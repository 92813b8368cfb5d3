"""The training loop: data in, steps, and on the way logs, pictures, validation and checkpoints."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepsim.runtime.errors import NumericError, OutOfMemory, UsageError
from deepsim.runtime.files import real_target, sha256, write_atomic
from deepsim.runtime.images import save_png
from deepsim.runtime.locks import locked
from deepsim.runtime.metrics import normalized_error
from deepsim.runtime.run_folder import (
    CALIBRATION,
    CLOCK,
    COMPARATOR,
    CONFIG,
    DATA,
    ENCODER,
    LOCK,
    MEAN_IMAGE,
    STATE,
    checkpoint_folder,
    write_photographs,
)
from deepsim.train.calibration import calibrated
from deepsim.train.checkpoints import (
    load_checkpoint,
    load_newest,
    mark_best,
    newest_checkpoints,
    save_checkpoint,
)
from deepsim.train.clock import Clock, Elapsed, read_clock, write_clock
from deepsim.train.config import TrainConfig, begun_run
from deepsim.train.data import Dataset, batches, mean_image, scan, validation_batch
from deepsim.train.distributed import World, lost_peers
from deepsim.train.held_out import PREVIEW, read_record
from deepsim.train.latent import code_figures
from deepsim.train.models import Models, build_models
from deepsim.train.networks import resized, to_image_space, to_pixels
from deepsim.train.signals import Signals
from deepsim.train.step import Losses, train_step
from deepsim.train.telemetry import Telemetry
from deepsim.train.weights import write_weights

_log = logging.getLogger("deepsim")


@dataclass(frozen=True)
class Run:
    """Where a run lives and what it trains on. ``resume``: "auto", "never" or a checkpoint folder.

    ``record`` is what data.json keeps of the images (see :mod:`deepsim.train.held_out`).
    """

    folder: Path
    dataset: Dataset
    validation: Dataset
    device: torch.device
    world: World = field(default_factory=World)
    resume: str = "never"
    workers: int = 0
    quiet: bool = False
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the last finished step, its checkpoint, and the signal that stopped it (None: it is done).

    ``seconds`` is the time that it trained, over all its resumptions.
    """

    step: int
    checkpoint: Path
    signal: int | None
    seconds: float = 0.0


def train(config: TrainConfig, run: Run) -> Outcome:
    """Train for ``config.steps`` or ``config.minutes`` or until a signal; ends with a checkpoint of the last step.

    Raises UsageError when the folder holds a run and ``resume`` is "never", or while another process trains in it;
    CheckpointError for unusable weights, DataError for unusable photographs, NumericError (naming step and batch) when
    a loss or gradient is not finite.
    """
    with Signals() as signals, _kept_to_itself(run), lost_peers(run.world):
        return _train(config, run, signals)


def _kept_to_itself(run: Run) -> AbstractContextManager[None]:
    """Lock the run's folder against another training; of several processes of one training the main one does."""
    return locked(real_target(run.folder) / LOCK, str(run.folder)) if run.world.is_main else nullcontext()


def _train(config: TrainConfig, run: Run, signals: Signals) -> Outcome:
    torch.use_deterministic_algorithms(config.deterministic)
    if run.resume == "never" and newest_checkpoints(run.folder):
        raise UsageError(f"{run.folder}: holds a run already. Pass --resume auto to go on, or choose another --output.")
    saved = None if run.resume == "never" else begun_run(run.resume, run.folder)
    models = build_models(config, run.device, run.world, saved)
    start, best = _resume(run, models)
    _require_newest(run, start)
    scan(run.dataset)
    config = models.config = _calibrated(config, run, models, saved)
    photos = validation_batch(run.validation, min(PREVIEW, len(run.validation)), models.geometry.framing).numpy()
    best = _best_of_same(photos, saved, best)
    if run.world.is_main:
        _write_static_files(config, run, models, photos)
    clock = Clock(config.minutes, _elapsed(config, saved, run, start))
    telemetry = Telemetry(run.folder, start, config.steps, run.quiet) if run.world.is_main else None
    progress = _Progress(models, run, telemetry, photos, start, best, clock)
    try:
        with _memory_errors(config):
            return progress.run_to_the_end(signals)
    finally:
        if telemetry is not None:
            telemetry.close()


def _calibrated(config: TrainConfig, run: Run, models: Models, saved: Path | None) -> TrainConfig:
    """Return the settings with the weight that a calibration finds on the run's first batches, and say so."""
    framing, size = models.geometry.framing, config.batch // run.world.size
    first = batches(run.dataset, framing, size, config.seed, 0, mirror=config.mirror, zoom=config.zoom)
    found = calibrated(models, first, run.folder, saved)
    if found.lambda_feat != config.lambda_feat and run.world.is_main and not run.quiet:
        words = f"The feature loss has the weight {found.lambda_feat:.4g}, as strong as {config.lambda_feat:g} of pool5"
        print(f"{words} ({run.folder / CALIBRATION}).", file=sys.stderr, flush=True)
    return found


@contextmanager
def _memory_errors(config: TrainConfig) -> Iterator[None]:
    """Turn a lack of memory on the host or the GPU, which PyTorch says in several ways, into OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = " ".join(str(error).split())
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "can't allocate memory" not in text:
            raise
        raise OutOfMemory(
            f"batch {config.batch}, width {config.width:g}: not enough memory ({text[:200]}). Use smaller ones."
        ) from error


class _Progress:
    """The state of the loop: which step is next, and when something is due."""

    def __init__(
        self,
        models: Models,
        run: Run,
        telemetry: Telemetry | None,
        photos: NDArray[np.uint8],
        start: int,
        best: float | None,
        clock: Clock,
    ) -> None:
        self.models, self.run, self.telemetry, self.photos = models, run, telemetry, photos
        self.step, self.best, self.clock = start, best, clock
        self.ended = False  # by the clock, after a step that nobody knew to be the last
        self.losses: tuple[Losses, float] | None = None  # of the last step, and its seconds
        self._saved = start if (self._checkpoint(start) / STATE).exists() else -1  # loaded from there, or not at all
        self._validated: tuple[int, float | None] = (-1, None)  # the last step that was validated, and its error

    def run_to_the_end(self, signals: Signals) -> Outcome:
        """Train step by step; the loop to read first."""
        config, world, device = self.models.config, self.run.world, self.models.device
        self._foresee_the_end()
        for photos in self._batches():
            if 0 < config.steps <= self.step or world.any(signals.stop is not None or self.clock.is_over, device):
                break
            began = time.perf_counter()
            self.models.time_share = self._time_share()
            torch.manual_seed(step_seed(config.seed, self.step, world.rank))  # dropout: a function of the step alone
            try:
                losses = train_step(self.models, photos.to(device, non_blocking=True))
            except NumericError as error:
                first = self.step * config.batch
                where = f"step {self.step}, images {first} to {first + config.batch - 1} of the run"
                raise NumericError(f"{where}: {error}") from error
            self.step += 1
            self.clock.end_step()
            self.losses = losses, time.perf_counter() - began
            self._log(*self.losses)
            if self._due(config.checkpoint_every) or world.any(signals.save, device):
                signals.save = False
                self._save()
            self.clock.begin_step()
        if config.minutes and self.losses is not None:
            self._end_by_the_clock(*self.losses)
        return Outcome(self.step, self._save(), signals.stop, self.clock.seconds)

    def _end_by_the_clock(self, losses: Losses, seconds: float) -> None:
        """Make everything due after the last step, as it is after the last of ``config.steps``."""
        validated = self._validated[0] == self.step
        if self.telemetry is None or (validated and self._due(self.models.config.image_every)):
            return
        self.ended, self._validated = True, (-1, None)
        if validated:
            self._validate()  # for the pictures, the rest is in the log
        else:
            self._log(losses, seconds)

    def _foresee_the_end(self) -> None:
        """Time what a run by the clock ends with, so that it stops early enough; this is not training time."""
        if self.models.config.minutes and self.run.world.is_main:
            began = time.perf_counter()
            reconstruct(self.models, self.photos)
            self.clock.time_validation(time.perf_counter() - began)
            self.clock.expect_checkpoint(checkpoint_bytes(self.models))
        self.clock.start()

    def _time_share(self) -> float:
        """Return the share of the run's minutes that has passed, the same in all processes."""
        if not self.models.config.minutes:
            return 0.0
        return float(self.run.world.mean(torch.tensor(self.clock.share, device=self.models.device)))

    def _batches(self) -> Iterator[Tensor]:
        config, world = self.models.config, self.run.world
        return batches(
            self.run.dataset,
            self.models.geometry.framing,
            config.batch // world.size,
            config.seed,
            self.step,
            mirror=config.mirror,
            zoom=config.zoom,
            rank=world.rank,
            world_size=world.size,
            workers=self.run.workers,
        )

    def _log(self, losses: Losses, seconds: float) -> None:
        """Validate and log the last step where that is due."""
        config, pausing = self.models.config, self.models.pausing
        if self.telemetry is None:
            return
        if not self.ended:
            self.telemetry.advance()
        record: dict[str, float | bool | None] = {
            "step": self.step,
            **losses,
            "learning_rate": self.models.generator.optimizer.param_groups[0]["lr"],
            "images_per_second": round(config.batch / seconds, 2),
            "discriminator_trains": pausing.discriminator_trains,
            "generator_trains": pausing.generator_trains,
        }
        if config.minutes:
            record["seconds_left"] = round(self.clock.left, 1)
        if self._due(config.validate_every) or self._due(config.image_every):
            record["validation_error"] = self._validate()
            with self.models.averaged():
                record |= code_figures(self.models.encoder, self.photos)
        if self._due(config.log_every) or "validation_error" in record:
            self.telemetry.log(record)

    def _validate(self) -> float | None:
        """Reconstruct the preview photographs and save a grid when due; return their normalised image error.

        The error is None for a single photograph (or equal ones): there are no pairs to normalise with.
        """
        if self._validated[0] != self.step:
            self._validated = (self.step, self._validation_error())
        return self._validated[1]

    def _validation_error(self) -> float | None:
        began = time.perf_counter()
        images = reconstruct(self.models, self.photos)
        if self.telemetry is not None and self._due(self.models.config.image_every):
            self.telemetry.grid(self.step, self.photos, images)
        self.clock.time_validation(time.perf_counter() - began)
        if len(self.photos) < 2 or (self.photos == self.photos[0]).all():
            return None
        flat = self.photos.reshape(len(self.photos), -1).astype(np.float32)
        return normalized_error(images.reshape(flat.shape).astype(np.float32), flat)

    def _save(self) -> Path:
        path = self._checkpoint(self.step)
        if not self.run.world.is_main or self._saved == self.step:
            return path
        error = self._validate()
        began = time.perf_counter()
        is_best = error is not None and (self.best is None or error < self.best)
        self.best = error if is_best else self.best
        write_clock(self.run.folder, path.name, self.clock.elapsed)
        save_checkpoint(path, self.models, self.step, self.best)
        self._saved = self.step
        if is_best:
            mark_best(path)
        self.clock.time_checkpoint(time.perf_counter() - began)
        return path

    def _checkpoint(self, step: int) -> Path:
        return checkpoint_folder(self.run.folder, step)

    def _due(self, every: int) -> bool:
        return self.ended or self.step % every == 0 or self.step == self.models.config.steps


def checkpoint_bytes(models: Models) -> int:
    """Return about how many bytes a checkpoint has: every trained weight and two moments of it, in float32."""
    players = models.players.values()
    return sum(12 * parameter.numel() for player in players for parameter in player.module.parameters())


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of everything random in one step of one process, a function of these three alone."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


@torch.no_grad()
def reconstruct(models: Models, photos: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode and decode uint8 RGB photographs (N, side, side, 3) as a bundle of the networks would do it now."""
    images = to_image_space(torch.from_numpy(photos).to(models.device))
    with models.averaged():
        decoded = models.generate(models.encode(images))
    pixels: NDArray[np.uint8] = to_pixels(resized(decoded, models.geometry.side)).cpu().numpy()
    return pixels


def _resume(run: Run, models: Models) -> tuple[int, float | None]:
    """Return the step to start at and the best validation error so far."""
    if run.resume == "never":
        return 0, None
    state = load_newest(run.folder, models) if run.resume == "auto" else load_checkpoint(Path(run.resume), models)
    return (0, None) if state is None else (state["step"], state["best_error"])


def _elapsed(config: TrainConfig, saved: Path | None, run: Run, start: int) -> Elapsed:
    """Return how long a resumed run has trained up to its step ``start``."""
    if saved is None or start == 0:
        return Elapsed()
    name = checkpoint_folder(saved, start).name if run.resume == "auto" else Path(run.resume).resolve().name
    elapsed = read_clock(saved, name)
    if elapsed is None and config.minutes:
        _log.warning("%s: has no time for step %d. The %g minutes begin there.", saved / CLOCK, start, config.minutes)
    return elapsed or Elapsed()


def _best_of_same(photos: NDArray[np.uint8], saved: Path | None, best: float | None) -> float | None:
    """Return the best error so far if it is of the same validation images, else None."""
    before = None if saved is None else (read_record(saved) or {}).get("validation_sha256")
    if best is None or before in (None, sha256(photos.tobytes())):
        return best
    _log.warning("%s: validated on other images so far. The best checkpoint is sought anew.", saved)
    return None


def _require_newest(run: Run, start: int) -> None:
    """Raise UsageError when a named checkpoint would go on in a folder that holds later ones."""
    later = [
        path.name for path in newest_checkpoints(run.folder) if path.name > checkpoint_folder(run.folder, start).name
    ]
    if later and run.resume != "auto":
        raise UsageError(f"{run.folder}: holds {later[0]}, later than {run.resume}. Choose another --output.")


def _write_static_files(config: TrainConfig, run: Run, models: Models, photos: NDArray[np.uint8]) -> None:
    """Write what does not change while a run trains: settings, previews, frozen weights, mean image."""
    run.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(run.folder / CONFIG, config.to_json())
    described = {"training": run.dataset.description, "validation": run.validation.description}
    record = {**described, **run.record, "validation_sha256": sha256(photos.tobytes())}
    write_atomic(run.folder / DATA, json.dumps(record, indent=2) + "\n")
    write_photographs(run.folder, photos)
    if models.learner is None:
        write_weights(run.folder / ENCODER, models.encoder.state_dict())
    if models.comparator is not None and models.comparator is not models.encoder:
        write_weights(run.folder / COMPARATOR, models.comparator.state_dict())
    if not (run.folder / MEAN_IMAGE).exists():
        mean = mean_image(run.dataset, models.geometry.framing, limit=300)
        save_png(np.rint(mean).astype(np.uint8), run.folder / MEAN_IMAGE)
