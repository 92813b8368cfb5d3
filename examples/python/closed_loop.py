"""Drive a closed loop with a simulated neuron: a unit of an encoder that fires by Poisson's law.

python examples/python/closed_loop.py fc6.deepsim run --unit 13
python examples/python/closed_loop.py fc6.deepsim run --encoder conv4.deepsim --unit 5,6,6 --generations 40

The images of an experiment would go to a screen, and the spikes would come from an electrode; the loop stays the same.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepsim import runtime
from deepsim.runtime.pixels import Pixels
from deepsim.train.optimize.black_box import ClosedLoop
from deepsim.train.optimize.black_box.scores import UnitScore, parse_unit


class Neuron:
    """A unit whose activity, scaled by ``gain``, is the expected number of spikes of one presentation."""

    def __init__(self, encoder: runtime.Inverter, unit: tuple[int, ...], gain: float, seed: int) -> None:
        self.activity = UnitScore(encoder, unit)
        self.gain, self.random = gain, np.random.default_rng(seed)

    def spikes(self, images: Pixels, presentations: int) -> NDArray[np.int64]:
        """Show images (n, S, S, 3) several times: spikes (n, presentations)."""
        expected = self.gain * np.maximum(self.activity(images), 0)
        return self.random.poisson(expected[:, None], (len(images), presentations))


def main(arguments: Sequence[str] | None = None) -> None:
    """Search for the images that excite the neuron most."""
    parser = argparse.ArgumentParser(description="A closed loop with a simulated neuron.")
    parser.add_argument("bundle", help="bundle whose generator draws")
    parser.add_argument("folder", help="folder of the search; an earlier one is gone on with")
    parser.add_argument("--encoder", help="bundle whose encoder has the neuron (default: the same)")
    parser.add_argument("--unit", default="13", help="index, or c,y,x")
    parser.add_argument("--optimizer", default="genetic")
    parser.add_argument("--generations", type=int, default=30)
    parser.add_argument("--presentations", type=int, default=3, help="of each image")
    parser.add_argument("--gain", type=float, default=1.0, help="spikes per unit of activity")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)

    inverter = runtime.Inverter(asked.bundle)
    encoder = runtime.Inverter(asked.encoder) if asked.encoder else inverter
    neuron = Neuron(encoder, parse_unit(asked.unit), asked.gain, asked.seed)

    loop = ClosedLoop(inverter, asked.optimizer, asked.generations, asked.folder, resume=True, seed=asked.seed)
    for _codes, images in loop:
        loop.tell(neuron.spikes(images, asked.presentations))
        line = loop.log[-1]
        print(f"generation {line['generation']:3}: {line['mean']:6.1f} spikes on average, best {line['best']:6.1f}")
    print(f"the best image is {asked.folder}/best.png, the best of each generation are in {asked.folder}/strips/")


if __name__ == "__main__":
    main()
