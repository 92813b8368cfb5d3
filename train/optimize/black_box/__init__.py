"""Codes optimised against scores alone: asks and tells in whole generations, decoded by the runtime. No PyTorch."""
