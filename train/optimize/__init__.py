"""Codes and pixels optimised against features (by gradients) or against scores (black box)."""
