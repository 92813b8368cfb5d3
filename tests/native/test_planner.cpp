// Tables that pass the manifest's checks and that no kernel should meet.
#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

#include "error.h"
#include "footprint.h"
#include "plan.h"
#include "random_bundle.h"

using namespace deepsim::runtime::detail;
using namespace deepsim::tests;

namespace {

// Without an activation, and pools whose extent is rounded down.
Layer plain(const std::string& name, Kind kind, int inputs = 0, int outputs = 0, int kernel = 1, int stride = 1,
            int padding = 0, int groups = 1) {
  Layer made = layer(name, kind, inputs, outputs, kernel, stride, padding, Activation::none, groups);
  made.ceil_mode = false;
  return made;
}

Network network(const Shape& input, std::vector<Layer> layers) {
  return {"made", input, std::move(layers), {true, {104, 117, 123}, {1, 1, 1}}};
}

// Tensors that suit the layers, all ones, in memory that `bytes` keeps.
Tensors ones(const Network& network, const std::string& prefix, std::string* bytes) {
  Weights weights;
  WeightShapes shapes;
  for (const Layer& each : network.layers) {
    if (!each.has_weights()) continue;
    const std::string name = prefix + "." + each.name;
    std::size_t count = 1;
    for (const std::int64_t extent : each.weight_shape()) count *= static_cast<std::size_t>(extent);
    shapes[name + ".weight"] = each.weight_shape();
    shapes[name + ".bias"] = {each.outputs};
    weights[name + ".weight"].assign(count, 1.0f);
    weights[name + ".bias"].assign(static_cast<std::size_t>(each.outputs), 1.0f);
  }
  *bytes = tensor_bytes(weights, shapes);
  return Tensors::parse(std::make_shared<Bytes>(bytes->data(), bytes->size(), false), "weights.safetensors");
}

// What planning this network says: the message of its refusal, or "planned".
std::string answer(const Network& network, bool encoder, std::size_t spare_bytes = std::size_t{256} << 20) {
  std::string bytes;
  const std::string prefix = encoder ? "encoder" : "generator";
  const Tensors tensors = ones(network, prefix, &bytes);
  ThreadPool pool(1);
  const PlanOptions options{kernels_named(""), &pool, false};
  Packed packed;
  packed.limit.spare_bytes = spare_bytes;
  try {
    (encoder ? Plan::encoder : Plan::generator)(network, tensors, options, &packed);
  } catch (const Failure& failure) {
    CHECK(failure.kind() == deepsim::runtime::ErrorKind::bundle);
    return failure.what();
  }
  return "planned";
}

constexpr Shape kPhoto{3, 227, 227, false};

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a stride whose square overflows is refused before anything is allocated") {
  const Network first = network(kPhoto, {plain("conv1", Kind::conv, 3, 16, 8, 65536)});
  CHECK(answer(first, true) ==
        "encoder layer conv1: activations take 51,539,607,552 bytes, expected at most 268,435,456. "
        "Use backend onnxruntime or torch.");
  const Network later =
      network(kPhoto, {plain("conv1", Kind::conv, 3, 16, 8, 8), plain("conv2", Kind::conv, 16, 16, 1, 60000)});
  CHECK(contains(answer(later, true), "encoder layer conv2: activations take "));
}

TEST_CASE("a few weights that become many are refused, also when layers share them") {
  const Network depthwise =
      network(kPhoto, {plain("conv1", Kind::conv, 3, 32767, 1, 16), plain("conv2", Kind::conv, 32767, 32767, 1, 1, 0, 32767)});
  CHECK(contains(answer(depthwise, true), "encoder layer conv2: weights up to it take 4,"));
  std::vector<Layer> same(42, plain("fc", Kind::fc, 512, 512));
  same[0] = plain("conv1", Kind::conv, 3, 16, 3, 16);
  same[1] = plain("fc1", Kind::fc, 15 * 15 * 16, 512);
  CHECK(answer(network(kPhoto, same), true) == "planned");
  CHECK(contains(answer(network(kPhoto, same), true, 0), "encoder layer fc: weights up to it take "));
  const std::size_t little = std::size_t{16} << 20;
  CHECK(contains(answer(network(kPhoto, same), true, little), "encoder layer fc: weights up to it take "));
}

TEST_CASE("activations of a hostile shape are refused") {
  const Network large = network({1, 4096, 4096, false}, {plain("norm", Kind::lrn), plain("conv", Kind::conv, 1, 3)});
  CHECK(contains(answer(large, false), "generator layer norm: activations take 1,073,741,824 bytes"));
}

