"""Run a bundle on an emulated GPU, from a test or by hand.

The library whose kernels are emulated is another than the one that this process has loaded, so the call runs in a
process of its own. By hand, in the environment of the fixture ``emulated`` (tests/conftest.py)::

    python tests/emulated_gpu.py decode_raw BUNDLE.deepsim features.npy raw.npy fp32
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def on_emulated_gpu(
    environment: Mapping[str, str], call: str, bundle: Path, array: NDArray[Any], precision: str = "fp32"
) -> NDArray[Any]:
    """Return what a bundle makes of images (encode) or features (decode, decode_raw: whole images) on the GPU.

    ``environment`` is that of the fixture ``emulated``. Fails with what the process said where it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npy", Path(folder) / "made.npy"
        np.save(given, array)
        command = [sys.executable, __file__, call, str(bundle), str(given), str(made), precision]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=dict(environment))
        assert done.returncode == 0, done.stderr[-2000:]
        return np.load(made)


def main() -> None:
    """Run the call that the command line names."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import runtime  # noqa: F401  (makes deepsim.* importable from the checkout)
    from deepsim.runtime.inverter import Inverter

    call, bundle, given, made, precision = sys.argv[1:]
    array = np.load(given)
    with Inverter(bundle, "cuda", max_batch=max(1, len(array)), precision=precision) as inverter:
        calls = {
            "encode": lambda: inverter.encode(array),
            "decode": lambda: inverter.decode(array, full=True),
            "decode_raw": lambda: inverter.decode(array, full=True, raw=True),
        }
        np.save(made, calls[call]())


if __name__ == "__main__":
    main()
