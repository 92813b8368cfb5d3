"""Turn a network's features back into images: see ``deepsim.runtime``, ``train`` and ``export``.

This file is for users with a clone in a folder named deepsim beside their script: Python prefers a package that has an
``__init__.py``, anywhere on ``sys.path``, to a folder without one, so that the installed package is imported.
"""

from pathlib import Path

if not (Path(__file__).parent / "runtime").is_dir():  # in a checkout, the parts are folders of its root
    __path__ = [str(Path(__file__).resolve().parents[2])]
