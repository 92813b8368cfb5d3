#include "plan.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "../../../../kernels/cuda/tile.h"
#include "../error.h"
#include "estimate.h"
#include "products.h"

namespace deepsim::runtime::detail::cuda {

namespace {

constexpr int kMostRows = 256;  // of a tile
constexpr double kNearBest = 1.05;     // the time of fewer images at once, which need less memory, that is as good

kernel::Store whole_of(const ProductSize& size) {
  if (size.store == "connected") return kernel::Store::connected;
  return size.store == "shuffle" ? kernel::Store::shuffle : kernel::Store::blocks;
}

void set_levels(const kernels::Pixels& pixels, kernel::Levels* levels) {
  std::copy(pixels.mean, pixels.mean + 3, levels->mean);
  std::copy(pixels.scale, pixels.scale + 3, levels->scale);
  levels->red = pixels.bgr ? 2 : 0;
  levels->tanh255 = pixels.tanh255 ? 1 : 0;
  levels->scaled = std::any_of(pixels.scale, pixels.scale + 3, [](float scale) { return scale != 1.0f; }) ? 1 : 0;
  levels->crop_side = pixels.crop_side;
  levels->crop_top = pixels.crop_top;
  levels->crop_left = pixels.crop_left;
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

bool Layout::fits(int images) const {
  const std::int64_t rows = guard() + static_cast<std::int64_t>(images) * image_rows();
  return planes() * rows + reach + kMostRows <= std::numeric_limits<int>::max();
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

// An activation that holds one group holds one after the other.
kernel::Place Plan::before(std::size_t step, int first) const {
  const Activation& activation = activations_[step - 1];
  return moved(steps_[step].in.place(activation.memory.address(), activation.capacity), first % activation.capacity);
}

kernel::Place Plan::after(std::size_t step, int first) const {
  const Activation& activation = activations_[step];
  return moved(steps_[step].out.place(activation.memory.address(), activation.capacity), first % activation.capacity);
}

ProductSize Step::size(int images, Area area, Levels levels) const {
  ProductSize size;
  size.depth = depth;
  if (kind == Kind::connected) {
    size.store = "connected";
    size.rows = images;
    size.columns = columns;
    size.chunks = in.planes() * in.plane / depth;
    return size;
  }
  const char* const image = levels == Levels::raw ? "levels" : "pixels";
  size.store = layer.store == kernels::Store::pixels ? image : layer.store == kernels::Store::shuffle ? "shuffle" : "blocks";
  size.rows = images * in.image_rows();
  size.columns = layer.columns;
  size.groups = layer.groups;
  size.chunks = layer.in_blocks * kernels::kBlock / depth;
  size.taps = layer.kernel * layer.kernel;
  size.span = (layer.kernel - 1) * (in.pitch() + 1);
  size.images = images;
  size.image_rows = convolution(area).windows_down() * in.pitch();
  return size;
}

Choice Plan::choose(const ProductSize& size) const {
  return product_for(gpu_->facts(), size, settings_.stable, settings_.kernels);
}

// As many images, a power of two, as take the fewest cycles each: few keep a step's input and output in the L2 cache, many
// keep all multiprocessors busy to the end. A layer that all images share the weights of takes all.
int Plan::group_of(const Step& step) const {
  if (step.wide() || !step.multiplies()) return settings_.images;
  if (settings_.kernels.images > 0) return settings_.kernels.images;
  const auto bytes = [](const Layout& layout) {
    return static_cast<double>(layout.planes()) * layout.image_rows() * kernel::kRow;
  };
  const double of_image = bytes(step.in) + bytes(step.out), cache = kShareOfCache * gpu_->facts().cache_bytes;
  const auto cycles_each = [&](int group) {
    const double moved = group * of_image, memory = moved > cache ? memory_cycles(gpu_->facts(), moved) : 0;
    return (std::max(choose(step.size(group)).cycles, memory) + kLaunch) / group;
  };
  double best = cycles_each(1);
  for (int group = 2; group < 2 * settings_.images && step.in.fits(group) && step.out.fits(group); group *= 2)
    best = std::min(best, cycles_each(group));
  int group = 1;
  while (group < settings_.images && cycles_each(group) > kNearBest * best) group *= 2;
  return group;
}

std::size_t Plan::configure(const Settings& settings) {
  settings_ = settings;
  activations_.clear();
  groups_.clear();
  partial_bytes_ = ready_bytes_ = 0;
  for (const Step& step : steps_) groups_.push_back(group_of(step));
  for (std::size_t i = 1; i < steps_.size(); ++i)  // passes over what a product wrote
    if (!steps_[i].multiplies()) groups_[i] = groups_[i - 1];
  groups_.front() = groups_[1];
  for (std::size_t i = 0; i + 1 < steps_.size(); ++i) {
    const int capacity = std::min(settings.images, std::max(groups_[i], groups_[i + 1]));
    if (!steps_[i].out.fits(capacity)) {
      throw Failure(ErrorKind::out_of_memory, "cuda: a layer of " + std::to_string(capacity) +
                                                  " images has more than 2^31 rows of 16 bytes. Use a smaller max_batch.");
    }
    activations_.push_back({capacity, steps_[i].out.bytes(capacity), {}});
  }
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    const int most = std::min(settings.images, groups_[i]);
    for (int images = 1; step.multiplies() && images <= most; ++images) {
      for (const Area area : {Area::whole, Area::crop}) {
        const ProductSize size = step.size(images, area);
        const Choice choice = choose(size);
        if (!choice.split()) continue;
        const auto blocks = static_cast<std::size_t>(choice.product.blocks(size)),
                   splits = static_cast<std::size_t>(choice.splits);
        const std::size_t values = static_cast<std::size_t>(size.groups) * static_cast<std::size_t>(size.rows) *
                                   static_cast<std::size_t>(size.columns);
        partial_bytes_ = std::max(partial_bytes_, splits * values * sizeof(float));
        ready_bytes_ = std::max(ready_bytes_, blocks * sizeof(unsigned));
      }
    }
  }
  std::size_t bytes = partial_bytes_ + ready_bytes_;
  for (const Activation& activation : activations_) bytes += activation.bytes;
  return bytes;
}

void Plan::prepare(Stream stream) {
  for (Activation& activation : activations_) activation.memory = DeviceMemory(gpu_, activation.bytes, stream);
  if (partial_bytes_ == 0) return;
  partial_ = DeviceMemory(gpu_, partial_bytes_, stream);
  ready_ = DeviceMemory(gpu_, ready_bytes_, stream);
}

// Steps whose groups have fewer images than are at hand take them group by group, each through as many steps as can be.
// Groups are powers of two, so that those of one step lie within those of its neighbours.
void Plan::order(const Calls& calls, std::size_t begin, std::size_t end, Part part, std::vector<Launch>* launches) {
  while (begin < end) {
    std::size_t next = begin;
    int group = 0;
    for (; next < end && calls[next].group < part.count; ++next) group = std::max(group, calls[next].group);
    if (next == begin) {
      launches->push_back({begin++, part});
      continue;
    }
    for (int first = 0; first < part.count; first += group)
      order(calls, begin, next, {part.first + first, std::min(group, part.count - first)}, launches);
    begin = next;
  }
}

std::vector<Plan::Launch> Plan::order(const Calls& calls, int images) {
  std::vector<Launch> launches;
  order(calls, 0, calls.size(), {0, images}, &launches);
  return launches;
}

void Plan::run(Stream stream, const Calls& calls, int images) {
  for (const Launch& launch : order(calls, images)) {
    const Call& call = calls[launch.call];
    call.plan->start(stream, call.step, call.pass, launch.part);
  }
}

// Add this plan's steps from one on.
void Plan::add_calls(std::size_t from, const Pass& pass, Calls* calls) const {
  for (std::size_t step = from; step < steps_.size(); ++step) calls->push_back({this, step, pass, groups_[step]});
  if (pass.reader == nullptr) return;
  int& last = calls->back().group;  // it writes what the reader keeps of as many images
  last = std::min(last, pass.reader->activations_.front().capacity);
}

void Plan::run(Stream stream, const Ends& ends, int images, Area area, Levels levels) const {
  Calls calls;
  add_calls(0, {ends, true, true, area, nullptr, levels}, &calls);
  run(stream, calls, images);
}

void Plan::run_loop(Stream stream, const Plan& encoder, const Plan& generator, const Ends& images, Address features, int count,
                    int iterations) {
  Calls calls;
  encoder.add_calls(0, {{images.source, features}, true, false, Area::crop, nullptr}, &calls);
  for (int iteration = 1; iteration <= iterations; ++iteration) {
    const bool last = iteration == iterations;
    generator.add_calls(0, {{features, images.result}, false, last, Area::crop, last ? nullptr : &encoder}, &calls);
    if (!last) encoder.add_calls(1, {{0, features}, false, false, Area::crop, nullptr}, &calls);
  }
  run(stream, calls, count);
}

std::vector<int> Plan::steps_of_kernels(int images) const {
  Calls calls;
  add_calls(0, {}, &calls);
  std::vector<int> found;
  for (const Launch& launch : order(calls, images)) found.push_back(static_cast<int>(launch.call));
  return found;
}

kernel::PixelsIn Plan::first_layer(int first) const {
  const PixelsIn& record = steps_.front().pixels;
  kernel::PixelsIn layer;
  layer.out = after(0, first);
  layer.side = record.side;
  layer.stride = record.stride;
  layer.pad = record.pad;
  layer.bgr = record.bgr ? 1 : 0;
  layer.planes = kernel::Divisor(steps_.front().out.planes());
  layer.area = kernel::Divisor(layer.out.height * layer.out.width);
  layer.width = kernel::Divisor(layer.out.width);
  layer.row_channels = kernel::Divisor(3 * layer.stride);
  std::copy(record.mean, record.mean + 3, layer.mean);
  std::copy(record.scale, record.scale + 3, layer.scale);
  return layer;
}

void Plan::start(Stream stream, std::size_t index, const Pass& pass, const Part& part) const {
  const Step& step = steps_[index];
  const kernel::Place from = index > 0 ? before(index, part.first) : kernel::Place();
  const kernel::Place to = index + 1 < steps_.size() ? after(index, part.first) : kernel::Place();
  const auto blocks = [&](int work) { return GridSize{divide_up(work, kernel::kPassThreads)}; };
  switch (step.kind) {
    case Step::Kind::pixels_in: {
      kernel::PixelsIn layer = first_layer(part.first);
      layer.images = part.count;
      layer.in = reinterpret_cast<const std::uint8_t*>(pass.ends.source) +
                 static_cast<std::ptrdiff_t>(part.first) * layer.side * layer.side * 3;
      const GridSize grid = blocks(part.count * layer.planes.value * layer.area.value);
      gpu_->launch("read_pixels", grid, kernel::kPassThreads, 0, stream, layer, pass.source(&layer.in));
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
      float* plain = reinterpret_cast<float*>(reads ? pass.ends.source : pass.ends.result) + size * part.first;
      const kernel::Features layer{plain, reads ? to : from, part.count, shape.channels};
      const int planes = kernels::blocks_of(shape.channels) * kernels::kBlock / (reads ? step.out : step.in).plane;
      gpu_->launch(reads ? "read_features" : "write_features", blocks(part.count * planes * shape.pixels()),
                   kernel::kPassThreads, 0, stream, layer, reads ? pass.source(&layer.plain) : pass.result(&layer.plain));
      return;
    }
    case Step::Kind::pool: {
      const int planes = step.in.planes();
      const int shared = step.pooling.normalise ? kernel::pool_shared_bytes(planes, step.in.channels) : 0;
      const kernel::Divisor area(to.height * to.width), width(to.width);
      const kernel::Pool layer{from,
                               to,
                               part.count,
                               kernel::Divisor(planes),
                               area,
                               width,
                               step.pooling.kernel,
                               step.pooling.stride,
                               step.pooling.normalise ? 1 : 0};
      const GridSize grid{divide_up(part.count * area.value, kernel::pool_pixels(planes))};
      gpu_->launch("pool_and_normalise", grid, kernel::kPoolThreads, shared, stream, layer);
      return;
    }
    case Step::Kind::connected:
      start_connected(stream, step, from, to, part);
      return;
    case Step::Kind::convolution:
      start_convolution(stream, step, from, to, pass, part);
  }
}

// Start a product whose layer, but for its size, is described.
void Plan::start_product(Stream stream, const ProductSize& size, kernel::ShiftGemm product, Address Ends::* pixels) const {
  const Choice choice = choose(size);
  const Product& chosen = choice.product;
  product.rows = size.rows;
  product.columns = size.columns;
  product.groups = size.groups;
  product.chunks = size.chunks;
  product.chunks_per_split = choice.chunks_per_split;
  product.splits = choice.splits;
  product.span = size.span;
  product.partial = partial_.as<float>();
  product.ready = ready_.as<unsigned>();
  product.whole = whole_of(size);
  product.row_tiles = kernel::Divisor(chosen.row_tiles(size));
  product.column_tiles = kernel::Divisor(divide_up(size.columns, chosen.columns));
  product.tiles = chosen.blocks(size);
  product.by_image = chosen.image_tiles(size) > 0 ? 1 : 0;
  product.image_tiles = kernel::Divisor(std::max(1, chosen.image_tiles(size)));
  const int shared = chosen.shared_bytes(size.span, size.taps, choice.chunks_per_split);
  GridSize grid{product.row_tiles.value, product.column_tiles.value, size.groups * choice.splits};
  if (chosen.in_turns) {
    const DeviceFacts& facts = gpu_->facts();
    product.blocks = std::min(product.tiles, facts.multiprocessors * resident(facts, chosen, shared));
    grid = {product.blocks, 1, 1};
  }
  gpu_->launch(chosen.kernel.c_str(), grid, chosen.threads, shared, stream, product, {&product.pixels, pixels});
}

void Plan::start_convolution(Stream stream, const Step& step, const kernel::Place& in, const kernel::Place& out,
                             const Pass& pass, const Part& part) const {
  const kernels::Convolution& layer = step.convolution(pass.area);
  kernel::ShiftGemm product = product_of(step, in, out);
  product.group_planes = layer.in_blocks * kernels::kBlock / step.in.plane;
  product.pitch = step.in.pitch();
  product.kernel = layer.kernel;
  product.first_shift = -layer.pad * (step.in.pitch() + 1);
  product.first_down = layer.row_begin;
  product.first_across = layer.column_begin;
  product.windows_down = layer.windows_down();
  product.windows_across = layer.windows_across();
  product.slope = layer.slope;
  product.image_rows = kernel::Divisor(step.in.image_rows());
  product.grid_pitch = kernel::Divisor(product.pitch);
  product.image_lines = kernel::Divisor(step.in.image_rows() / product.pitch);
  if (layer.store == kernels::Store::pixels) {
    product.phases = layer.sign != 0 ? 4 : 1;
    set_levels(layer.pixels, &product.levels);
    const int side = product.levels.crop_side;
    if (pass.reader == nullptr) {
      const std::ptrdiff_t image = std::ptrdiff_t{3} * side * side * (pass.levels == Levels::raw ? sizeof(float) : 1);
      product.pixels = reinterpret_cast<std::uint8_t*>(pass.ends.result) + part.first * image;
    } else {
      product.reader = pass.reader->first_layer(part.first);
      product.reader_stride = kernel::Divisor(product.reader.stride);
    }
  }
  start_product(stream, step.size(part.count, pass.area, pass.levels), product,
                product.pixels == nullptr ? nullptr : &Ends::result);
}

void Plan::start_connected(Stream stream, const Step& step, const kernel::Place& in, const kernel::Place& out,
                           const Part& part) const {
  kernel::ShiftGemm product = product_of(step, in, out);
  product.windows_down = product.windows_across = 1;
  product.slope = step.slope;
  product.out_pixels = kernel::Divisor(step.out.pixels());
  product.out_width = kernel::Divisor(step.out.width);
  start_product(stream, step.size(part.count), product);
}

}  // namespace deepsim::runtime::detail::cuda
