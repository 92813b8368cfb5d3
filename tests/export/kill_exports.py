"""Kill exports at random moments: ``kill_exports.py RUN OUT KILLS``; prints what was found as JSON.

One process imports everything once and forks an export per kill, so that a kill costs a second and not an import.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import runtime  # noqa: F401  (makes deepsim.* importable from the checkout)
from deepsim.export.bundle import Options, export_bundle
from deepsim.export.sources import load_run
from deepsim.runtime.bundle import Bundle


def start(run, target, options):
    child = os.fork()
    if child == 0:
        try:
            export_bundle(load_run(run), target, options)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    return child


def is_whole(target):
    bundle = Bundle.open(target)
    return all(bundle.read(name) for name in bundle.manifest.files)


def main(run, out, kills):
    from importlib.util import find_spec

    torch.set_num_threads(1)
    options = Options("fp16" if find_spec("tensorrt_rtx") else "onnx", "tensorrt-rtx", 2)
    target, rng = out / "tiny.deepsim", random.Random(0)
    began = time.monotonic()
    if os.waitpid(start(run, target, options), 0)[1] != 0:
        sys.exit("the export that nobody killed failed")
    duration, killed, partial = time.monotonic() - began, 0, 0
    for _ in range(kills):
        shutil.rmtree(target, ignore_errors=True)
        child = start(run, target, options)
        time.sleep(rng.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        partial += target.exists() and not is_whole(target)
    shutil.rmtree(target, ignore_errors=True)
    os.waitpid(start(run, target, options), 0)
    left = sorted(path.name for path in out.iterdir())
    print(json.dumps({"killed": killed, "partial": partial, "left": left if is_whole(target) else []}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
