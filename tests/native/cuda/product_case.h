// Layers with weights, as the shift-GEMM computes them: inputs of one layer, its float64 result, and its runs on tiles.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "emulated_kernels.h"
#include "planes.h"

namespace deepsim::tests {

// One layer. blocks: a convolution; shuffle: an up-convolution (kernel 4, stride 2, padding 1, lowered to a 2x2
// convolution; or kernel 5, padding 2, output padding 1, lowered to a 3x3 one); connected: a fully connected layer; pixels: the
// last layer, an up-convolution or a convolution to bytes; levels: the same to fp32.
struct ProductCase {
  std::string store;
  int images, channels, outputs;  // of all groups
  int height, width;              // of the input
  int kernel = 2, pad = 1, groups = 1;
  float slope = 0.3f;
  int out_pad = 0;                    // of the grid that is written
  bool flat = false;                  // the result is read as one vector
  int out_height = 1, out_width = 1;  // of the map that a fully connected layer's result is
  int splits = 0;  // 0: as one sum; else in so many parts
  bool up = false;  // pixels: an up-convolution
  bool bgr = false, tanh255 = false;
  int crop = 0;  // pixels of a crop's side, 0 for the whole image
  bool scaled = false;  // pixels: their values are divided by kScales

  bool connected() const { return store == "connected"; }
  bool makes_images() const { return store == "pixels" || store == "levels"; }
  std::string product_store() const { return splits > 0 ? "partial" : store; }
  bool upsamples() const { return store == "shuffle" || up; }
  int up_kernel() const { return kernel == 3 ? 5 : 4; }
  int grid_pad() const { return upsamples() ? kernel - 1 : pad; }  // of the input's grid, below and to the right
  std::string text() const;
};

constexpr float kScales[3] = {0.75f, 2.0f, 1.25f};

// A tile of variants.h.
struct TileFacts {
  std::string name;
  int rows, columns, depth, threads;
  int (*shared_bytes)(int span, int taps, int chunks);
  int blocks = 0;  // that take tiles in turns, at the most; 0: each takes the one that the grid has for it
};

// The tiles that have a kernel with this store and serve this many channels of a group.
std::vector<TileFacts> tiles_for(const std::string& store, int channels, const Precision& precision);
// All kernels with a product: "large_blocks" ...
std::set<std::string> product_names(const Precision& precision);

// What a run wrote: bits of values in (n, C, H, W), or bytes or the bits of fp32 levels in (n, H, W, 3).
struct Written {
  std::vector<std::uint32_t> values;
  int touched_outside = 0;  // elements that no result belongs to
  bool operator==(const Written& other) const { return values == other.values && touched_outside == other.touched_outside; }
};

class ProductRun {
 public:
  ProductRun(const ProductCase& layer, const Precision& precision, unsigned seed = 1);

  // Run the kernel on a tile; `kernel` replaces the one that the product's name has. It starts beside what gives it its
  // input, which is poison before; what it stores too early counts as touched outside.
  Written run(const TileFacts& tile, const cuda::emulation::Schedule& schedule = {}, const EmulatedKernel* kernel = nullptr);

  // The result in float64, before it is rounded; and the sum of the magnitudes that were added for each value.
  const Tensor& wanted() const { return wanted_; }
  const Tensor& added() const { return added_; }
  int terms() const;  // that are summed for a value

  // For faults: change what the kernel is told.
  cuda::ShiftGemm& product() { return product_; }
  Tensor& weight() { return weight_; }
  const ProductCase& layer() const { return layer_; }
  // The same with one image of its input moved to the front.
  ProductRun alone(int image) const;

 private:
  void compute();
  void describe();
  void set_levels(cuda::Levels& levels) const;
  void crop();
  std::vector<unsigned char> packed(int unit, int depth) const;
  double packed_weight(int group, int column, int channel, int tap) const;
  int output_of(int column) const;
  int column_count() const;
  std::vector<float> packed_bias() const;
  Written run_pixels(const TileFacts& tile, const cuda::emulation::Schedule& schedule, const EmulatedKernel& kernel,
                     const std::function<void()>& give_input);
  void launch(const TileFacts& tile, const cuda::emulation::Schedule& schedule, const EmulatedKernel& kernel,
              const std::function<void()>& earlier) const;
  Planes output() const;

  ProductCase layer_;
  Precision precision_;
  Tensor input_, weight_, wanted_, added_;
  std::vector<double> bias_;
  cuda::ShiftGemm product_;
};

}  // namespace deepsim::tests
