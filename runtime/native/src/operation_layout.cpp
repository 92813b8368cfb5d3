// The operations that only move or convert: pixels to network values, space-to-depth, features in and out.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "operation.h"

namespace deepsim::runtime::detail {

using kernels::kBlock;

namespace {

std::size_t size(int count) { return static_cast<std::size_t>(count); }

class PixelsInOperation final : public Operation {
 public:
  explicit PixelsInOperation(const PixelsIn& layer) : layer_(layer) {
    for (int value = 0; value < 256; ++value)
      for (int c = 0; c < 3; ++c)
        values_[c][value] = (static_cast<float>(value) - layer.mean[channel_of(c)]) * layer.scale[channel_of(c)];
    for (int dy = 0; dy < layer.stride; ++dy)
      for (int x = 0; x < layer.side; ++x)
        for (int c = 0; c < 3; ++c) places_.push_back(place_of(dy, x, c));
  }
  std::size_t in_bytes() const override { return size(layer_.side) * size(layer_.side) * 3; }
  std::size_t out_bytes() const override {
    return size(layer_.blocks()) * size(layer_.height) * size(layer_.width) * kBlock * sizeof(float);
  }
  void run(const Machine& machine, const void* in, void* out, int images) const override {
    machine.pool->run(images * layer_.height, [&](int task, int) {
      const int image = task / layer_.height, row = task % layer_.height;
      fill_row(static_cast<const std::uint8_t*>(in) + size(image) * in_bytes(), row,
               static_cast<float*>(out) + size(image) * out_bytes() / sizeof(float));
    });
  }

 private:
  void fill_row(const std::uint8_t* rgb, int row, float* out) const {
    const std::size_t plane = size(layer_.height) * size(layer_.width) * kBlock;
    for (int block = 0; block < layer_.blocks(); ++block)
      std::memset(out + size(block) * plane + size(row * layer_.width) * kBlock, 0,
                  size(layer_.width) * kBlock * sizeof(float));
    const int pixels = std::min(layer_.side, layer_.width * layer_.stride - layer_.pad);
    for (int dy = 0; dy < layer_.stride; ++dy) {
      const int y = row * layer_.stride + dy - layer_.pad;
      if (y < 0 || y >= layer_.side) continue;
      const std::uint8_t* pixel = rgb + size(y) * size(layer_.side) * 3;
      const std::uint32_t* place = places_.data() + size(dy) * size(layer_.side) * 3;
      float* to = out + size(row * layer_.width) * kBlock;
      for (int x = 0; x < pixels; ++x, pixel += 3, place += 3)
        for (int c = 0; c < 3; ++c) to[place[c]] = values_[c][pixel[c]];
    }
  }

  int channel_of(int c) const { return layer_.bgr ? 2 - c : c; }
  // Where the value of pixel x's colour c goes, counted from the start of an output row.
  std::uint32_t place_of(int dy, int x, int c) const {
    const int across = x + layer_.pad, channel = (dy * layer_.stride + across % layer_.stride) * 3 + channel_of(c);
    const std::size_t plane = size(layer_.height) * size(layer_.width) * kBlock;
    return static_cast<std::uint32_t>(size(channel / kBlock) * plane + size(across / layer_.stride * kBlock) +
                                      size(channel % kBlock));
  }

  PixelsIn layer_;
  float values_[3][256];               // network values of the grey levels of R, G and B
  std::vector<std::uint32_t> places_;  // [dy][x][R, G, B]
};

class SpaceToDepthOperation final : public Operation {
 public:
  explicit SpaceToDepthOperation(const SpaceToDepth& layer) : layer_(layer) {}
  std::size_t in_bytes() const override {
    return size(layer_.blocks) * size(layer_.in_height) * size(layer_.in_width) * kBlock * sizeof(float);
  }
  std::size_t out_bytes() const override { return size(phases()) * size(layer_.blocks) * plane() * sizeof(float); }
  void run(const Machine& machine, const void* in, void* out, int images) const override {
    const int tasks = phases() * layer_.blocks;
    machine.pool->run(images * tasks, [&](int task, int) {
      const std::size_t image = size(task / tasks);
      const int phase = task % tasks / layer_.blocks, block = task % layer_.blocks;
      fill_plane(static_cast<const float*>(in) + image * in_bytes() / sizeof(float), phase, block,
                 static_cast<float*>(out) + image * out_bytes() / sizeof(float) + size(task % tasks) * plane());
    });
  }

