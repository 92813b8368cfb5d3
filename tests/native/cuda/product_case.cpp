#include "product_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tile.h"
#include "variants.h"

namespace deepsim::tests {

using namespace deepsim::cuda;
using emulation::Schedule;

namespace {

int divide_up(int a, int b) { return (a + b - 1) / b; }
double in(const std::vector<double>& values, int index) { return values[static_cast<std::size_t>(index)]; }

// The column of a place among 32: threads 0 to 3 have places 0 and 1, 2 and 3 ... of every eight, and columns 0 to 7, 8 to
// 15 ...
int column_in_32(int place) {
  const int thread = place % 8 / 2, eighth = place / 8;
  return 8 * thread + 2 * eighth + place % 2;
}

Tensor one_image(const Tensor& x, int image) {
  Tensor one(1, x.channels, x.height, x.width);
  const auto size = static_cast<std::ptrdiff_t>(one.values.size());
  std::copy_n(x.values.begin() + image * size, size, one.values.begin());
  return one;
}

Tensor weight_of(const ProductCase& layer, const Precision& precision, std::mt19937& random) {
  const int taps = layer.connected() ? layer.height * layer.width : layer.kernel * layer.kernel;
  const int inputs = layer.channels / layer.groups;
  const double scale = (layer.makes_images() && !layer.tanh255 ? 80.0 : 1.0) / std::sqrt(inputs * taps);
  if (layer.upsamples())
    return random_tensor(layer.channels, layer.outputs, layer.up_kernel(), layer.up_kernel(), scale, precision, random);
  const int height = layer.connected() ? layer.height : layer.kernel, width = layer.connected() ? layer.width : layer.kernel;
  return random_tensor(layer.outputs, inputs, height, width, scale, precision, random);
}

}  // namespace

std::string ProductCase::text() const {
  const auto number = [](int value) { return std::to_string(value); };
  return store + " " + number(images) + " x " + number(channels) + "x" + number(height) + "x" + number(width) + " to " +
         number(outputs) + ", kernel " + number(kernel) + ", pad " + number(pad) + ", groups " + number(groups) +
         (flat ? ", flat" : "") + (up ? ", up" : "") + (bgr ? ", bgr" : "") + (tanh255 ? ", tanh" : "") +
         (scaled ? ", scaled" : "") + (crop > 0 ? ", crop " + number(crop) : "") +
         (splits > 0 ? ", splits " + number(splits) : "");
}

std::vector<TileFacts> tiles_for(const std::string& store, int channels, const Precision& precision) {
  std::vector<TileFacts> tiles;
#define TILE(name, rows, columns, depth, warp_rows, warp_columns, stages)                    \
  using name##_half = Tile<Half, rows, columns, depth, warp_rows, warp_columns, stages>;     \
  using name##_single = Tile<Single, rows, columns, depth, warp_rows, warp_columns, stages>; \
  const TileFacts name##_facts{#name,                                                        \
                               rows,                                                         \
                               columns,                                                      \
                               depth,                                                        \
                               name##_half::threads,                                         \
                               precision.bytes() == 2 ? name##_half::shared_bytes : name##_single::shared_bytes};
  DEEPSIM_CUDA_TILES(TILE)
#undef TILE
#define PRODUCT(tile, kind) \
  if (store == #kind && channels % tile##_facts.depth == 0) tiles.push_back(tile##_facts);
  if (precision.bytes() == 2) {
    DEEPSIM_CUDA_DEEP_PRODUCTS(PRODUCT)
  }
  DEEPSIM_CUDA_PRODUCTS(PRODUCT)
#undef PRODUCT
  return tiles;
}

std::set<std::string> product_names(const Precision& precision) {
#define PRODUCT(tile, kind) #tile "_" #kind,
  if (precision.bytes() == 2) return {DEEPSIM_CUDA_DEEP_PRODUCTS(PRODUCT) DEEPSIM_CUDA_PRODUCTS(PRODUCT)};
  return {DEEPSIM_CUDA_PRODUCTS(PRODUCT)};
#undef PRODUCT
}

ProductRun::ProductRun(const ProductCase& layer, const Precision& precision, unsigned seed)
    : layer_(layer), precision_(precision) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  input_ = random_tensor(layer.images, layer.channels, layer.height, layer.width, 1.0, precision, random);
  weight_ = weight_of(layer, precision, random);
  for (int i = 0; i < layer.outputs; ++i) bias_.push_back(static_cast<double>(normal(random)));
  compute();
  describe();
}

ProductRun ProductRun::alone(int image) const {
  ProductRun one = *this;
  one.layer_.images = 1;
  one.input_ = one_image(input_, image);
  one.compute();
  one.describe();
  return one;
}

int ProductRun::terms() const {
  const int taps = layer_.connected() ? layer_.height * layer_.width : layer_.kernel * layer_.kernel;
  return layer_.channels / layer_.groups * taps + layer_.splits;
}

void ProductRun::compute() {
  const auto sums = [&](const Tensor& x, const Tensor& weight, const std::vector<double>& bias) {
    if (layer_.upsamples()) return upconvolve(x, weight, bias);
    return convolve(x, weight, bias, layer_.connected() ? 0 : layer_.pad, layer_.groups);
  };
  std::vector<double> bias = bias_;
  wanted_ = leaky_relu(sums(input_, weight_, bias_), static_cast<double>(layer_.slope));
  for (double& value : bias) value = std::fabs(value);
  added_ = sums(magnitude(input_), magnitude(weight_), bias);
  if (!layer_.connected()) return;
  for (Tensor* y : {&wanted_, &added_}) {  // a vector that is a map
    y->channels = layer_.outputs / (layer_.out_height * layer_.out_width);
    y->height = layer_.out_height;
    y->width = layer_.out_width;
  }
}

void ProductRun::describe() {
  const ProductCase& layer = layer_;
  const int grid_pad = layer.grid_pad(), pitch = layer.width + grid_pad;
  product_ = {};
  product_.columns = column_count();
  product_.slope = layer.slope;
  product_.groups = layer.groups;
  product_.whole = layer.connected() ? Store::connected : layer.store == "shuffle" ? Store::shuffle : Store::blocks;
  if (layer.connected()) {
    product_.rows = layer.images;
    product_.windows_down = product_.windows_across = 1;
    product_.out_pixels = Divisor(layer.out_height * layer.out_width);
    product_.out_width = Divisor(layer.out_width);
    return;
  }
  product_.group_planes = layer.channels / layer.groups / precision_.plane();
  product_.rows = layer.images * (layer.height + grid_pad) * pitch;
  product_.pitch = pitch;
  product_.kernel = layer.kernel;
  product_.first_shift = -layer.pad * (pitch + 1);
  product_.span = (layer.kernel - 1) * (pitch + 1);
  const int more = layer.upsamples() ? 1 : 2 * layer.pad - layer.kernel + 1;
  product_.windows_down = layer.height + more;
  product_.windows_across = layer.width + more;
  product_.image_rows = Divisor((layer.height + grid_pad) * pitch);
  product_.grid_pitch = Divisor(pitch);
  product_.image_lines = Divisor(layer.height + grid_pad);
  product_.phases = layer.up ? 4 : 1;
  set_levels(product_.levels);
  if (layer.crop > 0) crop();
}

// Only the windows that the crop takes, each image's in tiles of their own.
void ProductRun::crop() {
  const int first = product_.levels.crop_top, end = first + layer_.crop;
  product_.first_down = product_.first_across = layer_.up ? (first + 1) / 2 : first;
  product_.windows_down = product_.windows_across = (layer_.up ? end / 2 + 1 : end) - product_.first_down;
  product_.by_image = 1;
}

void ProductRun::set_levels(Levels& levels) const {
  const double mean[3] = {104, 117, 123};
  for (int c = 0; c < 3; ++c) {
    levels.mean[c] = static_cast<float>(layer_.tanh255 ? 0.0 : mean[c]);
    levels.scale[c] = layer_.scaled ? kScales[c] : 1.0f;
  }
  levels.scaled = layer_.scaled ? 1 : 0;
  levels.red = layer_.bgr ? 2 : 0;
  levels.tanh255 = layer_.tanh255 ? 1 : 0;
  levels.crop_side = layer_.crop > 0 ? layer_.crop : wanted_.height;
  levels.crop_top = (wanted_.height - levels.crop_side) / 2;
  levels.crop_left = (wanted_.width - levels.crop_side) / 2;
}

int ProductRun::column_count() const {
  if (layer_.makes_images()) return 16;
  return (layer_.store == "shuffle" ? 4 : 1) * layer_.outputs / layer_.groups;
}

// The output channel (or entry of the vector) that a column of all groups is, -1 for none.
int ProductRun::output_of(int column) const {
  if (layer_.makes_images()) return column < (layer_.up ? 12 : 3) ? column % 3 : -1;
  if (layer_.store == "shuffle") return column / 64 * 16 + column % 16;
  if (!layer_.connected()) return column;
  const int pixels = layer_.out_height * layer_.out_width, sixteen = column / 16;
  return (sixteen / pixels * 16 + column % 16) * pixels + sixteen % pixels;
}

double ProductRun::packed_weight(int group, int column, int channel, int tap) const {
  const int output = output_of(group * product_.columns + column);
  if (output < 0) return 0;
  if (layer_.connected()) {
    const int pixels = layer_.height * layer_.width, sixteen = channel / 16, pixel = sixteen % pixels;
    return weight_.at(output, sixteen / pixels * 16 + channel % 16, pixel / layer_.width, pixel % layer_.width);
  }
  const int r = tap / layer_.kernel, s = tap % layer_.kernel;
  if (!layer_.upsamples()) return weight_.at(output, channel, r, s);
  const int phase = layer_.store == "shuffle" ? column / 16 % 4 : column / 3;
  const int last = layer_.up_kernel() - 1, y = last - phase / 2 - 2 * r, x = last - phase % 2 - 2 * s;
  return y < 0 || x < 0 ? 0 : weight_.at(channel, output, y, x);  // of a kernel of 5, three taps or two reach a phase
}

// [group][unit of columns][chunk][tap][depth / plane][unit][plane]
std::vector<unsigned char> ProductRun::packed(int unit, int depth) const {
  const int channels = product_.chunks * depth, taps = layer_.connected() ? 1 : layer_.kernel * layer_.kernel;
  const int plane = precision_.plane();
  std::vector<unsigned char> weights;
  for (int group = 0; group < layer_.groups; ++group)
    for (int first = 0; first < product_.columns; first += unit)
      for (int chunk = 0; chunk < channels; chunk += depth)
        for (int tap = 0; tap < taps; ++tap)
          for (int i = 0; i < depth * unit; ++i) {
            const int place = i / plane % unit;
            const int column = first + (unit == 16 ? place : place / 32 * 32 + column_in_32(place % 32));
            const int channel = chunk + i / (plane * unit) * plane + i % plane;
            const double weight = column < product_.columns ? packed_weight(group, column, channel, tap) : 0.0;
            const std::uint32_t bits = precision_.bits(weight);
            for (int byte = 0; byte < precision_.bytes(); ++byte)
              weights.push_back(static_cast<unsigned char>(bits >> 8 * byte));
          }
  return weights;
}

std::vector<float> ProductRun::packed_bias() const {
  std::vector<float> bias;
  for (int column = 0; column < layer_.groups * product_.columns; ++column) {
    const int output = output_of(column);
    bias.push_back(output < 0 ? 0.0f : static_cast<float>(in(bias_, output)));
  }
  return bias;
}

Planes ProductRun::output() const {
  return Planes({layer_.images, wanted_.channels, wanted_.height, wanted_.width, layer_.flat ? 0 : layer_.out_pad, layer_.flat},
                precision_);
}

Written ProductRun::run(const TileFacts& tile, const Schedule& schedule, const EmulatedKernel* kernel) {
  const int taps = layer_.connected() ? 1 : layer_.kernel * layer_.kernel;
  const int channels = layer_.channels / layer_.groups * (layer_.connected() ? layer_.height * layer_.width : 1);
  product_.chunks = channels / tile.depth;
  product_.chunks_per_split = divide_up(product_.chunks, std::max(1, layer_.splits));
  product_.splits = divide_up(product_.chunks, product_.chunks_per_split);
  const std::vector<unsigned char> weights = packed(layer_.makes_images() ? 16 : 128, tile.depth);
  const std::vector<float> bias = packed_bias();
  const Planes::Shape shape{layer_.images,
                            layer_.channels,
                            layer_.height,
                            layer_.width,
                            layer_.connected() ? 0 : layer_.grid_pad(),
                            layer_.connected(),
                            (layer_.connected() || taps == 1 ? 0 : product_.span) + 256};
  const Planes given(shape, input_, precision_);
  Planes input(shape, precision_);
  const auto give_input = [&] { input.take(given); };
  product_.in = input.place().base;
  product_.in_plane = input.place().plane;
  product_.weights = weights.data();
  product_.bias = bias.data();
  const EmulatedKernel& used =
      kernel != nullptr ? *kernel : emulated_kernel(precision_.name, tile.name + "_" + layer_.product_store());
  if (layer_.makes_images()) return run_pixels(tile, schedule, used, give_input);
  Planes written = output();
  product_.out = written.place();
  const int partials = layer_.splits > 0 ? product_.splits * layer_.groups * product_.rows * product_.columns : 0;
  std::vector<float> partial(static_cast<std::size_t>(partials), NAN);
  product_.partial = partial.data();
  product_.row_tiles = Divisor(divide_up(product_.rows, tile.rows));
  product_.column_tiles = Divisor(divide_up(product_.columns, tile.columns));
  product_.tiles = product_.row_tiles.value * product_.column_tiles.value * layer_.groups;
  product_.blocks = std::min(tile.blocks, product_.tiles);
  std::vector<unsigned> ready(static_cast<std::size_t>(product_.tiles));
  product_.ready = ready.data();
  const auto counted = [&] { return std::count_if(ready.begin(), ready.end(), [](unsigned count) { return count != 0; }); };
  std::ptrdiff_t early = 0;
  launch(tile, schedule, used, [&] {
    early = written.touched() + counted() +
            std::count_if(partial.begin(), partial.end(), [](float part) { return !std::isnan(part); });
    give_input();
  });
  return {written.interior(), written.touched_outside() + static_cast<int>(counted() + early)};
}

// Bytes with guards before and behind; what nobody writes is no level of the result, by its distance.
Written ProductRun::run_pixels(const TileFacts& tile, const Schedule& schedule, const EmulatedKernel& kernel,
                               const std::function<void()>& give_input) {
  constexpr std::uint8_t poison = 0xa5;
  constexpr std::ptrdiff_t guard = 64;
  const int side = product_.levels.crop_side, levels = layer_.images * side * side * 3;
  const std::size_t bytes = layer_.store == "levels" ? sizeof(float) : 1;  // of a level
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(levels) * bytes + 2 * guard, poison);
  product_.pixels = pixels.data() + guard;
  const auto touched = [](std::uint8_t byte) { return byte != poison; };
  std::ptrdiff_t early = 0;
  launch(tile, schedule, kernel, [&] {
    early = std::count_if(pixels.begin(), pixels.end(), touched);
    give_input();
  });
  const auto outside = early + std::count_if(pixels.begin(), pixels.begin() + guard, touched) +
                       std::count_if(pixels.end() - guard, pixels.end(), touched);
  Written written{std::vector<std::uint32_t>(static_cast<std::size_t>(levels)), static_cast<int>(outside)};
  for (std::size_t i = 0; i < written.values.size(); ++i) std::memcpy(&written.values[i], &pixels[guard + i * bytes], bytes);
  return written;
}

void ProductRun::launch(const TileFacts& tile, const Schedule& schedule, const EmulatedKernel& kernel,
                        const std::function<void()>& earlier) const {
  const int taps = product_.kernel * product_.kernel;
  const int shared = tile.shared_bytes(product_.span, taps, product_.chunks_per_split);
  const int image_tiles = divide_up(product_.windows_down * product_.pitch, tile.rows);
  const int row_tiles = product_.by_image ? layer_.images * image_tiles : divide_up(product_.rows, tile.rows);
  emulation::Grid grid{row_tiles, divide_up(product_.columns, tile.columns), layer_.groups * product_.splits};
  if (tile.blocks > 0 && layer_.splits == 0) grid = {product_.blocks, 1, 1};
  const auto bytes = static_cast<std::size_t>(shared);
  ShiftGemm told = product_;
  told.image_tiles = Divisor(image_tiles);
  emulation::launch(grid, tile.threads, bytes, [&] { kernel.body(&told); }, schedule, earlier);
}

}  // namespace deepsim::tests
