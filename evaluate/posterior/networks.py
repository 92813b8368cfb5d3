"""A trained variational autoencoder in PyTorch, both heads of its encoder included, which a bundle does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deepsim.export.sources import check_weights, checkpoint_of, load_run
from deepsim.export.torch_networks import tensors
from deepsim.runtime.errors import UsageError
from deepsim.runtime.geometry import Geometry
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.run_folder import ENCODER, exported_weights
from deepsim.train.latent import Posterior, VariationalEncoder, spread_of
from deepsim.train.networks import Generator, scored, to_image_space, to_pixels
from deepsim.train.weights import read_weights


@dataclass(frozen=True)
class Autoencoder:
    """The networks of a checkpoint, frozen, on one device, and what the run says of itself."""

    encoder: VariationalEncoder
    generator: Generator
    geometry: Geometry
    device: torch.device
    run: str
    step: int

    @classmethod
    def open(cls, path: Path, device: torch.device) -> Autoencoder:
        """Load a run folder (its latest checkpoint) or a checkpoint folder.

        Raises UsageError for a run that draws no codes, CheckpointError for unusable weights.
        """
        source = load_run(path)
        if source.prior is None:
            raise UsageError(f"{path}: a run that draws no codes, expected one of --task vae.")
        encoder = VariationalEncoder(source.table, source.layer)
        file = exported_weights(checkpoint_of(path)) / ENCODER
        spread = check_weights(read_weights(file), [spread_of(encoder.layers[-1])], str(file), exact=False)
        encoder.load_state_dict(tensors(source.encoder_weights | spread))
        generator = Generator(source.generator_table).requires_grad_(False)
        generator.load_state_dict(tensors(source.generator_weights))
        told = source.provenance
        return cls(encoder.to(device), generator.to(device), source.geometry, device, told["run"], int(told["step"]))

    @property
    def units(self) -> int:
        """Return the number of units of a code."""
        return self.encoder.layers[-1].outputs

    @torch.no_grad()
    def encode(self, photos: Pixels) -> Posterior:
        """Return the distributions of codes of uint8 RGB photographs (N, side, side, 3)."""
        return Posterior.of(self.encoder(to_image_space(torch.from_numpy(photos).to(self.device))))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Pixels:
        """Generate images of codes (N, units): uint8 RGB (N, side, side, 3), the part that training scored."""
        images: Pixels = to_pixels(scored(self.generator(codes.to(self.device)), self.geometry)).cpu().numpy()
        return images
