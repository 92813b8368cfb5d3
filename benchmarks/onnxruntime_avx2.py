"""Copy the installed ONNX Runtime so that it sees no AVX-512, for a benchmark in which nobody may use it.

ONNX Runtime asks the processor itself (CPUID, then XGETBV for what the system saves) and has no switch. In the copy the
instruction XGETBV is replaced by three bytes that give 7: x87, SSE and AVX state, no AVX-512 state.

    python -m deepsim.benchmarks.onnxruntime_avx2 build/avx2
    PYTHONPATH=build/avx2 deepsim bench fc6.deepsim --instruction-set avx2
"""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from deepsim.benchmarks.contenders import AVX2_ONLY

ASKS = bytes.fromhex("31c90f01d0")  # xor ecx, ecx; xgetbv
TOLD = bytes.fromhex("31c96a0758")  # xor ecx, ecx; push 7; pop rax


def main() -> None:
    """Make the copy in the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        sys.exit("onnxruntime: not installed. Install deepsim[bench].")
    target = Path(sys.argv[1]) / "onnxruntime"
    if target.exists():
        sys.exit(f"{target}: exists, expected a new folder. Remove it, or use it as it is.")
    shutil.copytree(Path(spec.origin).parent, target)
    changed = sum(_change(path) for path in target.rglob("*.so*"))
    if changed == 0:
        shutil.rmtree(target)
        sys.exit("onnxruntime: its libraries ask for the processor's features in a way unknown here. No copy was made.")
    (target / AVX2_ONLY).touch()
    print(f"{target}: {changed} places changed")


def _change(path: Path) -> int:
    """Change one library; return the number of places."""
    content = path.read_bytes()
    path.write_bytes(content.replace(ASKS, TOLD))
    return content.count(ASKS)


if __name__ == "__main__":
    main()
