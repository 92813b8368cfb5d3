// Walks a network's layer table and tells a builder what to compute, step by step, in terms that every kind of kernel
// shares: stride-1 convolutions, fully connected layers on blocked vectors, pooling, and changes of layout.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "bundle.h"
#include "lowering.h"
#include "operation.h"

namespace deepsim::runtime::detail {

// A fully connected layer whose input and output are blocked: input_of[k] and row_of[column] give where a packed input or
// column is found in weight[outputs][inputs], -1 for padding.
struct Connected {
  const float* weight = nullptr;
  std::int64_t inputs = 0;
  std::vector<int> input_of, row_of;
  std::vector<float> bias;  // of every packed column
  float slope = 1;
  Shape input, output;  // the maps that the vectors are; {C, 1, 1} where they are plain
};

class Builder {
 public:
  virtual ~Builder() = default;
  virtual std::string name() const = 0;           // "the cpu backend"
  // Whether 2x2 outputs of a window (p, q) may lie at (2p + a, 2q + b), and not at (2p - a, 2q - b) alone. Then up-convolutions
  // have fewer windows, and a last convolution's 2x2 pixels are stacked into one.
  virtual bool stores_forward() const = 0;
  virtual void pixels_in(const PixelsIn& layer) = 0;
  virtual void space_to_depth(const SpaceToDepth& layer) = 0;
  virtual void features_in(const FeatureLayout& layout) = 0;
  virtual void features_out(const FeatureLayout& layout) = 0;
  virtual void pool(const kernels::Pool& layer) = 0;
  virtual void fully_connected(Connected layer) = 0;
  virtual void convolution(Lowered layer) = 0;
};

// What lowered weights may take: `spare_bytes` beyond twice the size of the file. `floats` counts, over both networks.
struct WeightLimit {
  std::size_t spare_bytes = std::size_t{256} << 20;
  double floats = 0;
};

// Tell the builder of a network. Raises BundleError for a layer that no kernel computes, or that takes absurd memory.
void plan_encoder(const Network& network, const Tensors& tensors, WeightLimit* limit, Builder* builder);
void plan_generator(const Network& network, const Tensors& tensors, WeightLimit* limit, Builder* builder);

}  // namespace deepsim::runtime::detail
