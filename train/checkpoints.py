"""Checkpoints: a folder of safetensors and state.json per saved step, published by one rename.

``RUN/checkpoints/step-00000200/`` holds generator.safetensors, optimizer.safetensors and state.json, and where they
learn discriminator.safetensors and encoder.safetensors; average/ holds running averages of the weights, where the run
keeps any. ``latest`` and ``best`` name folders. The last three and the best are kept. Random numbers need no state:
every step draws from its own seed (see :func:`deepsim.train.loop.step_seed`).
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepsim.runtime.errors import CheckpointError, NumericError
from deepsim.runtime.files import ASIDE, publish_folder, remove_folder, restore, write_atomic
from deepsim.runtime.run_folder import AVERAGE, BEST, LATEST, OPTIMIZER, STATE, checkpoints
from deepsim.train.averaging import Average
from deepsim.train.models import Models, Player
from deepsim.train.pausing import Pausing
from deepsim.train.weights import read_weights, write_weights

KEPT = 3
_log = logging.getLogger("deepsim")


def save_checkpoint(target: Path, models: Models, step: int, best_error: float | None) -> None:
    """Write the checkpoint of a finished step to its folder and point ``latest`` at it; old ones are removed.

    ``best_error`` is the lowest validation error so far. Raises NumericError rather than save a weight that is not
    finite, DeviceError on a full disk (the previous checkpoint stays).
    """
    with publish_folder(target, overwrite=True) as staging:
        optimizers: dict[str, Tensor] = {}
        for name, player in models.players.items():
            _require_finite(player, name, step)
            write_weights(staging / f"{name}.safetensors", player.module.state_dict())
            if player.average is not None:
                write_weights(staging / AVERAGE / f"{name}.safetensors", player.average.state_dict())
            optimizers.update(_optimizer_tensors(name, player))
        write_weights(staging / OPTIMIZER, optimizers)
        (staging / STATE).write_text(json.dumps(_state(models, step, best_error), indent=2) + "\n")
    write_atomic(target.parent / LATEST, target.name + "\n")
    _remove_old(target)


def mark_best(checkpoint: Path) -> None:
    """Point ``best`` at a checkpoint, so that it is kept."""
    write_atomic(checkpoint.parent / BEST, checkpoint.name + "\n")


def newest_checkpoints(run: Path) -> list[Path]:
    """List the complete checkpoints of a run, newest first."""
    folder = checkpoints(run)
    for aside in list(folder.glob(f".step-*.{ASIDE}-*")):
        restore(folder / aside.name[1:].partition(f".{ASIDE}-")[0])
    return sorted((path.parent for path in folder.glob(f"step-*/{STATE}")), reverse=True)


def load_checkpoint(checkpoint: Path, models: Models) -> dict[str, Any]:
    """Restore weights, optimisers, pausing and counters; return state.json's content.

    Raises CheckpointError when a file is missing, damaged or of other networks.
    """
    state = read_state(checkpoint)
    optimizers = read_weights(checkpoint / OPTIMIZER)
    for name, player in models.players.items():
        _load_weights(player.module, read_weights(checkpoint / f"{name}.safetensors"), checkpoint)
        if player.average is not None:
            _load_weights(player.average, read_weights(checkpoint / AVERAGE / f"{name}.safetensors"), checkpoint)
        _load_optimizer(name, player, optimizers, checkpoint)
        player.updates = state["updates"][name]
        player.scaler.load_state_dict(state["scalers"][name])
    models.pausing = Pausing(**state["pausing"])
    return state


def load_newest(run: Path, models: Models) -> dict[str, Any] | None:
    """Restore the newest checkpoint that can be read; None when the run has none. Names those that cannot."""
    found = newest_checkpoints(run)
    for checkpoint in found:
        try:
            return load_checkpoint(checkpoint, models)
        except CheckpointError as error:
            _log.warning("%s Trying the one before it.", error)
    if found:
        raise CheckpointError(f"{run}: none of {len(found)} checkpoints can be read. Start again in a new folder.")
    return None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read state.json. Raises CheckpointError when it is missing or damaged."""
    try:
        state = json.loads((checkpoint / STATE).read_text())
        return dict(state, step=int(state["step"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint}: {STATE} is not readable ({error}). Name another checkpoint.") from error


def _state(models: Models, step: int, best_error: float | None) -> dict[str, Any]:
    players = models.players
    return {
        "step": step,
        "updates": {name: player.updates for name, player in players.items()},
        "scalers": {name: player.scaler.state_dict() for name, player in players.items()},
        "pausing": asdict(models.pausing),
        "best_error": best_error,
        "config": asdict(models.config),
        "torch": torch.__version__,
    }


def _require_finite(player: Player, name: str, step: int) -> None:
    for key, tensor in player.module.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise NumericError(f"{name}.{key}: not finite at step {step}, not saved. Lower the learning rate.")


def _optimizer_tensors(name: str, player: Player) -> dict[str, Tensor]:
    """Flatten an optimiser's state to ``<network>/<parameter>/<exp_avg|exp_avg_sq|step|momentum>``."""
    return {
        f"{name}/{parameter_name}/{key}": value
        for parameter_name, parameter in player.module.named_parameters()
        for key, value in player.optimizer.state.get(parameter, {}).items()
    }


def _load_optimizer(name: str, player: Player, tensors: dict[str, Tensor], source: Path) -> None:
    fused = player.optimizer.defaults["fused"]
    parameters = dict(player.module.named_parameters())
    for key, value in tensors.items():
        network, _, rest = key.partition("/")
        if network != name:
            continue
        parameter_name, _, kind = rest.rpartition("/")
        parameter = parameters.get(parameter_name)
        if parameter is None or (kind != "step" and value.shape != parameter.shape):
            raise CheckpointError(f"{source}: {key} has shape {tuple(value.shape)}. Name its own run.")
        state = player.optimizer.state[parameter]
        if kind == "step":
            state[kind] = value.to(parameter.device) if fused else value
        else:
            state[kind] = torch.empty_like(parameter).copy_(value)  # keeps the strides


def _load_weights(module: nn.Module | Average, weights: dict[str, Tensor], source: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{source}: of another network ({reason}). Name a checkpoint of this run.") from error


def _remove_old(saved: Path) -> None:
    """Remove all but the last three and the best; of those up to ``saved``, as later ones may be damaged."""
    folder = saved.parent
    best = (folder / BEST).read_text().strip() if (folder / BEST).exists() else ""
    up_to_now = (path for path in folder.glob("step-*") if path.name <= saved.name)
    for checkpoint in sorted(up_to_now, reverse=True)[KEPT:]:
        if checkpoint.name != best:
            remove_folder(checkpoint)
