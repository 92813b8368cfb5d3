"""Pause the discriminator or the generator, so that neither overfits to the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Pausing:
    """Decide after every step which of the two networks trains in the next one.

    With r = (loss_real + loss_fake) / loss_fake_for_generator on the current batch: r < ``stop_discriminator`` pauses
    the discriminator (the rule of the paper, section 3.3); r > ``resume_discriminator`` resumes it; r >
    ``stop_generator`` pauses the generator and resumes the discriminator (both from the release). A paused generator
    resumes whenever one of the first two rules fires. The rules are tried in this order on every step.
    """

    stop_discriminator: float = 0.1
    resume_discriminator: float = 0.5
    stop_generator: float = 10.0
    discriminator_trains: bool = True
    generator_trains: bool = True

    def update(self, loss_real: float, loss_fake: float, loss_fake_for_generator: float) -> float:
        """Apply the rules to one step's losses (each >= 0, same normalisation); return the ratio r."""
        ratio = (loss_real + loss_fake) / max(loss_fake_for_generator, 1e-12)
        if ratio < self.stop_discriminator and self.discriminator_trains:
            self.discriminator_trains, self.generator_trains = False, True
        if ratio > self.resume_discriminator and not self.discriminator_trains:
            self.discriminator_trains, self.generator_trains = True, True
        if ratio > self.stop_generator and self.generator_trains:
            self.discriminator_trains, self.generator_trains = True, False
        return ratio
