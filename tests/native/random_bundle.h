// Bundles of random weights, written to a temporary folder, and what they should compute.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "../../kernels/cpu/reference.h"
#include "bundle_bytes.h"

namespace deepsim::tests {

constexpr int kSide = 227;  // of CaffeNet's images, which bundles have unless they say otherwise
constexpr std::size_t kImage = static_cast<std::size_t>(kSide) * kSide * 3;

// A layer with weights, or a pooling or normalising one; the table's other fields have their usual values.
Layer layer(const std::string& name, runtime::detail::Kind kind, int inputs, int outputs, int kernel, int stride, int padding,
            runtime::detail::Activation activation, int groups = 1);
Layer reshape(int channels, int height, int width);
// The same layer as an up-convolution of kernel 5, stride 2, padding 2 and output padding 1.
Layer wide_upconvolution(Layer layer);

// What a random bundle is made of.
struct Recipe {
  std::vector<Layer> encoder, generator;  // an encoder without layers: `kind` says what stands for it; either may be missing
  int side = kSide, offset = -1;          // below 0: centrally, rounded down
  bool tanh = false;                      // pixels as RGB, of another scale
  unsigned seed = 1;
  runtime::detail::EncoderKind kind = runtime::detail::EncoderKind::table;
  runtime::detail::Shape features = {};  // of a generator that no table of layers feeds, and of a graph alone
  runtime::detail::Display display = runtime::detail::Display::clip;
  int generated_side = 0;  // 0: `side`
};

struct RandomBundle {
  // Two small networks that use every kind of layer, both Winograd forms, groups, strides and both pixel stores.
  explicit RandomBundle(bool tanh, unsigned seed = 1);
  explicit RandomBundle(const Recipe& recipe);
  ~RandomBundle() { std::filesystem::remove_all(folder); }
  RandomBundle(const RandomBundle&) = delete;
  RandomBundle& operator=(const RandomBundle&) = delete;

  std::string path() const { return folder.string(); }

  std::filesystem::path folder;
  Manifest manifest;
  Weights weights;  // "encoder.conv1.weight" ...

 private:
  void add_weights(const Network& network, const std::string& prefix, unsigned seed, WeightShapes* shapes);
};

// |found - wanted| / |wanted| over all values, and the mean difference of two images in grey levels.
double relative_error(const float* found, const std::vector<double>& wanted);
double mean_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b);

// n images of smooth random blobs, uint8 RGB (n, side, side, 3).
std::vector<std::uint8_t> random_images(int n, unsigned seed, int side = kSide);

// Raw images as bytes: rounded half to even, clipped.
std::vector<std::uint8_t> rounded(const std::vector<float>& levels);

// The `side` x `side` pixels of an image (whole_side, whole_side, 3) from row and column `offset` on.
std::vector<std::uint8_t> cropped(const std::vector<std::uint8_t>& whole, int whole_side, int side, int offset);

// Features of one uint8 RGB image, and the image (side, side, 3) of features, in float64; rounded at the very end.
kernels::reference::Image reference_encode(const RandomBundle& bundle, const std::uint8_t* rgb);
std::vector<std::uint8_t> reference_decode(const RandomBundle& bundle, const kernels::reference::Image& features);

}  // namespace deepsim::tests
