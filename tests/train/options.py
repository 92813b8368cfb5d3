"""A command of the options that a configuration gets by itself."""

import click

from deepsim.train.cli import settings_of


def command_of(record):
    """Return a command with an option for each field of ``record``, and the dictionary of what it was given."""
    given = {}

    @click.command()
    @settings_of(record)
    def command(**options):
        given.update({name: value for name, value in options.items() if value is not None})

    return command, given