 private:
  int phases() const { return layer_.stride * layer_.stride; }
  std::size_t plane() const { return size(layer_.height) * size(layer_.width) * kBlock; }
  void fill_plane(const float* in, int phase, int block, float* to) const {
    const float* from = in + size(block) * size(layer_.in_height) * size(layer_.in_width) * kBlock;
    for (int i = 0; i < layer_.height; ++i)
      for (int j = 0; j < layer_.width; ++j, to += kBlock) {
        const int y = i * layer_.stride + phase / layer_.stride - layer_.pad;
        const int x = j * layer_.stride + phase % layer_.stride - layer_.pad;
        const bool inside = y >= 0 && y < layer_.in_height && x >= 0 && x < layer_.in_width;
        const std::size_t at = inside ? (size(y) * size(layer_.in_width) + size(x)) * kBlock : 0;
        for (std::size_t k = 0; k < kBlock; ++k) to[k] = inside ? from[at + k] : 0.0f;
      }
  }

  SpaceToDepth layer_;
};

class FeaturesOperation final : public Operation {
 public:
  FeaturesOperation(const FeatureLayout& layout, bool in) : layout_(layout), in_(in) {}
  std::size_t in_bytes() const override { return in_ ? plain() : blocked(); }
  std::size_t out_bytes() const override { return in_ ? blocked() : plain(); }
  void run(const Machine& machine, const void* in, void* out, int images) const override {
    const int blocks = kernels::blocks_of(layout_.channels);
    machine.pool->run(images * blocks, [&](int task, int) {
      const std::size_t image = size(task / blocks);
      const int block = task % blocks;
      const float* from = static_cast<const float*>(in) + image * in_bytes() / sizeof(float);
      float* to = static_cast<float*>(out) + image * out_bytes() / sizeof(float);
      const std::size_t offset = size(block) * size(layout_.pixels()) * kBlock;
      if (in_) {
        gather(from + offset, block, to + offset);
      } else {
        scatter(from + offset, block, to + offset);
      }
    });
  }

 private:
  std::size_t plain() const { return size(layout_.channels) * size(layout_.pixels()) * sizeof(float); }
  std::size_t blocked() const {
    return size(kernels::blocks_of(layout_.channels)) * size(layout_.pixels()) * kBlock * sizeof(float);
  }
  int used(int block) const { return std::min(kBlock, layout_.channels - block * kBlock); }
  void gather(const float* from, int block, float* to) const {
    const int channels = used(block);
    for (int p = 0; p < layout_.pixels(); ++p)
      for (int k = 0; k < kBlock; ++k)
        to[size(p) * kBlock + size(k)] = k < channels ? from[size(k) * size(layout_.pixels()) + size(p)] : 0.0f;
  }
  void scatter(const float* from, int block, float* to) const {
    for (int k = 0; k < used(block); ++k)
      for (int p = 0; p < layout_.pixels(); ++p)
        to[size(k) * size(layout_.pixels()) + size(p)] = from[size(p) * kBlock + size(k)];
  }

  FeatureLayout layout_;
  bool in_;
};

}  // namespace

std::unique_ptr<Operation> pixels_in(const PixelsIn& layer) { return std::make_unique<PixelsInOperation>(layer); }
std::unique_ptr<Operation> space_to_depth(const SpaceToDepth& layer) { return std::make_unique<SpaceToDepthOperation>(layer); }
std::unique_ptr<Operation> features_in(const FeatureLayout& layout) {
  return std::make_unique<FeaturesOperation>(layout, true);
}
std::unique_ptr<Operation> features_out(const FeatureLayout& layout) {
  return std::make_unique<FeaturesOperation>(layout, false);
}

}  // namespace deepsim::runtime::detail
