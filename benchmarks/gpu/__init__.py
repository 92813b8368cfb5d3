"""The backend cuda on a GPU, checked and timed: ``python -m benchmarks.gpu``, in a bare checkout too."""

import importlib

importlib.import_module("runtime")  # makes deepsim.* importable from the checkout, installed or not
