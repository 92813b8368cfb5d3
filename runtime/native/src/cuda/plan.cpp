#include "plan.h"

#include <algorithm>

#include "../../../../kernels/cuda/tile.h"
#include "../error.h"
#include "products.h"

namespace deepsim::runtime::detail::cuda {

namespace {

constexpr int kGroup = 32;       // images that pass through the convolutions together: their activations stay in the L2 cache
constexpr int kMostRows = 128;   // of a tile
constexpr int kFewImages = 16;   // up to this many, a fully connected layer waits for its weights alone

int divide_up(int a, int b) { return (a + b - 1) / b; }

void set_levels(const kernels::Pixels& pixels, Area area, kernel::Levels* levels) {
  std::copy(pixels.mean, pixels.mean + 3, levels->mean);
  std::copy(pixels.scale, pixels.scale + 3, levels->scale);
  levels->red = pixels.bgr ? 2 : 0;
  levels->tanh255 = pixels.tanh255 ? 1 : 0;
  levels->height = pixels.height;
  levels->width = pixels.width;
  levels->crop_side = area == Area::crop ? kCropSide : pixels.height;
  levels->crop_top = (pixels.height - levels->crop_side) / 2;
  levels->crop_left = (pixels.width - levels->crop_side) / 2;
}

// What every product is told of its step.
kernel::ShiftGemm product_of(const Step& step, const kernel::Place& in, const kernel::Place& out) {
  kernel::ShiftGemm product;
  product.in = in.base;
  product.weights = step.weights.as<unsigned char>();
  product.bias = step.bias.as<float>();
  product.out = out;
  product.in_plane = in.plane;
  return product;
}

// The first of the images is `first`.
kernel::Place moved(kernel::Place place, int first) {
  place.base += static_cast<std::ptrdiff_t>(first) * place.image * kernel::kRow;
  return place;
}

}  // namespace

// Behind the last plane, the last tile may read on: what lies there counts only in rows that are not stored.
std::size_t Layout::bytes(int images) const {
  const std::size_t rows = static_cast<std::size_t>(planes()) * static_cast<std::size_t>(plane_rows(images));
  return (rows + static_cast<std::size_t>(reach + kMostRows)) * kernel::kRow;
}

kernel::Place Layout::place(Address memory, int images) const {
  const int rows = plane_rows(images), sixteen = kernel::kColumns / plane * rows;  // of 16 channels of a pixel, or of all
  kernel::Place place;
  place.base = reinterpret_cast<unsigned char*>(memory) + static_cast<std::ptrdiff_t>(guard()) * kernel::kRow;
  place.sixteen = sixteen * (flat ? pixels() : 1);
  place.plane = rows;
  place.image = image_rows();
  place.y = flat ? width * sixteen : pitch();
  place.x = flat ? sixteen : 1;
  place.height = height;
  place.width = width;
  return place;
}

kernel::Place Plan::before(std::size_t step, int first) const {
  const Activation& activation = activations_[step - 1];
  return moved(steps_[step].in.place(activation.memory.address(), activation.capacity), first);
}

kernel::Place Plan::after(std::size_t step, int first) const {
  const Activation& activation = activations_[step];
  return moved(steps_[step].out.place(activation.memory.address(), activation.capacity), first);
}

// Split a product's sum where few images leave the GPU idle: about two blocks for each multiprocessor, at least eight
// chunks each.
int Plan::splits_for(const Step& step, int images) const {
  if (stable_ || images > kFewImages) return 1;
  const int chunks = step.in.planes() * step.in.plane / step.depth;
  const int blocks = divide_up(step.columns, kernel::kUnit);
  return std::clamp(divide_up(2 * gpu_->facts().multiprocessors, blocks), 1, std::max(1, chunks / 8));
}

void Plan::prepare(int images, bool stable, Stream stream, Instructions instructions) {
  stable_ = stable;
  instructions_ = instructions;
  activations_.clear();
  std::size_t partial = 0;
  for (std::size_t i = 0; i + 1 < steps_.size(); ++i) {
    const bool all = steps_[i].wide() || steps_[i + 1].wide();
    const int capacity = all ? images : std::min(images, kGroup);
    activations_.push_back({capacity, DeviceMemory(gpu_, steps_[i].out.bytes(capacity), stream)});
  }
  for (const Step& step : steps_) {
    if (step.kind != Step::Kind::connected) continue;
    const int few = std::min(images, kFewImages);
    const int splits = splits_for(step, few);
    if (splits > 1) partial = std::max(partial, static_cast<std::size_t>(splits) * static_cast<std::size_t>(few * step.columns));
  }
  partial_ = partial > 0 ? DeviceMemory(gpu_, partial * sizeof(float), stream) : DeviceMemory();
}

void Plan::run(Stream stream, Address in, Address out, int images, Area area) const {
  for (std::size_t begin = 0; begin < steps_.size();) {
    std::size_t end = begin + 1;
    while (end < steps_.size() && steps_[end].wide() == steps_[begin].wide()) ++end;
    const int group = steps_[begin].wide() ? images : kGroup;
    for (int first = 0; first < images; first += group)
      for (std::size_t step = begin; step < end; ++step) {
        const bool from_all = step == begin, to_all = step + 1 == end;  // else an activation that holds one group
        start(stream, step, in, out, {from_all ? first : 0, to_all ? first : 0, std::min(group, images - first)}, area);
      }
    begin = end;
  }
}

void Plan::start(Stream stream, std::size_t index, Address in, Address out, const Part& part, Area area) const {
  const Step& step = steps_[index];
  const kernel::Place from = index > 0 ? before(index, part.first_in) : kernel::Place();
  const kernel::Place to = index + 1 < steps_.size() ? after(index, part.first_out) : kernel::Place();
  const auto blocks = [&](int work) { return GridSize{divide_up(work, kernel::kPassThreads)}; };
  switch (step.kind) {
    case Step::Kind::pixels_in: {
      kernel::PixelsIn layer;
      const PixelsIn& record = step.pixels;
      layer.out = to;
      layer.images = part.count;
      layer.side = record.side;
      layer.stride = record.stride;
      layer.pad = record.pad;
      layer.bgr = record.bgr ? 1 : 0;
      layer.in = reinterpret_cast<const std::uint8_t*>(in) + static_cast<std::ptrdiff_t>(part.first_in) * record.side * record.side * 3;
      std::copy(record.mean, record.mean + 3, layer.mean);
      std::copy(record.scale, record.scale + 3, layer.scale);
      gpu_->launch("read_pixels", blocks(part.count * to.height * to.width), kernel::kPassThreads, 0, stream, layer);
      return;
    }
    case Step::Kind::space_to_depth: {
      const kernel::SpaceToDepth layer{from, to, part.count, step.in.planes(), step.depths.stride, step.depths.pad};
      const int planes = layer.planes * layer.stride * layer.stride;
      gpu_->launch("to_depth", blocks(part.count * to.height * to.width * planes), kernel::kPassThreads, 0, stream, layer);
      return;
    }
    case Step::Kind::features_in:
    case Step::Kind::features_out: {
      const bool reads = step.kind == Step::Kind::features_in;
      const FeatureLayout& shape = step.features;
      const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(shape.channels) * shape.pixels();
      float* plain = reinterpret_cast<float*>(reads ? in : out) + size * (reads ? part.first_in : part.first_out);
      const kernel::Features layer{plain, reads ? to : from, part.count, shape.channels};
      const int planes = kernels::blocks_of(shape.channels) * kernels::kBlock / (reads ? step.out : step.in).plane;
      gpu_->launch(reads ? "read_features" : "write_features", blocks(part.count * planes * shape.pixels()),
                   kernel::kPassThreads, 0, stream, layer);
      return;
    }
    case Step::Kind::pool: {
      const int planes = step.in.planes(), shared = kernel::pool_shared_bytes(planes, step.in.channels);
      const kernel::Pool layer{from, to, part.count, planes, step.pooling.kernel, step.pooling.stride, step.pooling.normalise ? 1 : 0};
      const GridSize grid{divide_up(part.count * to.height * to.width, kernel::pool_pixels(planes))};
      gpu_->launch("pool_and_normalise", grid, kernel::kPoolThreads, shared, stream, layer);
      return;
    }
    case Step::Kind::connected:
      start_connected(stream, step, from, to, part);
      return;
    case Step::Kind::convolution: {
      const int side = area == Area::crop ? kCropSide : step.layer.pixels.height;
      const Address pixels = out + static_cast<Address>(part.first_out) * static_cast<Address>(side * side * 3);
      start_convolution(stream, step, from, to, pixels, part, area);
    }
  }
}

void Plan::start_product(Stream stream, const Step& step, kernel::ShiftGemm product, const char* store, int groups) const {
  const int taps = product.kernel * product.kernel;
  const Product chosen = product_for(gpu_->facts(), store, step.depth, product.rows, product.columns, groups, product.span, taps,
                                     instructions_);
  const GridSize grid{divide_up(product.rows, chosen.rows), divide_up(product.columns, chosen.columns), groups * product.splits};
  gpu_->launch(chosen.kernel.c_str(), grid, chosen.threads, chosen.shared_bytes(product.span, taps), stream, product);
}

void Plan::start_convolution(Stream stream, const Step& step, const kernel::Place& in, const kernel::Place& out,
                             Address pixels, const Part& part, Area area) const {
  const kernels::Convolution& layer = step.layer;
  kernel::ShiftGemm product = product_of(step, in, out);
  product.group_planes = layer.in_blocks * kernels::kBlock / step.in.plane;
  product.rows = part.count * step.in.image_rows();
  product.pitch = step.in.pitch();
  product.kernel = layer.kernel;
  product.first_shift = -layer.pad * (step.in.pitch() + 1);
  product.span = (layer.kernel - 1) * (product.pitch + 1);
  product.windows_down = layer.windows_down();
  product.windows_across = layer.windows_across();
  product.chunks = product.chunks_per_split = layer.in_blocks * kernels::kBlock / step.depth;
  product.columns = layer.columns;
  product.slope = layer.slope;
  product.image_rows = kernel::Divisor(step.in.image_rows());
  product.grid_pitch = kernel::Divisor(product.pitch);
  if (layer.store == kernels::Store::pixels) {
    product.pixels = reinterpret_cast<std::uint8_t*>(pixels);
    product.phases = layer.pixels.sign < 0 ? 4 : 1;
    set_levels(layer.pixels, area, &product.levels);
  }
  const char* store = layer.store == kernels::Store::pixels ? "pixels" : layer.store == kernels::Store::shuffle ? "shuffle" : "blocks";
  start_product(stream, step, product, store, layer.groups);
}

void Plan::start_connected(Stream stream, const Step& step, const kernel::Place& in, const kernel::Place& out,
                           const Part& part) const {
  kernel::ShiftGemm product = product_of(step, in, out);
  product.rows = part.count;
  product.windows_down = product.windows_across = 1;
  product.chunks = step.in.planes() * step.in.plane / step.depth;
  product.columns = step.columns;
  product.slope = step.slope;
  product.splits = splits_for(step, part.count);
  product.chunks_per_split = divide_up(product.chunks, product.splits);
  product.splits = divide_up(product.chunks, product.chunks_per_split);
  product.out_pixels = kernel::Divisor(step.out.pixels());
  product.out_width = kernel::Divisor(step.out.width);
  if (product.splits == 1) {
    start_product(stream, step, product, "connected", 1);
    return;
  }
  product.partial = partial_.as<float>();
  start_product(stream, step, product, "partial", 1);
  kernel::Reduction sum;
  sum.partial = product.partial;
  sum.bias = product.bias;
  sum.out = out;
  sum.rows = product.rows;
  sum.columns = product.columns;
  sum.splits = product.splits;
  sum.slope = product.slope;
  sum.out_pixels = product.out_pixels;
  sum.out_width = product.out_width;
  sum.column_pairs = kernel::Divisor(product.columns / 2);
  gpu_->launch("add_splits", {divide_up(sum.rows * sum.columns / 2, kernel::kPassThreads)}, kernel::kPassThreads, 0, stream, sum);
}

}  // namespace deepsim::runtime::detail::cuda
