"""Bundles and runs that record made-up trainings, for tests of what is chosen; the bundles' networks are small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from deepsim.evaluate.figures.document import Document
from deepsim.evaluate.figures.drawing import FRAMES, SAMPLES, Drawn, Studio
from deepsim.evaluate.figures.facts import facts_of_training
from deepsim.evaluate.figures.gallery import Gallery
from deepsim.evaluate.figures.members import Member
from deepsim.evaluate.figures.numbers import Numbers
from tests.bundles import write_kind

SETTINGS: dict[str, Any] = {
    "task": "inversion",
    "layer": "fc6",
    "encoder": "caffenet",
    "encoder_weights": "caffenet.safetensors",
    "comparator": "pool5",
    "comparator_network": "",
    "comparator_weights": "",
    "comparator_seed": -1,
    "generator": "deepsim",
    "width": 1.0,
    "batch": 64,
    "seed": 0,
    "lambda_img": 2e-6,
    "lambda_feat": 0.01,
    "lambda_adv": 100.0,
}
IMAGE = {"lambda_feat": 0.0, "lambda_adv": 0.0}
VAE = {"task": "vae", "layer": "latent", "lambda_kl": 20.0}


def provenance(name: str = "run", step: int = 1000, **changes: Any) -> dict[str, Any]:
    """Return what a bundle records of a training with these settings changed."""
    config = {**SETTINGS, **changes}
    return {"from": "training run", "run": name, "checkpoint": f"step-{step:08d}", "step": step, "config": config}


def member(name: str = "run", step: int = 1000, **changes: Any) -> Member:
    """Return a bundle that says it was trained with these settings changed; there is no such folder."""
    facts = facts_of_training({**SETTINGS, **changes}, step)
    return Member(Path(f"{name}.deepsim"), "bundle", facts, name, has_prior=facts.task == "vae")


def write_bundle(folder: Path, name: str, step: int = 1000, **changes: Any) -> Path:
    """Write a bundle of the small network (64 pixels) that records a training with these settings changed."""
    prior = {"prior": "standard normal"} if changes.get("task") == "vae" else {}
    made = write_kind(folder, "table", provenance=provenance(name, step, **changes), **prior)
    return made.rename(folder / f"{name}.deepsim")


def write_run(folder: Path, step: int = 1000, **changes: Any) -> Path:
    """Write a run folder with one checkpoint, without weights."""
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    checkpoint.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**SETTINGS, **changes}))
    (checkpoint / "state.json").write_text(json.dumps({"step": step, "torch": "2.14"}))
    (checkpoint.parent / "latest").write_text(checkpoint.name)
    return folder


def fake_studio(members: list[Member], photographs: int = 4, side: int = 16) -> Studio:
    """Return a studio in which all members are drawn: each as grey of its own, with errors that tell them apart."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (photographs, side, side, 3), dtype=np.uint8)
    gallery = Gallery(tuple(pixels), tuple(f"photo-{number}.png" for number in range(photographs)), 4, "of a test")
    studio = Studio(gallery)
    for place, each in enumerate(members):
        grey = np.full((photographs, side, side, 3), 10 * place, np.uint8)
        studio.drawn[each.origin] = Drawn(
            pixels,
            grey,
            Numbers(0.101 + place / 100, 0.201 + place / 100, 0.5, photographs),
            iterates=np.stack([grey[:2]] * 4, axis=1),
            loop=(Numbers(0.3, None, 0.9, 2),) * 4,
            frames=(grey[:1].repeat(FRAMES, axis=0),) * 2,
            samples=grey[:1].repeat(SAMPLES, axis=0),
            sample_sharpness=0.75,
        )
    return studio


def texts_of(document: Document) -> list[str]:
    """List every sentence, heading and figure of a document, in order."""
    found = [document.title, document.lead, *document.conditions]
    for figure in document.figures:
        found += [figure.title, figure.lead]
        for part in figure.parts:
            found += [part.title] if hasattr(part, "title") else [part.caption]
    return found + [absent.title for absent in document.missing]
