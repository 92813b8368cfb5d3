"""Map the four top-level folders into the ``deepsim`` namespace (see CONTRIBUTING.md, "Import names")."""

from setuptools import setup

FOLDERS = {
    "deepsim.kernels": "kernels",
    "deepsim.runtime": "runtime",
    "deepsim.runtime.backends": "runtime/backends",
    "deepsim.runtime.cli": "runtime/cli",
    "deepsim.runtime.report": "runtime/report",
    "deepsim.train": "train",
    "deepsim.export": "export",
}

setup(packages=list(FOLDERS), package_dir=FOLDERS)
