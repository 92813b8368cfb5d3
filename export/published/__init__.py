"""Weights that others published, read from their own files: Caffe's, and the state dicts of PyTorch ports."""
