"""What nvcc makes of the CUDA kernels, for every architecture that they are shipped for: no spills, no stack, no
warnings, and in the machine code the matrix instructions, copies and stores that the tiles are made for. No GPU is
needed."""

import importlib.util
import re
import subprocess
import sysconfig
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from shutil import which

import pytest

from tests.native.test_native import alone_in, cmake

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "kernels/cuda"
CMAKE = (ROOT / "cmake/CudaKernels.cmake").read_text()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(which("nvcc") is None, reason="no nvcc here")]


def targets():
    """Return (element, architecture) of everything that the build compiles."""
    architectures = re.search(r"foreach\(architecture ((?:\d+ ?)+)\)", CMAKE)[1].split()
    oldest = dict(re.findall(r"^  deepsim_add_cuda_kernels\((\w+) (\d+)\)$", CMAKE, re.MULTILINE))
    return [(element, int(a)) for element, least in oldest.items() for a in architectures if int(a) >= int(least)]


@dataclass
class Tile:
    """A tile of variants.h: what a block computes, what each of its warps does."""

    rows: int
    columns: int
    depth: int
    warp_rows: int
    warp_columns: int
    stages: int

    @property
    def threads(self):
        return self.rows // self.warp_rows * (self.columns // self.warp_columns) * 32

    @property
    def matrix_products(self):
        """m16n8k16 products of a warp in one step of the main loop."""
        return self.warp_rows // 16 * (self.warp_columns // 8) * (self.depth // 16)

    @property
    def matrix_loads(self):
        """ldmatrix.x4 of a warp in one step, with the input read once for all columns and the weights for all rows."""
        return (self.warp_rows // 16 + self.warp_columns // 16) * (self.depth // 16)

    @property
    def multiply_adds(self):
        """Those of a thread in fp32, for four channels."""
        return self.warp_rows // 8 * (self.warp_columns // 4) * 4

    @property
    def loads(self):
        """16-byte loads of a thread in fp32, of the same channels."""
        return self.warp_rows // 8 + self.warp_columns // 4


IMAGES = ("_pixels", "_levels")  # how the names of last layers' products end
VARIANTS = (KERNELS / "variants.h").read_text()
TILES = {
    name: Tile(*map(int, numbers.split(",")))
    for name, numbers in re.findall(r"TILE\((\w+), ((?:\d+, ){5}\d+)\)", VARIANTS)
}


def products_of(element):
    """Return {kernel: its tile} of an element's products."""
    lists = "(?:DEEP_)?" if element != "Single" else ""
    listed = re.findall(rf"#define DEEPSIM_CUDA_{lists}PRODUCTS\(PRODUCT\)((?:.*\\\n)+.*)", VARIANTS)
    products = re.findall(r"PRODUCT\((\w+), (\w+)\)", "".join(listed))
    return {f"{tile}_{store}": TILES[tile] for tile, store in products}


PASSES = re.findall(r'^extern "C" DEEPSIM_KERNEL\(\w+, 1\) (\w+)\(', (KERNELS / "kernels.cu").read_text(), re.MULTILINE)

# Blocks that the 65536 registers of a multiprocessor hold at the least; shared memory may hold fewer. On 7.5, where a
# product takes two instructions, a small tile's block has more registers.
LEAST_BLOCKS = {tile: 2 if tile.startswith("large") else 4 for tile in TILES}
LEAST_BLOCKS_75 = {
    **LEAST_BLOCKS,
    **{f"{tile}{depth}": 3 for tile in ("small", "narrow", "skinny") for depth in ("", "16")},
}
LEAST_BLOCKS_75["images16"] = 3


@dataclass
class Compiled:
    """One element and architecture: the machine code, and what the compiler said."""

    element: str
    architecture: int
    cubin: Path
    said: str


@cache
def built_kernels():
    """Return the folder of what the build made: that of the editable installation, where it is up to date."""
    folder = ROOT / "build/editable"
    with alone_in(folder):
        subprocess.run([cmake(), "-S", ROOT, "-B", folder, "-DDEEPSIM_CUDA=ON"], check=True, capture_output=True)
        command = [cmake(), "--build", folder, "--target", "deepsim_cuda_kernels", "--parallel", "2"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "cuda"


def compile_kernels(element, architecture):
    built = "90a" if architecture == 90 else architecture  # wgmma: test_hopper_compile.py
    cubin = built_kernels() / f"{element}-sm_{built}.cubin"
    return Compiled(element, architecture, cubin, Path(f"{cubin}.txt").read_text())


@pytest.fixture(scope="module", params=targets(), ids=lambda target: f"{target[0]}-sm_{target[1]}")
def compiled(request):
    return compile_kernels(*request.param)


def resources(said):
    """Return {kernel: (registers, bytes of stack and spills)} of what ptxas -v said."""
    pattern = (
        r"Function properties for (\w+)\n\s+(\d+) bytes stack frame, "
        r"(\d+) bytes spill stores, (\d+) bytes spill loads\n"
        r"ptxas info    : Used (\d+) registers"
    )
    return {
        name: (int(used), int(stack) + int(stored) + int(loaded))
        for name, stack, stored, loaded, used in re.findall(pattern, said)
        if not name.startswith("wgmma")
    }


def blocks_of(registers, threads):
    """Return how many blocks 65536 registers hold, a warp's being taken in units of 256."""
    return 65536 // (-(-registers * 32 // 256) * 256 * threads // 32)


def test_kernels_need_no_stack_and_draw_no_warning(compiled):
    assert not re.findall(r".*(?:warning|C75\d\d).*", compiled.said)
    found = resources(compiled.said)
    assert set(found) == {*products_of(compiled.element), *PASSES}
    assert {name: spilled for name, (_, spilled) in found.items() if spilled} == {}
    assert max(registers for registers, _ in found.values()) <= 255
    least = LEAST_BLOCKS if compiled.architecture >= 80 else LEAST_BLOCKS_75
    for name, tile in products_of(compiled.element).items():
        assert blocks_of(found[name][0], tile.threads) >= least[name.rpartition("_")[0]], (name, found[name])


def disassembler():
    """Return nvdisasm's path: on PATH, or from the packages nvidia-cuda-nvdisasm or triton."""
    libraries = Path(sysconfig.get_path("purelib"))
    packaged = [*sorted(libraries.glob("nvidia/*/bin/nvdisasm"))]
    if (triton := importlib.util.find_spec("triton")) is not None and triton.origin is not None:
        packaged.append(Path(triton.origin).parent / "backends/nvidia/bin/nvdisasm")
    found = [which("nvdisasm"), *(str(path) for path in packaged if path.exists())]
    return next(filter(None, found), None)


@lru_cache(maxsize=4)  # for the tests of one image, which follow each other
def listings(cubin):
    """Return {kernel: its instructions in order} of a cubin."""
    if (tool := disassembler()) is None:
        pytest.skip("no nvdisasm here; pip install nvidia-cuda-nvdisasm")
    text = subprocess.run([tool, "-c", cubin], check=True, capture_output=True, text=True).stdout
    codes = defaultdict(list)
    kernel = None
    for line in text.splitlines():
        if (label := re.match(r"\.text\.(\w+):", line)) is not None:
            kernel = label[1]
        elif (code := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", line)) is not None:
            codes[kernel].append(code[1])
    return {name: codes[name] for name in codes if not name.startswith("wgmma")}


def instructions(cubin):
    """Return {kernel: Counter of its instructions, in the order in which they come first} of a cubin."""
    return {name: Counter(codes) for name, codes in listings(cubin).items()}


def total(counts, prefix):
    return sum(count for name, count in counts.items() if name.split(".")[0] == prefix)


def check_matrix_products(name, tile, counts, architecture):
    shape, halves = ("HMMA.16816.F32", 1) if architecture >= 80 else ("HMMA.1688.F32", 2)
    products = sum(count for code, count in counts.items() if code.startswith(shape))
    assert products == total(counts, "HMMA") > 0, (name, counts)
    # As often as the main loop is there: once, or unrolled.
    assert products * tile.matrix_loads == counts["LDSM.16.M88.4"] * tile.matrix_products * halves, (name, counts)


def check_multiply_adds(name, tile, counts, architecture):
    """In fp32: no tensor cores; all operands come in loads of 16 bytes, each once for four channels."""
    assert total(counts, "HMMA") == total(counts, "LDSM") == 0, (name, counts)
    loops, rest = divmod(counts["LDS.128"] + counts["LDS.U.128"], tile.loads)
    others = total(counts, "FFMA") - loops * tile.multiply_adds
    assert loops > 0 and rest == 0, (name, counts)
    assert others > 0 if name.endswith(IMAGES) else others == 0, (name, counts)  # levels: a quotient, tanh


def test_machine_code_is_what_the_tiles_are_made_for(compiled):
    found = instructions(compiled.cubin)
    assert set(found) == {*products_of(compiled.element), *PASSES}
    assert all(total(counts, local) == 0 for counts in found.values() for local in ("LDL", "STL"))
    check = check_multiply_adds if compiled.element == "Single" else check_matrix_products
    for name, tile in products_of(compiled.element).items():
        counts = found[name]
        check(name, tile, counts, compiled.architecture)
        assert (total(counts, "LDGSTS") > 0) == (compiled.architecture >= 80), (name, counts)
        narrow = [code for code in counts if re.fullmatch(r"STG\..*[SU](8|16)", code)]
        assert not narrow or name.endswith("_pixels"), (name, narrow)


def test_without_asynchronous_copies_weights_are_stored_behind_multiplications():
    """On 7.5 they are loaded before these, so that nothing waits for the load."""
    for name, codes in listings(compile_kernels("Half", 75).cubin).items():
        if not name.startswith(("large_", "small_")):
            continue  # where a step is short, or few threads copy, the compiler orders them as it likes
        kinds = [code.split(".")[0] for code in codes if re.match(r"LDG\.E\.128|STS\.128|HMMA|BAR", code)]
        loop = "".join({"LDG": "l", "STS": "s", "HMMA": "m", "BAR": "|"}[kind] for kind in kinds).split("|")
        assert any(re.search(r"l.*m+s", steps) for steps in loop), (name, loop)


def test_kernels_wait_for_those_before(compiled):
    """From 9.0 on: before they load or store anything that others write; products have started to copy weights."""
    products = products_of(compiled.element)
    channels = 4 if compiled.element == "Single" else 8  # of a plane
    for name, codes in listings(compiled.cubin).items():
        early = compiled.architecture >= 90
        assert codes.count("ACQBULK") == codes.count("PREEXIT") == early, name
        if not early:
            continue
        before = Counter(code.split(".")[0] for code in codes[: codes.index("ACQBULK")])
        assert not {"LDG", "STG", "ATOMG", "RED", "REDG"} & set(before), (name, before)
        tile, copies = products.get(name), 0
        if tile is not None:
            at_once = tile.threads // tile.columns  # planes
            copies = 1 if name.endswith(IMAGES) else (tile.stages - 1) * -(-tile.depth // channels // at_once)
        assert before["LDGSTS"] == copies, (name, before)
        if tile is None:
            assert not [code for code in codes if "CONSTANT" in code], name  # which may be loaded at any time


def test_no_pointer_is_said_to_be_the_only_one():
    """The compiler could then load early what the kernel before writes."""
    assert not [path for path in KERNELS.rglob("*.*") if "__restrict" in path.read_text()]


def test_parts_of_sums_are_handed_over_in_order(compiled):
    """Released and acquired by one atomic operation; what others stored comes from the common cache."""
    products = products_of(compiled.element)
    for name, counts in instructions(compiled.cubin).items():
        in_parts, tile = name.endswith("_partial"), products.get(name)
        fresh = sum(count for code, count in counts.items() if code.startswith("LDG.E.128.STRONG.GPU"))
        assert counts["ATOMG.E.INC.STRONG.GPU"] == total(counts, "MEMBAR") == in_parts, (name, counts)
        # As often as the loop over the parts is there: once, or unrolled.
        assert (fresh > 0) == in_parts, (name, counts)
        assert not in_parts or fresh % (tile.warp_rows // 8 * (tile.warp_columns // 16)) == 0, (name, counts)


def test_gpus_without_machine_code_here_can_compile_the_ptx(tmp_path):
    source = built_kernels() / "Brain-compute_80.ptx"
    command = ["nvcc", "--cubin", "-arch=sm_110", "-Xptxas", "-v", "-o", tmp_path / "thor.cubin", source]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert {name for name, (_, spilled) in resources(said).items() if not spilled} == {*products_of("Brain"), *PASSES}


def test_large_tiles_multiply_four_times_for_each_load_of_matrices():
    assert (TILES["large"].matrix_products, TILES["large"].matrix_loads) == (64, 16)
    assert blocks_of(255, TILES["large"].threads) == 2
