"""Codes optimised against scores alone: asks and tells in whole generations, decoded by the runtime. No PyTorch.

>>> from deepsim.train.optimize.black_box import ClosedLoop
>>> loop = ClosedLoop(inverter, "genetic", generations=2, settings={"population": 6})
>>> for codes, images in loop:
...     loop.tell(images.mean(axis=(1, 2, 3)))  # brighter is better
>>> len(loop.log), images.shape
(2, (6, 227, 227, 3))
"""

from deepsim.train.optimize.black_box.closed_loop import Best, ClosedLoop
from deepsim.train.optimize.black_box.optimizer import CodeOptimizer
from deepsim.train.optimize.black_box.presets import PRESETS, Preset, make_optimizer

__all__ = ["PRESETS", "Best", "ClosedLoop", "CodeOptimizer", "Preset", "make_optimizer"]
