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

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
NAMES = {"fp16": torch.float16, "bf16": torch.bfloat16}
MATRICES = {80: "HMMA", 86: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA", 120: "HMMA"}  # by compute capability
MOST_SHARED = {80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}  # bytes that a block may use
# Input and output channels: those of the generators, and some that are no multiples of 16.
CHANNELS = [(512, 256), (64, 32), (32, 3), (40, 6), (5, 3)]


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
    constant = {name: value for name, value in values.items() if name.isupper() or (name.count("_") and value == 1)}
    kinds = {int: "i32", float: "fp32", str: None}
    signature = {
        name: "constexpr" if name in constant else kinds[type(values[name])] or f"*{values[name]}" for name in names
    }
    whole = [[0 if isinstance(values[name], str) else values[name], name] for name in names if name not in constant]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for value, name in whole if value % 16 == 0}
    constants = {(names.index(name),): value for name, value in constant.items()}
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


@pytest.mark.slow
@pytest.mark.parametrize("capability", MATRICES)
@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
def test_the_forward_pass_compiles_to_matrix_instructions_and_spills_nothing(capability, inputs, outputs, tmp_path):
    tiles = kernels.tiles_for(inputs, outputs)
    options = {name: tiles.pop(name) for name in ("num_warps", "num_stages")}
    side = 64
    element = "bf16" if inputs == 64 else "fp16"
    values = {
        **dict.fromkeys(("x", "weight", "bias", "y"), element),
        **{"windows": 8 * (side + 1) ** 2, "height": side, "width": side, "slope": 0.3},
        **{"x_image": side * side * inputs, "x_channel": 1, "x_row": side * inputs, "x_column": inputs},
        **{"y_image": 4 * side * side * outputs, "y_channel": 1, "y_row": 2 * side * outputs, "y_column": outputs},
        **{"INPUTS": inputs, "OUTPUTS": outputs, "HAS_BIAS": True, **tiles},
    }
    memory, counts = compiled(kernels._upconv_lrelu, values, capability, options, tmp_path)
    assert memory.pop("shared") <= MOST_SHARED[capability]
    assert not any(memory.values()) and not counts["LDL"] + counts["STL"], (memory, counts)
    assert counts[MATRICES[capability]] > 0, counts
    copied = counts["LDGSTS"] > counts["LDG"]  # ahead, in whole pieces of 16 bytes
    assert copied == (inputs % 16 == 0), counts


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


@pytest.mark.gpu
@pytest.mark.parametrize("element", NAMES)
@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
def test_on_a_gpu_values_and_gradients_are_near_float64_and_repeat(inputs, outputs, element):
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    dtype = NAMES[element]
    if not in_triton(torch.zeros(1, device="cuda", dtype=dtype)):
        pytest.skip("compute capability below 8.0")
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(5, inputs, 17, 12, generator=rng).cuda().to(dtype, memory_format=torch.channels_last)
    weight = (torch.randn(inputs, outputs, 4, 4, generator=rng) / (4 * inputs) ** 0.5).cuda().to(dtype)
    bias = torch.randn(outputs, generator=rng).cuda().to(dtype)
    tensors = [each.requires_grad_() for each in (x, weight, bias)]
    y = upconv_lrelu(*tensors, 0.3)
    grad = torch.rand(y.shape, generator=rng).cuda().to(dtype)
    wide = [each.detach().double().requires_grad_() for each in tensors]
    plain = functional.conv_transpose2d(*wide, 2, 1)
    sides = torch.where(y.detach() > 0, 1.0, 0.3).double()
    found = [y.detach(), *torch.autograd.grad(y, tensors, grad)]
    wanted = [functional.leaky_relu(plain, 0.3).detach(), *torch.autograd.grad(plain, wide, grad.double() * sides)]
    errors = [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]
    assert max(errors) < (2e-3 if element == "fp16" else 2e-2), errors
    assert all(torch.equal(upconv_lrelu(*tensors, 0.3), y) for _ in range(20))