// Pooling took the normalisation after it along; as the last layer it wrote floats into an image of bytes.
TEST_CASE("only a convolution may make the image") {
  const Network pooled = network({3, 230, 230, false}, {plain("pool", Kind::pool), plain("norm", Kind::lrn)});
  CHECK(contains(answer(pooled, false), "generator layer norm: the cpu backend has no kernel for this last layer"));
}

TEST_CASE("what a layer says is done or refused") {
  Layer pool = plain("pool", Kind::pool, 0, 0, 1, 4);
  pool.ceil_mode = true;  // of 13 pixels its last window begins at the last one, of 14 beyond
  const auto pooled = [&](int kernel) {
    return answer(network(kPhoto, {plain("conv1", Kind::conv, 3, 16, kernel, 16), pool}), true);
  };
  CHECK(pooled(16) ==
        "encoder layer pool: the cpu backend has no kernel for this pooling, whose last windows are empty. "
        "Use backend onnxruntime or torch.");
  CHECK(pooled(20) == "planned");
  pool.activation = Activation::relu;
  CHECK(contains(pooled(20), "no kernel for this activation"));
  pool.activation = Activation::none;
  pool.padding = 1;
  CHECK(contains(pooled(20), "no kernel for this padding"));
  pool.padding = 0;
  pool.groups = 2;
  CHECK(contains(pooled(20), "no kernel for this number of groups"));
  const auto made = [](int kernel, int stride, int padding, int output_padding) {
    Layer up = plain("up", Kind::deconv, 16, 3, kernel, stride, padding);
    up.output_padding = output_padding;
    const Layer same = plain("image", Kind::conv, 3, 3, 1);
    return answer(network({16, 8, 8, false}, {up, same}), false) + answer(network({16, 8, 8, false}, {up}), false);
  };
  CHECK(made(4, 2, 1, 0) == "plannedplanned");
  CHECK(made(5, 2, 2, 1) == "plannedplanned");
  const std::array<int, 4> others[] = {{5, 2, 2, 0}, {5, 2, 1, 0}, {4, 2, 1, 1}, {4, 2, 2, 1},
                                       {5, 3, 2, 1}, {3, 2, 1, 1}, {6, 2, 2, 0}};
  for (const auto& [kernel, stride, padding, output_padding] : others) {
    CAPTURE(kernel);
    const std::string refused = made(kernel, stride, padding, output_padding);
    CHECK(contains(refused, "generator layer up: the cpu backend has no kernel for this deconvolution. "));
    CHECK(contains(refused, "generator layer up: the cpu backend has no kernel for this last layer. "));
  }
  Layer reshape = plain("reshape", Kind::reshape);
  reshape.shape = {32, 1, 1, false};
  CHECK(answer(network({32, 1, 1, true}, {reshape, plain("conv", Kind::conv, 32, 3)}), false) == "planned");
}

// What fell through became the identity: an activation that only one side knew was left out without a word.
TEST_CASE("every reader refuses a kind or an activation that it does not know") {
  const auto refusal = [](const auto& reads) -> std::string {
    try {
      reads();
    } catch (const Failure& failure) {
      CHECK(failure.kind() == deepsim::runtime::ErrorKind::bundle);
      return failure.what();
    }
    return "read";
  };
  const std::vector<float> ones(16 * 16 * 9, 1.0f);
  const Shape map{16, 8, 8, false};
  Layer invented = plain("made", static_cast<Kind>(99), 16, 16, 3, 1, 1);
  const std::string kind = "does not know kind 99 with activation 0, expected known ones.";
  CHECK(refusal([&] { invented.has_weights(); }) == "layer made: the table of kinds " + kind);
  CHECK(contains(refusal([&] { invented.weight_shape(); }), kind.c_str()));
  CHECK(contains(refusal([&] { invented.output_shape(map); }), kind.c_str()));
  CHECK(contains(refusal([&] { footprint_of(invented, map, map, false, false); }), kind.c_str()));
  CHECK(contains(refusal([&] { lower_convolution(invented, map, ones.data(), ones.data()); }), kind.c_str()));
  Layer swish = plain("made", Kind::conv, 16, 16, 3, 1, 1);
  swish.activation = static_cast<Activation>(99);
  const std::string activation = "layer made: lowering does not know kind 1 with activation 99, expected known ones.";
  CHECK(refusal([&] { slope_of(swish); }) == activation);
  CHECK(refusal([&] { lower_convolution(swish, map, ones.data(), ones.data()); }) == activation);
  const Network network_of_it = network(map, {swish, plain("image", Kind::conv, 16, 3, 3, 1, 1)});
  CHECK(answer(network_of_it, false) == activation);
}
