"""A stand-in for the Inverter, and a run folder, so that the report can be tested without a backend."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from deepsim.runtime.generators import generator_spec
from deepsim.runtime.geometry import Geometry
from deepsim.runtime.manifest import FileRecord, Manifest
from deepsim.runtime.networks import CAFFENET, EncoderSpec


class FakeInverter:
    """Iteration k moves each grey level 1/4^k of the way to 120; features are sparse pixels."""

    backend, device = "onnxruntime", "cpu"

    def __init__(self, name: str = "norm2-test", encoder: EncoderSpec = CAFFENET, layer: str = "norm2") -> None:
        record, generator = FileRecord(1234, "ab" * 32), generator_spec(layer, encoder)
        self.layer, self.image_size = layer, encoder.framing.side
        self.geometry = Geometry.central(encoder.framing, generator.output_size)
        self.bundle = SimpleNamespace(
            manifest=Manifest(
                name,
                self.geometry,
                encoder,
                generator,
                {"generator.onnx": record},
                verification={"encoder": {"max_difference": 1.5e-6, "passed": True}},
                provenance={"from": "training run", "run": "run", "step": 40, "versions": {"torch": "2.15"}},
            )
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def encode(self, photos):
        return photos[:, ::50, ::50].reshape(len(photos), -1).astype(np.float32)

    def reconstruct(self, photos):
        return self.reencode(photos, 1, (1,))[:, 0]

    def reencode(self, photos, iterations=8, keep=(1, 2, 4, 8)):
        values, kept = photos.astype(float), []
        for iteration in range(1, iterations + 1):
            values = np.rint(values + (120 - values) / 4**iteration)
            if iteration in keep:
                kept.append(values.astype(np.uint8))
        return np.stack(kept, axis=1)

    def interpolate(self, photo_a, photo_b, steps=8):
        weights = np.linspace(0, 1, steps)[:, None, None, None]
        return np.rint(photo_a * (1 - weights) + photo_b * weights).astype(np.uint8)


def write_photos(folder: Path, names: list[str]) -> list[np.ndarray]:
    """Write smooth random photographs 227x227 and return their pixels in the order of their names."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    photos = []
    for name in sorted(names):
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        photos.append(np.asarray(Image.fromarray(coarse).resize((227, 227), Image.Resampling.BILINEAR)))
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photos[-1]).save(folder / name, format="PNG")
    return photos


def write_run(folder: Path, **config: object) -> Path:
    """Write a run folder of 40 steps with a paused discriminator, a mean image and a sample grid."""
    folder.mkdir()
    settings = {"layer": "norm2", "batch": 8, "steps": 40, "seed": 3, "encoder_weights": "", "lambda_adv": 100.0}
    (folder / "config.json").write_text(json.dumps({**settings, "lambda_img": 2e-6, **config}))
    lines = [
        {
            "step": step,
            "seconds": step * 0.5,
            "image_loss": 100 / step,
            "feature_loss": 10 / step,
            "adversarial_loss": 70.0,
            "discriminator_loss": 140.0,
            "generator_loss": 180 / step,
            "images_per_second": 16.0,
            "discriminator_trains": not 10 <= step < 20,
            "generator_trains": True,
            **({"validation_error": 0.9 - step / 100} if step % 20 == 0 else {}),
        }
        for step in range(2, 41, 2)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Image.new("RGB", (227, 227), (100, 110, 120)).save(folder / "mean_image.png")
    (folder / "images").mkdir()
    Image.new("RGB", (454, 454), (9, 99, 199)).save(folder / "images" / "step-00000040.png")
    return folder
