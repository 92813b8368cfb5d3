"""The command ``deepsim figures``: the figures of Dosovitskiy & Brox 2016, drawn from runs and bundles."""
