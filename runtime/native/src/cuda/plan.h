// A network planned for a GPU: kernels in order, the grids of activations between them, and how many images each takes.
#pragma once

#include <memory>
#include <vector>

#include "../../../../kernels/cuda/layers.h"
#include "../bundle.h"
#include "../planner.h"
#include "gpu.h"
#include "products.h"

namespace deepsim::runtime::detail::cuda {

namespace kernel = deepsim::cuda;

// How an activation lies in memory; see kernels/cuda/layers.h.
struct Layout {
  int channels = 0, height = 1, width = 1;  // channels: a multiple of 16
  int pad = 0;        // rows and columns of zeros that the reader needs
  bool flat = false;  // the reader takes it as one vector
  int reach = 0;      // rows from the first tap of the reader's windows to the last
  int plane = 8;      // channels that lie together, the 16 bytes of a row

  int pixels() const { return height * width; }
  int pitch() const { return width + pad; }
  int image_rows() const { return flat ? 1 : (height + pad) * pitch(); }
  int guard() const { return flat ? 0 : pad * pitch() + pad; }
  int planes() const { return channels / plane * (flat ? pixels() : 1); }
  int plane_rows(int images) const { return guard() + images * image_rows(); }
  std::size_t bytes(int images) const;
  kernel::Place place(Address memory, int images) const;
};

// What a kernel of the plan is told; the fields that depend on the call are filled in when it is started.
struct Step {
  enum class Kind { pixels_in, space_to_depth, features_in, features_out, pool, connected, convolution };
  Kind kind = Kind::convolution;
  Layout in, out;             // one of them is unused at the ends of a network
  kernels::Convolution layer;  // convolution
  int depth = 0;              // channels of a chunk: convolution, connected
  int columns = 0;            // connected
  float slope = 1;            // connected
  DeviceMemory weights, bias;
  kernels::Pool pooling;
  PixelsIn pixels;
  SpaceToDepth depths;
  FeatureLayout features;

  bool wide() const { return kind == Kind::connected; }  // takes all images at once: its weights are what costs
};

// Which of a generator's pixels are written: all, or the central 227 x 227.
enum class Area { whole, crop };
constexpr int kCropSide = 227;

class Plan {
 public:
  // Raises as plan_encoder; NumericError for weights that the precision cannot hold; OutOfMemory.
  static Plan encoder(std::shared_ptr<const Gpu> gpu, Stream stream, const Network& network, const Tensors& tensors,
                      WeightLimit* limit, ThreadPool* pool);
  static Plan generator(std::shared_ptr<const Gpu> gpu, Stream stream, const Network& network, const Tensors& tensors,
                        WeightLimit* limit, ThreadPool* pool);

  // Take memory for up to `images` images at once. `stable`: an image's result has the same bits in every batch.
  void prepare(int images, bool stable, Stream stream, Instructions instructions = Instructions::mma);
  // Start all kernels on the stream. in, out: device memory of what the network reads and writes.
  void run(Stream stream, Address in, Address out, int images, Area area) const;

 private:
  friend class PlanBuilder;
  struct Activation {
    int capacity = 0;  // images
    DeviceMemory memory;
  };
  struct Part {  // images [first, first + count) of a step's input and output
    int first_in = 0, first_out = 0, count = 0;
  };
  void start(Stream stream, std::size_t step, Address in, Address out, const Part& part, Area area) const;
  void start_product(Stream stream, const Step& step, kernel::ShiftGemm product, const char* store, int groups) const;
  void start_convolution(Stream stream, const Step& step, const kernel::Place& in, const kernel::Place& out, Address pixels,
                         const Part& part, Area area) const;
  void start_connected(Stream stream, const Step& step, const kernel::Place& in, const kernel::Place& out,
                       const Part& part) const;
  int splits_for(const Step& step, int images) const;
  kernel::Place before(std::size_t step, int first) const;
  kernel::Place after(std::size_t step, int first) const;

  std::shared_ptr<const Gpu> gpu_;
  std::vector<Step> steps_;
  std::vector<Activation> activations_;  // [i] lies between step i and step i + 1
  DeviceMemory partial_;                 // sums of splits
  bool stable_ = false;
  Instructions instructions_ = Instructions::mma;
};

}  // namespace deepsim::runtime::detail::cuda
