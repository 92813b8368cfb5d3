"""The backend cuda on a GPU, checked and timed: ``python -m deepsim.benchmarks.gpu``."""
