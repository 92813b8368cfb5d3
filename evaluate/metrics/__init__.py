"""Measures of reconstructions as pure functions: arrays in, figures out; nothing here reads photographs or bundles."""
