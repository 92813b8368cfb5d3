"""What nvcc and ptxas make of the kernels for Hopper: no GPU is needed to see that multiplications are not serialised,
that nothing is spilled and that the instructions meant are there."""

import re
import subprocess
from collections import Counter
from shutil import which

import pytest

from tests.native.test_cuda_compile import KERNELS as SOURCES
from tests.native.test_cuda_compile import VARIANTS, compile_kernels, disassembler

TILES = {
    name: {"rows": int(rows), "depth": int(depth)}
    for name, rows, depth in re.findall(r"TILE\((wgmma\w*), (\d+), 128, (\d+), \d+\)", VARIANTS)
}
# Blocks of a multiprocessor: (threads, blocks), a warp's registers coming in units of 256 from its quarter's 16384.
BLOCKS = {64: (160, 3), 128: (160, 2), 256: (288, 1)}
KERNELS = re.findall(r"PRODUCT\((wgmma\w*), (\w+)\)", VARIANTS)


@pytest.fixture(scope="module", params=["Half", "Brain"])
def compiled(request):
    """The kernels for sm_90a: element, path of the cubin, and the report of ptxas."""
    if which("nvcc") is None:
        pytest.skip("no nvcc here")
    done = compile_kernels(request.param, 90)
    return request.param, done.cubin, done.said


def instructions(cubin):
    """Return for each kernel its instructions in order, with their operands."""
    if (tool := disassembler()) is None:
        pytest.skip("no nvdisasm here; pip install nvidia-cuda-nvdisasm")
    listing = subprocess.run([tool, "-c", cubin], capture_output=True, text=True, check=True).stdout
    kernels = {}
    for line in listing.splitlines():
        if (label := re.match(r"\.text\.(\w+):", line)) is not None:
            kernel = kernels.setdefault(label[1], [])
        elif (code := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z].*?) ?;", line)) is not None:
            kernel.append(code[1])
    return kernels


@pytest.mark.slow
def test_nothing_is_spilled_or_serialised(compiled):
    _, _, said = compiled
    assert not re.search(r"warning|C75\d\d|serializ", said), said
    reports = re.findall(r"Function properties for (\w+)\n\s+(.*)\nptxas info\s+: Used (\d+) registers", said)
    properties = {name: (memory, int(registers)) for name, memory, registers in reports}
    assert len(KERNELS) == 17 and all(f"{tile}_{store}" in properties for tile, store in KERNELS)
    for name, (memory, registers) in properties.items():
        assert memory == "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", name
        if name.startswith("wgmma"):
            threads, blocks = BLOCKS[TILES[name.rpartition("_")[0]]["rows"]]
            warps = -(-threads // 32 * blocks // 4)  # of a quarter
            assert warps * -(-registers * 32 // 256) * 256 <= 16384, (name, registers)


@pytest.mark.slow
def test_the_instructions_are_there(compiled):
    element, cubin, _ = compiled
    kernels = instructions(cubin)
    for tile, store in KERNELS:
        matrices, depth = 1 if TILES[tile]["rows"] == 64 else 2, TILES[tile]["depth"]
        listing = kernels[f"{tile}_{store}"]
        count = Counter(re.split(r"[. ]", code)[0] for code in listing)
        multiplies = [code for code in listing if code.startswith("HGMMA")]
        shape = "HGMMA.64x128x16.F32" + (".BF16" if element == "Brain" else "")
        assert len(multiplies) == depth // 16 * matrices and all(code.startswith(shape + " ") for code in multiplies)
        assert sum("gsb0" in code for code in multiplies) == 1  # one group of a step
        assert [code for code in listing if "DEPBAR" in code and "WARPGROUP" in code] == [
            "WARPGROUP.DEPBAR.LE gsb0, 0x1",  # of the step before, while this step's multiplies
            "WARPGROUP.DEPBAR.LE gsb0, 0x0",
        ]
        # By one lane that the compiler knows to be alone: no loop over lanes around each copy, which took 90 cycles.
        # A chunk's planes, a step's weights, and those of the first steps, which wait for no other kernel.
        assert count["UBLKCP"] == depth // 8 + 2 and count["ELECT"] == 1
        assert count["PREEXIT"] == 1 and count["ACQBULK"] == 2  # of those who copy, and of those who multiply
        order = [kind for code in listing if (kind := re.split(r"[. ]", code)[0]) in ("ACQBULK", "UBLKCP")]
        assert order.index("UBLKCP") < order.index("ACQBULK", order.index("UBLKCP")) < order.index("UBLKCP", 2)
        assert order[order.index("UBLKCP") + 1] == "ACQBULK"  # then the first input
        assert all(code.startswith("STG.E.128") for code in listing if code.startswith("STG"))
        assert not {"LDL", "STL", "HMMA", "LDSM", "LDGSTS"} & set(count), count


@pytest.mark.slow
@pytest.mark.skipif(which("nvcc") is None, reason="no nvcc here")
@pytest.mark.parametrize("architecture", ["80", "90"])
def test_other_images_lack_them(architecture, tmp_path):
    """Also plain 9.0: only the build for 9.0a has the instructions."""
    ptx = tmp_path / "kernels.ptx"
    command = ["nvcc", "-std=c++17", "-DDEEPSIM_ELEMENT=Half", f"-arch=compute_{architecture}", "-ptx", "-o", ptx]
    subprocess.run([*command, SOURCES / "kernels.cu"], check=True, capture_output=True)
    entries = re.findall(r"\.entry (\w+)\(", ptx.read_text())
    assert "large_blocks" in entries and not any(name.startswith("wgmma") for name in entries)
