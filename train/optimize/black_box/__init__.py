"""Codes optimised against scores alone: asks and tells in whole generations, decoded by the runtime. No PyTorch."""

from deepsim.train.optimize.black_box.optimizer import CodeOptimizer
from deepsim.train.optimize.black_box.presets import PRESETS, Preset, make_optimizer

__all__ = ["PRESETS", "CodeOptimizer", "Preset", "make_optimizer"]
