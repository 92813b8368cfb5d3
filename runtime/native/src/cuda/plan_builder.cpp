// The builder of plans for a GPU: packs and uploads the weights of every step; what a step reads decides how the one before
// it lays out its output.
#include <algorithm>
#include <utility>

#include "../crop.h"
#include "../error.h"
#include "pack.h"
#include "plan.h"

namespace deepsim::runtime::detail::cuda {

namespace {

int channels_of(int channels) { return kernels::blocks_of(channels) * kernels::kBlock; }

}  // namespace

class PlanBuilder final : public Builder {
 public:
  PlanBuilder(std::shared_ptr<const Gpu> gpu, Stream stream, ThreadPool* pool)
      : gpu_(std::move(gpu)), stream_(stream), pool_(pool), plane_(plane_of(gpu_->precision())) {}

  Plan take() {
    for (std::size_t i = 0; i + 1 < steps_.size(); ++i) steps_[i].out = steps_[i + 1].in;
    Plan plan;
    plan.gpu_ = gpu_;
    plan.steps_ = std::move(steps_);
    return plan;
  }

  // Describe the last layers for a part of images too.
  void crop(int side, int offset) {
    std::vector<kernels::Convolution*> layers;
    for (auto step = steps_.rbegin(); step != steps_.rend() && step->kind == Step::Kind::convolution; ++step)
      layers.push_back(&step->cropped);
    detail::crop(side, offset, layers);
  }

  std::string name() const override { return "the cuda backend"; }
  bool stores_forward() const override { return false; }

  void pixels_in(const PixelsIn& layer) override { add(Step::Kind::pixels_in, {}).pixels = layer; }

  void space_to_depth(const SpaceToDepth& layer) override {
    add(Step::Kind::space_to_depth, grid(layer.blocks * kernels::kBlock, layer.in_height, layer.in_width, 0)).depths = layer;
  }

  void features_in(const FeatureLayout& layout) override { add(Step::Kind::features_in, {}).features = layout; }

  void features_out(const FeatureLayout& layout) override {
    add(Step::Kind::features_out, grid(layout.channels, layout.height, layout.width, 0)).features = layout;
  }

  void pool(const kernels::Pool& layer) override {
    add(Step::Kind::pool, grid(layer.channels, layer.in_height, layer.in_width, 0)).pooling = layer;
  }

  void fully_connected(Connected layer) override {
    const Shape& in = layer.input;
    Layout flat = grid(in.channels, in.height, in.width, 0);
    flat.flat = true;
    Step& step = add(Step::Kind::connected, flat);
    step.depth = depth_for(static_cast<int>(layer.input_of.size()));
    step.columns = static_cast<int>(layer.row_of.size());
    step.slope = layer.slope;
    step.weights = upload(pack_connected(layer, kernel::kUnit, step.depth, gpu_->precision(), *pool_));
    step.bias = upload(layer.bias);
  }

  void convolution(Lowered lowered) override {
    const kernels::Convolution& layer = lowered.layer;
    // The grid has a row and column for each window, and zeros wherever a window reads: else that is the next image's.
    const int below = layer.row_end + layer.kernel - 1 - layer.pad - layer.in_height;
    const int pad = std::max({layer.pad, below, layer.row_end - layer.in_height});
    Layout in = grid(layer.groups * layer.in_blocks * kernels::kBlock, layer.in_height, layer.in_width, pad);
    in.reach = (layer.kernel - 1) * (in.pitch() + 1);
    Step& step = add(Step::Kind::convolution, in);
    step.depth = depth_for(layer.in_blocks * kernels::kBlock);
    const int unit = layer.store == kernels::Store::pixels ? kernel::kColumns : kernel::kUnit;
    step.weights = upload(pack_convolution(lowered.weights, unit, step.depth, gpu_->precision(), *pool_));
    step.bias = upload(lowered.bias);
    step.layer = step.cropped = layer;
  }

 private:
  // Channels of a chunk: 32 where they come in 32s and have 16 bits.
  int depth_for(int channels) const { return plane_ == 8 && channels % 32 == 0 ? 32 : 16; }

  Layout grid(int channels, int height, int width, int pad) const {
    return {channels_of(channels), height, width, pad, false, 0, plane_};
  }

  Step& add(Step::Kind kind, const Layout& in) {
    steps_.emplace_back();
    steps_.back().kind = kind;
    steps_.back().in = in;
    return steps_.back();
  }

  template <class T>
  DeviceMemory upload(const std::vector<T>& values) const {
    const std::size_t bytes = values.size() * sizeof(T);
    DeviceMemory memory(gpu_, bytes, stream_);
    const Gpu::Current current(*gpu_);
    check(Driver::get().copy_to_device(memory.address(), values.data(), bytes, stream_), "copy weights to the GPU");
    check(Driver::get().stream_synchronize(stream_), "copy weights to the GPU");
    return memory;
  }

  std::shared_ptr<const Gpu> gpu_;
  Stream stream_;
  ThreadPool* pool_;
  int plane_;
  std::vector<Step> steps_;
};

Plan Plan::encoder(std::shared_ptr<const Gpu> gpu, Stream stream, const Network& network, const Tensors& tensors,
                   WeightLimit* limit, ThreadPool* pool) {
  PlanBuilder builder(std::move(gpu), stream, pool);
  plan_encoder(network, tensors, limit, &builder);
  return builder.take();
}

Plan Plan::generator(std::shared_ptr<const Gpu> gpu, Stream stream, const Manifest& manifest, const Tensors& tensors,
                     WeightLimit* limit, ThreadPool* pool) {
  PlanBuilder builder(std::move(gpu), stream, pool);
  plan_generator(manifest.generator, tensors, limit, &builder);
  builder.crop(manifest.generated_side(), manifest.geometry.offset);
  return builder.take();
}

}  // namespace deepsim::runtime::detail::cuda
