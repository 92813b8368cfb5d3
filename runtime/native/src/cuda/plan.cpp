#include "plan.h"

#include <algorithm>

#include "../../../../kernels/cuda/tile.h"
#include "../error.h"
#include "products.h"

namespace deepsim::runtime::detail::cuda {

namespace {

constexpr int kGroup = 32;       // images that pass through the convolutions together: their activations stay in the L2 cache
constexpr int kMostRows = 128;   // of a tile

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

ProductSize Step::size(int images) const {
  ProductSize size;
  size.depth = depth;
  if (kind == Kind::connected) {
    size.store = "connected";
    size.rows = images;
    size.columns = columns;
    size.chunks = in.planes() * in.plane / depth;
    return size;
  }
  size.store = layer.store == kernels::Store::pixels ? "pixels" : layer.store == kernels::Store::shuffle ? "shuffle" : "blocks";
  size.rows = images * in.image_rows();
  size.columns = layer.columns;
  size.groups = layer.groups;
  size.chunks = layer.in_blocks * kernels::kBlock / depth;
  size.taps = layer.kernel * layer.kernel;
  size.span = (layer.kernel - 1) * (in.pitch() + 1);
  return size;
}

Choice Plan::choose(const Step& step, int images) const {
  return product_for(gpu_->facts(), step.size(images), settings_.stable, settings_.instructions);
}

std::size_t Plan::configure(const Settings& settings) {
  settings_ = settings;
  activations_.clear();
  partial_bytes_ = 0;
  for (std::size_t i = 0; i + 1 < steps_.size(); ++i) {
    const bool all = steps_[i].wide() || steps_[i + 1].wide();
    const int capacity = all ? settings.images : std::min(settings.images, kGroup);
    activations_.push_back({capacity, steps_[i].out.bytes(capacity), {}});
  }
  for (const Step& step : steps_) {
    const int most = step.wide() ? settings.images : std::min(settings.images, kGroup);
    for (int images = 1; step.multiplies() && images <= most; ++images) {
      const Choice choice = choose(step, images);
      const ProductSize size = step.size(images);
      const std::size_t values = static_cast<std::size_t>(size.groups) * static_cast<std::size_t>(size.rows) * static_cast<std::size_t>(size.columns);
      if (choice.split()) partial_bytes_ = std::max(partial_bytes_, static_cast<std::size_t>(choice.splits) * values * sizeof(float));
    }
  }
  std::size_t bytes = partial_bytes_;
  for (const Activation& activation : activations_) bytes += activation.bytes;
  return bytes;
}

void Plan::prepare(Stream stream) {
  for (Activation& activation : activations_) activation.memory = DeviceMemory(gpu_, activation.bytes, stream);
  if (partial_bytes_ > 0) partial_ = DeviceMemory(gpu_, partial_bytes_, stream);
}

std::vector<Plan::Section> Plan::sections(int images) const {
  std::vector<Section> found;
  for (std::size_t begin = 0, end = 0; begin < steps_.size(); begin = end) {
    while (end < steps_.size() && steps_[end].wide() == steps_[begin].wide()) ++end;
    found.push_back({begin, end, steps_[begin].wide() ? images : kGroup});
  }
  return found;
}

// Steps [from, section.end) for images [first, first + count); between them lie activations that hold one group.
void Plan::run_group(Stream stream, const Section& section, std::size_t from, const Ends& ends, int first, int count) const {
  for (std::size_t step = from; step < section.end; ++step) {
    const bool from_all = step == section.begin, to_all = step + 1 == section.end;
    start(stream, step, ends, {from_all ? first : 0, to_all ? first : 0, count});
  }
}

void Plan::run_section(Stream stream, const Section& section, const Ends& ends, int images) const {
  for (int first = 0; first < images; first += section.group)
    run_group(stream, section, section.begin, ends, first, std::min(section.group, images - first));
}

void Plan::run(Stream stream, Address in, Address out, int images, Area area) const {
  for (const Section& section : sections(images)) run_section(stream, section, {in, out, area, nullptr}, images);
}

void Plan::run_loop(Stream stream, const Plan& encoder, const Plan& generator, Address images, Address features, int count,
                    int iterations) {
  const std::vector<Section> encoding = encoder.sections(count), decoding = generator.sections(count);
  const Ends to_features{images, features, Area::crop, nullptr};
  encoder.run(stream, images, features, count, Area::crop);
  for (int iteration = 1; iteration <= iterations; ++iteration) {
    const bool last = iteration == iterations;
    const Ends to_images{features, images, Area::crop, last ? nullptr : &encoder};
    for (std::size_t i = 0; i + 1 < decoding.size(); ++i) generator.run_section(stream, decoding[i], to_images, count);
    for (int first = 0; first < count; first += kGroup) {  // both ends of the networks are convolutions, in groups
      const int group = std::min(kGroup, count - first);
      generator.run_group(stream, decoding.back(), decoding.back().begin, to_images, first, group);
      if (!last) encoder.run_group(stream, encoding.front(), 1, to_features, first, group);
    }
    for (std::size_t i = 1; !last && i < encoding.size(); ++i) encoder.run_section(stream, encoding[i], to_features, count);
  }
}

kernel::PixelsIn Plan::first_layer() const {
  const PixelsIn& record = steps_.front().pixels;
  kernel::PixelsIn layer;
  layer.out = after(0, 0);
  layer.side = record.side;
  layer.stride = record.stride;
  layer.pad = record.pad;
  layer.bgr = record.bgr ? 1 : 0;
  std::copy(record.mean, record.mean + 3, layer.mean);
  std::copy(record.scale, record.scale + 3, layer.scale);
  return layer;
}

void Plan::start(Stream stream, std::size_t index, const Ends& ends, const Part& part) const {
  const Step& step = steps_[index];
  const kernel::Place from = index > 0 ? before(index, part.first_in) : kernel::Place();
  const kernel::Place to = index + 1 < steps_.size() ? after(index, part.first_out) : kernel::Place();
  const auto blocks = [&](int work) { return GridSize{divide_up(work, kernel::kPassThreads)}; };
  switch (step.kind) {
    case Step::Kind::pixels_in: {
      kernel::PixelsIn layer = first_layer();
      layer.out = to;
      layer.images = part.count;
      layer.in = reinterpret_cast<const std::uint8_t*>(ends.in) +
                 static_cast<std::ptrdiff_t>(part.first_in) * layer.side * layer.side * 3;
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
      float* plain = reinterpret_cast<float*>(reads ? ends.in : ends.out) + size * (reads ? part.first_in : part.first_out);
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
    case Step::Kind::convolution:
      start_convolution(stream, step, from, to, ends, part);
  }
}

// Start a product whose layer, but for its size, is described.
void Plan::start_product(Stream stream, const Step& step, kernel::ShiftGemm product, const Part& part) const {
  const ProductSize size = step.size(part.count);
  const Choice choice = choose(step, part.count);
  const Product& chosen = choice.product;
  product.rows = size.rows;
  product.columns = size.columns;
  product.groups = size.groups;
  product.chunks = size.chunks;
  product.chunks_per_split = choice.chunks_per_split;
  product.splits = choice.splits;
  product.span = size.span;
  product.partial = partial_.as<float>();
  product.column_pairs = kernel::Divisor(size.columns / 2);
  const GridSize grid{divide_up(size.rows, chosen.rows), divide_up(size.columns, chosen.columns), size.groups * choice.splits};
  gpu_->launch(chosen.kernel.c_str(), grid, chosen.threads, chosen.shared_bytes(size.span, size.taps), stream, product);
  if (!choice.split()) return;
  const GridSize pairs{divide_up(size.rows * size.columns / 2, kernel::kPassThreads), size.groups};
  gpu_->launch(("add_splits_" + size.store).c_str(), pairs, kernel::kPassThreads, 0, stream, product);
}

void Plan::start_convolution(Stream stream, const Step& step, const kernel::Place& in, const kernel::Place& out,
                             const Ends& ends, const Part& part) const {
  const kernels::Convolution& layer = step.layer;
  kernel::ShiftGemm product = product_of(step, in, out);
  product.group_planes = layer.in_blocks * kernels::kBlock / step.in.plane;
  product.pitch = step.in.pitch();
  product.kernel = layer.kernel;
  product.first_shift = -layer.pad * (step.in.pitch() + 1);
  product.windows_down = layer.windows_down();
  product.windows_across = layer.windows_across();
  product.slope = layer.slope;
  product.image_rows = kernel::Divisor(step.in.image_rows());
  product.grid_pitch = kernel::Divisor(product.pitch);
  if (layer.store == kernels::Store::pixels) {
    product.phases = layer.pixels.sign < 0 ? 4 : 1;
    set_levels(layer.pixels, ends.area, &product.levels);
    const int side = product.levels.crop_side;
    product.pixels = reinterpret_cast<std::uint8_t*>(ends.out) + static_cast<std::ptrdiff_t>(part.first_out) * side * side * 3;
    if (ends.reader != nullptr) {
      product.reader = ends.reader->first_layer();
      product.reader_stride = kernel::Divisor(product.reader.stride);
    }
  }
  start_product(stream, step, product, part);
}

void Plan::start_connected(Stream stream, const Step& step, const kernel::Place& in, const kernel::Place& out,
                           const Part& part) const {
  kernel::ShiftGemm product = product_of(step, in, out);
  product.windows_down = product.windows_across = 1;
  product.slope = step.slope;
  product.out_pixels = kernel::Divisor(step.out.pixels());
  product.out_width = kernel::Divisor(step.out.width);
  start_product(stream, step, product, part);
}

}  // namespace deepsim::runtime::detail::cuda
