"""The operator's Triton kernels: by Triton's interpreter, in a process of its own; compiled for GPUs that are not here;
and on a GPU, where there is one."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

from torch.nn import functional  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from deepsim.kernels import upconv_lrelu_triton as kernels  # noqa: E402
from deepsim.kernels.upconv_lrelu import TRITON_DTYPES, in_triton, upconv_lrelu  # noqa: E402
from deepsim.kernels.upconv_lrelu_triton import Machine, tiles_for  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
NAMES = {"fp16": torch.float16, "bf16": torch.bfloat16}
MATRICES = {80: "HMMA", 86: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA", 120: "HMMA"}  # by compute capability
MOST_SHARED = {80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}  # bytes that a block may use
# Input and output channels: those of the generators, and some that are no multiples of 8.
CHANNELS = [(512, 256), (256, 128), (128, 64), (64, 32), (32, 3), (40, 6), (5, 3), (33, 40)]
old = pytest.mark.skipif(tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3), reason="another way to compile")


def test_they_compute_what_they_should_in_the_interpreter():
    file = Path(__file__).with_name("upconv_lrelu_interpreted.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
        **{"capture_output": True, "text": True, "timeout": 600, "cwd": ROOT},
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 40


def test_tensors_of_a_cpu_are_none_of_theirs():
    assert not any(in_triton(torch.zeros(1, dtype=dtype)) for dtype in (*TRITON_DTYPES, torch.float32))


def compiled(kernel, values, capability, options, folder):
    """Compile a kernel for a GPU as a call with these arguments would; return its memory and its instructions."""
    names = kernel.arg_names
    constants = {(at,): values[name] for at, name in enumerate(names) if name.isupper()}
    kinds = {int: "i32", float: "fp32"}
    signature = {name: kinds.get(type(values[name])) or f"*{values[name]}" for name in names}
    signature |= {name: "constexpr" for name in names if name.isupper()}
    attributes = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if signature[name][0] == "*"}
    source = ASTSource(kernel, signature, constants, attributes)
    done = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(done.asm["cubin"])
    tools = (["cuobjdump", "-res-usage"], ["nvdisasm", "-c"])
    used, code = (
        subprocess.run([TOOLS / tool[0], *tool[1:], cubin], check=True, capture_output=True, text=True).stdout
        for tool in tools
    )
    memory = {name.lower(): int(count) for name, count in re.findall(r"(STACK|LOCAL):(\d+)", used)}
    counts = Counter(re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)", code, re.MULTILINE))
    return {**memory, "shared": done.metadata.shared}, counts


@old
@pytest.mark.slow
@pytest.mark.parametrize("windows", [2 * 9 * 9, 64 * 65 * 65])
@pytest.mark.parametrize("capability", MATRICES)
@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
def test_the_forward_pass_compiles_to_matrix_instructions_and_spills_nothing(
    inputs, outputs, capability, windows, tmp_path
):
    tiles = tiles_for(inputs, outputs, windows, Machine(capability // 10, 132))
    element = "bf16" if inputs == 64 else "fp16"
    values = {
        **dict.fromkeys(("x", "phases", "bias", "y"), element),
        **{"rows": windows, "height": 8, "width": 8, "slope": 0.3},
        **{"INPUTS": inputs, "OUTPUTS": outputs, "HAS_BIAS": True, "ONE_PHASE": outputs % tiles.columns == 0},
        **{"ROWS": tiles.rows, "COLUMNS": tiles.columns, "DEPTH": tiles.depth},
    }
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    memory, counts = compiled(kernels._upconv_lrelu, values, capability, options, tmp_path)
    assert memory.pop("shared") <= MOST_SHARED[capability]
    assert not any(memory.values()) and not counts["LDL"] + counts["STL"], (memory, counts)
    assert counts[MATRICES[capability]] > 0, counts
    copied = counts["LDGSTS"] > counts["LDG"]  # ahead, in whole pieces of 16 bytes
    assert copied == (inputs % 8 == 0), counts


@old
@pytest.mark.slow
@pytest.mark.parametrize("capability", MATRICES)
@pytest.mark.parametrize("channels", [3, 256])
def test_the_backward_pass_compiles_and_spills_nothing(capability, channels, tmp_path):
    values = {
        **dict.fromkeys(("grad", "output", "masked"), "fp16"),
        **{"sums": "fp32", "rows": 64 * 128 * 128, "each": 16, "slope": 0.3},
        **{"CHANNELS": channels, "ROWS": 64, "COLUMNS": min(64, kernels._power_of_two(channels))},
    }
    memory, counts = compiled(kernels._before_activation, values, capability, {"num_warps": 4}, tmp_path)
    memory.pop("shared")
    assert not any(memory.values()) and not counts["LDL"] + counts["STL"], (memory, counts)


# Images and sides of a batch that fills no GPU, and of one that fills every.
ON_A_GPU = [(shape, element) for shape in ((5, 17, 12), (64, 33, 33)) for element in NAMES]


def on_the_gpu(shape, inputs, outputs, dtype, memory_format):
    """Return x, weight and bias on the GPU, or skip."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    if not in_triton(torch.zeros(1, device="cuda", dtype=dtype)):
        pytest.skip("compute capability below 8.0, or no Triton")
    rng = torch.Generator().manual_seed(2)
    images, height, width = shape
    x = torch.randn(images, inputs, height, width, generator=rng).cuda().to(dtype, memory_format=memory_format)
    weight = (torch.randn(inputs, outputs, 4, 4, generator=rng) / (4 * inputs) ** 0.5).cuda().to(dtype)
    return [each.requires_grad_() for each in (x, weight, torch.randn(outputs, generator=rng).cuda().to(dtype))]


@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "element"), ON_A_GPU)
@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
def test_on_a_gpu_every_value_is_rounded_once_and_repeats(shape, inputs, outputs, element):
    x, weight, bias = (
        each.detach() for each in on_the_gpu(shape, inputs, outputs, NAMES[element], torch.channels_last)
    )
    plain = functional.conv_transpose2d(x.double(), weight.double(), bias.double(), 2, 1)
    wanted, first = functional.leaky_relu(plain, 0.3), None
    unit = 2**-11 if element == "fp16" else 2**-8
    for _ in range(20):
        y = torch.full(wanted.shape, float("nan"), dtype=x.dtype, device="cuda").to(memory_format=torch.channels_last)
        kernels.upconv_lrelu(x, weight, bias, 0.3, y)
        assert float(((y.double() - wanted).abs() - unit * wanted.abs()).max()) < 1e-4
        first = y if first is None else first
        assert torch.equal(y, first)


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("element", NAMES)
@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
def test_on_a_gpu_gradients_are_near_float64(inputs, outputs, element, memory_format):
    tensors = on_the_gpu((5, 17, 12), inputs, outputs, NAMES[element], memory_format)
    y = upconv_lrelu(*tensors, 0.3)
    assert y.is_contiguous(memory_format=memory_format)
    grad = torch.rand(y.shape, generator=torch.Generator().manual_seed(3)).cuda().to(y.dtype)
    wide = [each.detach().double().requires_grad_() for each in tensors]
    sides = torch.where(y.detach() > 0, 1.0, 0.3).double()
    wanted = torch.autograd.grad(functional.conv_transpose2d(*wide, 2, 1), wide, grad.double() * sides)
    found = torch.autograd.grad(y, tensors, grad)
    errors = [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]
    assert max(errors) < (2e-3 if element == "fp16" else 2e-2), errors
