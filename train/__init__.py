"""Train generators: networks, losses, data, the loop and its checkpoints. Needs deepsim[train]."""
