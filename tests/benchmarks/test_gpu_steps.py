import pytest

from deepsim.benchmarks.gpu.device import Kernel, after_markers, busy_seconds, kernels_of, split
from deepsim.benchmarks.gpu.steps import attribute, encoder_steps, floor_seconds, generator_steps, inputs_of
from deepsim.benchmarks.gpu.timing import by_step
from deepsim.benchmarks.work import Roofs
from deepsim.kernels.layers import Layer, macs
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.generators import generator_spec
from deepsim.runtime.networks import CAFFENET

FC6 = generator_spec("fc6")
GENERATOR = generator_steps(FC6.layers, FC6.input_shape)
ENCODER = encoder_steps(CAFFENET.up_to("pool5"), CAFFENET.input_shape)
ROOFS = Roofs(395_000.0, 4_300.0)  # of an H200, about


def test_steps_are_what_is_computed_together():
    assert [step.name for step in ENCODER] == [
        *("conv1", "pool1+norm1", "conv2", "pool2+norm2", "conv3", "conv4", "conv5", "pool5")
    ]
    assert [step.kind for step in ENCODER] == ["conv", "pool", "conv", "pool", "conv", "conv", "conv", "pool"]
    names = [step.name for step in GENERATOR]
    assert names[:4] == ["defc7", "defc6", "defc5", "deconv5"] and len(names) == 12
    first = GENERATOR[3]
    assert [layer.name for layer in first.layers] == ["reshape", "deconv5"] and first.input_shape == (4096,)
    assert first.without_reshape == (first.layers[1:], (256, 4, 4))
    assert [step.name for step in GENERATOR if step.upconvolution] == [f"deconv{i}" for i in (5, 4, 3, 2, 1, 0)]


def test_bytes_are_those_of_the_types_at_each_border():
    assert (ENCODER[0].input_bytes, ENCODER[0].output_bytes) == (3 * 227 * 227, 2 * 96 * 55 * 55)
    assert (ENCODER[-1].input_bytes, ENCODER[-1].output_bytes) == (2 * 256 * 13 * 13, 4 * 256 * 6 * 6)
    assert (GENERATOR[0].input_bytes, GENERATOR[-1].output_bytes) == (4 * 4096, 3 * 227 * 227)


def test_the_floor_is_the_later_of_both_roofs():
    connected, uconv3, uconv1 = GENERATOR[0], GENERATOR[7], GENERATOR[10]
    assert (uconv3.name, uconv1.name) == ("deconv3", "deconv1")
    weights = 2 * (4096 * 4096 + 4096)
    assert connected.floor_seconds(1, ROOFS) == pytest.approx((weights + 6 * 4096) / 4300e9)
    assert uconv3.floor_seconds(256, ROOFS) == pytest.approx(256 * 134_217_728 / 395e12)
    moved = 2 * (64 * 32 * 16 + 32) + 256 * 2 * (64 * 59 * 59 + 32 * 115 * 115)  # that the crop needs
    assert uconv1.floor_seconds(256, ROOFS) == pytest.approx(moved / 4300e9)
    # whole images would take 27.7 us at batch 1, of which 23.4 for connected weights, and 2.85 us each at 256
    assert floor_seconds(GENERATOR, 1, ROOFS) * 1e6 == pytest.approx(27.4, rel=0.01)
    assert floor_seconds(GENERATOR[:3], 1, ROOFS) * 1e6 == pytest.approx(23.4, rel=0.01)
    assert floor_seconds(GENERATOR, 256, ROOFS) / 256 * 1e6 == pytest.approx(2.60, rel=0.01)


def test_a_generators_work_is_that_of_the_crop():
    whole = [macs(step.layers, step.input_shape) for step in GENERATOR]
    counted = {step.name: step.multiply_adds / each for step, each in zip(GENERATOR, whole, strict=True)}
    assert counted["deconv0"] == pytest.approx((227 / 256) ** 2) and counted["deconv1"] == pytest.approx(
        (115 / 128) ** 2
    )
    assert counted["conv3_1"] == pytest.approx((31 / 32) ** 2) and counted["deconv3"] == 1.0
    assert sum(whole) == macs(FC6.layers, FC6.input_shape)
    assert sum(step.multiply_adds for step in ENCODER) == macs(CAFFENET.up_to("pool5"), CAFFENET.input_shape)


@pytest.mark.parametrize(
    "layer",
    [
        Layer("up", "deconv", 1, 1, 4, 2, 1),
        Layer("strided", "deconv", 1, 1, 5, 2, 2),
        Layer("same", "conv", 1, 1, 3, 1, 1),
        Layer("halving", "conv", 1, 1, 5, 2, 2),
    ],
    ids=lambda layer: layer.name,
)
def test_inputs_are_those_that_the_outputs_are_made_of(layer):
    side = 9
    spread = layer.kind == "deconv"  # output o is made of input i where o = i * stride - padding + t, or the reverse
    for pixels in (range(0, 1), range(3, 7), range(2, layer.output_shape((1, side, side))[1])):
        wanted = {
            i
            for i in range(side)
            for t in range(layer.kernel)
            for o in pixels
            if (o == i * layer.stride - layer.padding + t if spread else i == o * layer.stride - layer.padding + t)
        }
        assert set(inputs_of(layer, pixels, (1, side, side))) == wanted


CONVOLUTIONS = ["shuffle", "blocks"] * 3 + ["shuffle", "shuffle", "pixels"]  # of the generator, by what they store


