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
  bool fits(int images) const;  // kernels count rows in 31 bits
  std::size_t bytes(int images) const;
  kernel::Place place(Address memory, int images) const;
};

// Which of a generator's pixels are written: all, or those that its bundle's geometry keeps. And as what: uint8, or what these
// are rounded from, fp32.
enum class Area { whole, crop };
enum class Levels { rounded, raw };

// What a kernel of the plan is told; the fields that depend on the call are filled in when it is started.
struct Step {
  enum class Kind { pixels_in, space_to_depth, features_in, features_out, pool, connected, convolution };
  Kind kind = Kind::convolution;
  Layout in, out;             // one of them is unused at the ends of a network
  kernels::Convolution layer, cropped;  // convolution: for whole images, and for the part of them that is kept
  int depth = 0;              // channels of a chunk: convolution, connected
  int columns = 0;            // connected
  float slope = 1;            // connected
  DeviceMemory weights, bias;
  kernels::Pool pooling;
  PixelsIn pixels;
  SpaceToDepth depths;
  FeatureLayout features;

  bool wide() const { return kind == Kind::connected; }  // takes all images at once: its weights are what costs
  bool multiplies() const { return kind == Kind::connected || kind == Kind::convolution; }
  const kernels::Convolution& convolution(Area area) const { return area == Area::crop ? cropped : layer; }
  // Of the product that it then is.
  ProductSize size(int images, Area area = Area::whole, Levels levels = Levels::rounded) const;
};

class Plan {
 public:
  // Raises as plan_encoder; NumericError for weights that the precision cannot hold; OutOfMemory.
  static Plan encoder(std::shared_ptr<const Gpu> gpu, Stream stream, const Network& network, const Tensors& tensors,
                      WeightLimit* limit, ThreadPool* pool);
  static Plan generator(std::shared_ptr<const Gpu> gpu, Stream stream, const Manifest& manifest, const Tensors& tensors,
                        WeightLimit* limit, ThreadPool* pool);

  struct Settings {
    int images = 1;       // at most, at once
    bool stable = false;  // an image's result has the same bits in every batch
    Kernels kernels = {};
  };
  // Choose how to run; the bytes of memory that prepare will take.
  std::size_t configure(const Settings& settings);
  void prepare(Stream stream);
  // Start all kernels on the stream; the network reads and writes device memory.
  void run(Stream stream, const Ends& ends, int images, Area area, Levels levels = Levels::rounded) const;
  // The same for `iterations` of encoding and decoding. Between two of them no image is written: the generator's last layer
  // hands its grey levels to the encoder, while they are in the cache.
  // `features`: device memory for those of `count` images.
  static void run_loop(Stream stream, const Plan& encoder, const Plan& generator, const Ends& images, Address features,
                       int count, int iterations);
  // Which step each kernel of `run` is of, in order.
  std::vector<int> steps_of_kernels(int images) const;

 private:
  friend class PlanBuilder;
  struct Activation {
    int capacity = 0;  // images
    std::size_t bytes = 0;
    DeviceMemory memory;
  };
  struct Part {  // images [first, first + count)
    int first = 0, count = 0;
  };
  // What one pass through the network reads and writes.
  struct Pass {
    Ends ends;
    bool first = true, last = true;  // of the call's passes: its source is the call's, its result is
    Area area = Area::crop;
    const Plan* reader = nullptr;  // instead of a result: whose encoder takes the generator's images
    Levels levels = Levels::rounded;

    EndField source(const void* field) const { return first ? EndField{field, &Ends::source} : EndField{}; }
    EndField result(const void* field) const { return last ? EndField{field, &Ends::result} : EndField{}; }
  };
  // A step of a call, and how many images it takes at once.
  struct Call {
    const Plan* plan = nullptr;
    std::size_t step = 0;
    Pass pass;
    int group = 1;
  };
  using Calls = std::vector<Call>;
  struct Launch {
    std::size_t call = 0;
    Part part;
  };
  void add_calls(std::size_t from, const Pass& pass, Calls* calls) const;
  static void order(const Calls& calls, std::size_t begin, std::size_t end, Part part, std::vector<Launch>* launches);
  static std::vector<Launch> order(const Calls& calls, int images);
  static void run(Stream stream, const Calls& calls, int images);
  void start(Stream stream, std::size_t step, const Pass& pass, const Part& part) const;
  int group_of(const Step& step) const;
  Choice choose(const ProductSize& size) const;
  // `pixels`: of which end of the call the product's pixels are, if any.
  void start_product(Stream stream, const ProductSize& size, kernel::ShiftGemm product, Address Ends::* pixels = nullptr) const;
  void start_convolution(Stream stream, const Step& step, const kernel::Place& in, const kernel::Place& out, const Pass& pass,
                         const Part& part) const;
  kernel::PixelsIn first_layer(int first) const;  // as it is told to read photographs from one on, or to be handed them
  void start_connected(Stream stream, const Step& step, const kernel::Place& in, const kernel::Place& out,
                       const Part& part) const;
  kernel::Place before(std::size_t step, int first) const;
  kernel::Place after(std::size_t step, int first) const;

  std::shared_ptr<const Gpu> gpu_;
  std::vector<Step> steps_;
  std::vector<int> groups_;               // images that a step takes at once: a power of two, or all
  std::vector<Activation> activations_;  // [i] lies between step i and step i + 1
  std::size_t partial_bytes_ = 0, ready_bytes_ = 0;
  DeviceMemory partial_, ready_;  // sums of splits, and how many of a tile's are there
  Settings settings_;
};

}  // namespace deepsim::runtime::detail::cuda
