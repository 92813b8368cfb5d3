// A network, planned: operations in order, how many images each takes at a time, and the memory between them.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "bundle.h"
#include "operation.h"
#include "planner.h"

namespace deepsim::runtime::detail {

// Packed weights, shared by the plans that use them.
struct Packed {
  std::deque<Buffer> weights;
  std::deque<std::vector<float>> biases;
  WeightLimit limit;
};

// What a planner needs to know of the machine and of the user's wishes.
struct PlanOptions {
  const kernels::KernelTable* kernels = nullptr;
  ThreadPool* pool = nullptr;
  bool half_fc_weights = false;
};

class Plan {
 public:
  // From the encoder's pixels to features. Raises BundleError for a layer that this session has no kernel for.
  static Plan encoder(const Network& network, const Tensors& tensors, const PlanOptions& options, Packed* packed);
  // From features to whole images.
  static Plan generator(const Network& network, const Tensors& tensors, const PlanOptions& options, Packed* packed);

  // The same network, but only the `side` x `side` pixels of its images from `offset` on, and of every layer what these need.
  Plan cropped(int side, int offset) const;

  // Divide into groups of images and take memory for up to `images` at once, in `machine` where it is shared.
  void prepare(int images, Machine* machine);
  // `raw`: images as fp32, before they are clipped and rounded.
  void run(const Machine& machine, const void* in, void* out, int images, bool raw = false) const;
  std::size_t out_bytes(bool raw = false) const { return (raw ? raw_ : operations_.back())->out_bytes(); }

 private:
  friend class PlanBuilder;
  struct Segment {
    std::size_t begin = 0, end = 0;  // operations
    int group = 1;                   // images at a time
    Buffer out;                      // of all images, unless it is the last segment
    Buffer between[2];               // of one group
  };
  void build_operations();
  // The operations, the last one that for raw images.
  const Operation& operation(std::size_t index, bool raw) const {
    return raw && index + 1 == operations_.size() ? *raw_ : *operations_[index];
  }
  void run_group(const Machine& machine, const Segment& segment, const char* in, char* out, int images, bool raw) const;

  // The recipe: convolutions are kept as records so that cropped() can change them; anything else as it is.
  struct Step {
    std::shared_ptr<const Operation> other;
    kernels::Convolution convolution;
  };
  std::vector<Step> steps_;
  std::vector<std::shared_ptr<const Operation>> operations_;
  std::shared_ptr<const Operation> raw_;  // of a generator, instead of the last one: the same sums, stored as they are
  std::vector<Segment> segments_;
};

}  // namespace deepsim::runtime::detail