def kernels(split_sums=False):
    """The kernels of a call to decode, and the places of their steps: the last three run twice, for half the images."""
    ours = ["read_features"]
    ours += 3 * ["skinny_partial" if split_sums else "large_connected"]
    ours += ["small_partial" if split_sums else "large_shuffle"]
    ours += [f"large_{kind}" for kind in CONVOLUTIONS[1:]]
    order = [*range(len(ours) - 3), *[len(ours) - 3, len(ours) - 2, len(ours) - 1] * 2]
    return [ours[place] for place in order], order


@pytest.mark.parametrize("split_sums", [True, False])
def test_kernels_find_their_steps(split_sums):
    names, places = kernels(split_sums)
    found = attribute(names, places, GENERATOR)
    assert found.count("input") == 1
    for step in GENERATOR:
        assert found.count(step.name) == (2 if step in GENERATOR[-3:] else 1)
    assert found[1] == "defc7" and found[-3:] == ["deconv2", "deconv1", "deconv0"]


def test_an_encoders_passes_belong_to_what_they_prepare():
    once = ["read_pixels", "small_blocks", "pool_and_normalise", "large_blocks", "pool_and_normalise"]
    once += ["large_blocks", "large_blocks", "large_blocks", "pool_and_normalise", "write_features"]
    names, places = ["input", *(step.name for step in ENCODER), "output"], list(range(len(once)))
    assert attribute(once * 2, places * 2, ENCODER) == names * 2
    deeper = encoder_steps(CAFFENET.up_to("fc7"), CAFFENET.input_shape)
    connected = ["skinny_partial", "large_connected", "write_features"]
    ends = ["fc6", "fc7", "output"]
    found = attribute([*once[:-1] * 2, *connected], [*places[:-1] * 2, 9, 10, 11], deeper)
    assert found == names[:-1] * 2 + ends
    norm1 = generator_spec("norm1")
    steps = generator_steps(norm1.layers, norm1.input_shape)
    ours = ["read_features", "to_depth", *["large_blocks"] * len(steps)]
    strided = attribute(ours, range(len(ours)), steps)
    assert strided == ["input", "Rconv6", *(step.name for step in steps)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda names, places: (names[:-1], places), "15 kernels, expected 16"),
        (lambda names, places: (["volta_gemm", *names[1:]], places), "volta_gemm, expected one for defc7"),
        (
            lambda names, places: (names[:1] + names[4:], places[:1] + places[4:]),
            "large_shuffle, expected one for defc7",
        ),
        (lambda names, places: (names[:-6], places[:-6]), "no kernel, expected one for deconv2"),
        (lambda names, places: ([*names, "large_blocks"], [*places, 99]), "large_blocks, expected no more"),
        (lambda names, places: ([*names[:-1], "large_connected"], places), "large_connected, expected one for deconv0"),
    ],
)
def test_kernels_of_another_network_are_refused(change, words):
    names, places = change(*kernels())
    with pytest.raises(DeviceError, match=words):
        attribute(names, places, GENERATOR)


def test_times_are_medians_summed_for_each_step():
    names, places = kernels(split_sums=True)
    calls = [[Kernel(name, seconds) for name in names] for seconds in (1.0, 5.0, 2.0)]
    found = by_step(calls, places, GENERATOR)
    assert found["input"] == 2.0 and found["defc6"] == 2.0 and found["deconv0"] == 4.0 and "output" not in found
    assert sum(found.values()) == 2.0 * len(names)


def test_a_trace_becomes_kernels_in_order_of_time():
    events = [
        {"cat": "kernel", "name": "second", "ts": 20.5, "dur": 3.0},
        {"cat": "gpu_memcpy", "name": "copy", "ts": 19.0, "dur": 1.0},
        {"cat": "kernel", "name": "first", "ts": 10.0, "dur": 1.5},
        {"ph": "M", "name": "process_name"},
    ]
    found = kernels_of({"traceEvents": events})
    assert [kernel.name for kernel in found] == ["first", "second"]
    assert [kernel.seconds for kernel in found] == pytest.approx([1.5e-6, 3e-6])


def test_what_ran_before_the_last_marker_is_dropped():
    marker = Kernel(
        "void vectorized_elementwise_kernel<4, at::native::FillFunctor<short>, std::array<char*, 1ul> >", 1.0
    )
    a, b = Kernel("FillFunctor<float>", 1.0), Kernel("b", 1.0)
    assert after_markers([b, marker, marker, a, b]) == [a, b] and after_markers([marker]) == []
    for lost in ([], [a, b]):
        with pytest.raises(DeviceError, match=f"profiler: {len(lost)} kernels recorded and not those that mark"):
            after_markers(lost)


def test_kernels_side_by_side_count_once_and_may_change_places():
    long, beside, after = Kernel("long", 4.0, 10.0), Kernel("beside", 1.0, 12.0), Kernel("after", 1.0, 20.0)
    overlapping = Kernel("overlapping", 3.0, 13.0)
    assert busy_seconds([after, long, beside]) == 5.0 and busy_seconds([long, overlapping]) == 6.0
    assert busy_seconds([]) == 0.0
    assert split([long, beside, beside, long], 2, ordered=False) == [[long, beside], [beside, long]]
    with pytest.raises(DeviceError, match="4 kernels in 2 equal calls"):
        split([long, beside, long, long], 2, ordered=False)


def test_calls_that_are_not_equal_are_refused():
    a, b = Kernel("a", 1.0), Kernel("b", 2.0)
    assert split([a, b, a, b], 2) == [[a, b], [a, b]]
    for kernels_, calls in (([a, b, a], 2), ([a, b, b, a], 2), ([], 2)):
        with pytest.raises(DeviceError, match=f"{len(kernels_)} kernels in 2 equal calls"):
            split(kernels_, calls)
