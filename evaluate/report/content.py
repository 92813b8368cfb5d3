"""What a report is drawn from: everything measured and read, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deepsim.benchmarks.throughput import Throughput
from deepsim.evaluate.report.figures import Figures, Pictures
from deepsim.evaluate.report.training_run import TrainingRun
from deepsim.evaluate.wording import encoder_words
from deepsim.runtime.manifest import Manifest


@dataclass(frozen=True)
class Content:
    """Everything on the page: ``shown`` photographs are pictured of all those measured; ``run`` and ``throughput``
    are None where they were not given or asked for.
    """

    manifest: Manifest
    backend: str
    figures: Figures
    pictures: Pictures
    shown: int
    run: TrainingRun | None = None
    throughput: Throughput | None = None

    @property
    def layer(self) -> str:
        """Return the layer that is inverted."""
        return self.manifest.layer

    @property
    def side(self) -> int:
        """Return the side of the photographs, in pixels."""
        return self.manifest.geometry.framing.side

    @property
    def encoder(self) -> str:
        """Return the encoder's name as it is written in a sentence."""
        return encoder_words(self.manifest.encoder_name)

    def to_json(self) -> dict[str, Any]:
        """Return every figure as plain JSON values."""
        record = {"name": self.manifest.name, "layer": self.layer, "encoder": self.manifest.encoder_name}
        measured = {**record, "backend": self.backend, **self.figures.to_json()}
        if self.run:
            measured["training"] = {"steps": self.run.steps, "seconds": self.run.seconds}
        if self.throughput:
            measured["throughput"] = vars(self.throughput)
        return measured
