// One step of a plan: what a layer (or a pair such as pool and LRN) became, ready to run on a group of images.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../../../kernels/cpu/kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace deepsim::runtime::detail {

// What operations run with: the kernels of one instruction set, the threads, and scratch memory for each of them.
struct Machine {
  const kernels::KernelTable* kernels = nullptr;
  std::shared_ptr<ThreadPool> pool;
  Buffer scratch;                  // threads * scratch_floats
  std::size_t scratch_floats = 0;  // of one thread
  Buffer panel;  // shared by the threads: the rows of a fully connected layer, tiles transformed by Winograd

  float* scratch_of(int thread) const { return scratch.floats() + static_cast<std::size_t>(thread) * scratch_floats; }
};

// Look up the kernels of an instruction set, "" for the best. Raises DeviceError naming those of this machine.
const kernels::KernelTable* kernels_named(const std::string& isa);

class Operation {
 public:
  virtual ~Operation() = default;
  // Compute `images` images: from `in`, in_bytes() each, to `out`, out_bytes() each.
  virtual void run(const Machine& machine, const void* in, void* out, int images) const = 0;
  virtual std::size_t in_bytes() const = 0;
  virtual std::size_t out_bytes() const = 0;
  // Floats of scratch that one thread needs for groups of up to `images` images.
  virtual std::size_t scratch_floats(const Machine&, int images) const {
    (void)images;
    return 0;
  }
  // Floats of the panel that the threads share.
  virtual std::size_t panel_floats(const Machine&, int images) const {
    (void)images;
    return 0;
  }
};

// uint8 RGB (side, side, 3) to network values, space-to-depth by `stride`: [blocks][height][width][16], channel
// (dy stride + dx) 3 + c; zeros beyond the border.
struct PixelsIn {
  int side = 0, stride = 1, pad = 0, height = 0, width = 0;
  bool bgr = false;
  float mean[3] = {}, scale[3] = {};
  int blocks() const { return kernels::blocks_of(3 * stride * stride); }
};

struct SpaceToDepth {
  int blocks = 0, in_height = 0, in_width = 0, stride = 1, pad = 0, height = 0, width = 0;
};

// [C][H][W] to or from blocked layout.
struct FeatureLayout {
  int channels = 0, height = 0, width = 0;
  int pixels() const { return height * width; }
};

std::unique_ptr<Operation> pixels_in(const PixelsIn& layer);
std::unique_ptr<Operation> space_to_depth(const SpaceToDepth& layer);
std::unique_ptr<Operation> features_in(const FeatureLayout& layout);
std::unique_ptr<Operation> features_out(const FeatureLayout& layout);
std::unique_ptr<Operation> pool(const kernels::Pool& layer);
std::unique_ptr<Operation> fully_connected(const kernels::FullyConnected& layer);
std::unique_ptr<Operation> convolution(const kernels::Convolution& layer);

}  // namespace deepsim::runtime::detail
