#include "plan.h"

#include <algorithm>

namespace deepsim::runtime::detail {

using kernels::Convolution;
using kernels::Store;

namespace {

constexpr std::size_t kGroupBytes = std::size_t{12} << 20;  // activations of a group between two layers: stay in cache

struct Range {
  int begin, end;
};

// The windows whose outputs cover `pixels` of a layer's output; whole tiles with Winograd.
Range windows_for(const Convolution& layer, Range pixels, int windows) {
  Range range = pixels;
  const bool minus = layer.store == Store::shuffle || (layer.store == Store::pixels && layer.pixels.sign < 0);
  if (layer.store != Store::blocks) {
    range.begin = minus ? (pixels.begin + 1) / 2 : pixels.begin / 2;
    range.end = minus ? pixels.end / 2 + 1 : (pixels.end + 1) / 2;
  }
  if (layer.winograd > 0) {
    range.begin = range.begin / layer.winograd * layer.winograd;
    range.end = (range.end + layer.winograd - 1) / layer.winograd * layer.winograd;
  }
  return {std::max(range.begin, 0), std::min(range.end, windows)};
}

// The input pixels that these windows read, Winograd's whole tiles included.
Range inputs_for(const Convolution& layer, Range windows, int extent) {
  int end = windows.end;
  if (layer.winograd > 0) end = (end + layer.winograd - 1) / layer.winograd * layer.winograd;
  const int first = windows.begin * layer.window_stride - layer.pad;
  const int last = (end - 1) * layer.window_stride - layer.pad + layer.kernel;
  return {std::max(first, 0), std::min(last, extent)};
}

}  // namespace

Plan Plan::cropped(int side) const {
  Plan plan;
  plan.steps_ = steps_;
  kernels::Pixels& pixels = plan.steps_.back().convolution.pixels;
  pixels.crop_top = (pixels.height - side) / 2;
  pixels.crop_left = (pixels.width - side) / 2;
  pixels.crop_side = side;
  Range rows{pixels.crop_top, pixels.crop_top + side}, columns{pixels.crop_left, pixels.crop_left + side};
  for (std::size_t i = steps_.size(); i-- > 0 && !plan.steps_[i].other;) {
    Convolution& layer = plan.steps_[i].convolution;
    rows = windows_for(layer, rows, layer.row_end);
    columns = windows_for(layer, columns, layer.column_end);
    layer.row_begin = rows.begin;
    layer.row_end = rows.end;
    layer.column_begin = columns.begin;
    layer.column_end = columns.end;
    rows = inputs_for(layer, rows, layer.in_height);
    columns = inputs_for(layer, columns, layer.in_width);
  }
  plan.build_operations();
  return plan;
}

void Plan::build_operations() {
  operations_.clear();
  for (const Step& step : steps_)
    operations_.push_back(step.other ? step.other : std::shared_ptr<const Operation>(convolution(step.convolution)));
}

void Plan::prepare(int images, Machine* machine) {
  segments_.clear();
  for (std::size_t i = 0; i < operations_.size(); ++i) {
    const std::size_t bytes = operations_[i]->in_bytes() + operations_[i]->out_bytes();
    const auto fitting = static_cast<int>(std::min<std::size_t>(kGroupBytes / bytes, 64));
    const int group = std::min(fitting >= 64 ? images : fitting >= 16 ? 16 : 4, images);
    if (segments_.empty() || segments_.back().group != group) {
      Segment segment;
      segment.begin = i;
      segment.group = group;
      segments_.push_back(std::move(segment));
    }
    segments_.back().end = i + 1;
    machine->scratch_floats = std::max(machine->scratch_floats, operations_[i]->scratch_floats(*machine, group));
    const std::size_t panel = operations_[i]->panel_floats(*machine, group) * sizeof(float);
    if (panel > machine->panel.bytes()) machine->panel = Buffer(panel);
  }
  for (Segment& segment : segments_) {
    const bool last = &segment == &segments_.back();
    if (!last) segment.out = Buffer(static_cast<std::size_t>(images) * operations_[segment.end - 1]->out_bytes());
    for (std::size_t side = 0; side < 2; ++side) {
      std::size_t bytes = 0;
      for (std::size_t i = segment.begin + side; i + 1 < segment.end; i += 2) bytes = std::max(bytes, operations_[i]->out_bytes());
      if (bytes > 0) segment.between[side] = Buffer(bytes * static_cast<std::size_t>(segment.group));
    }
  }
}

void Plan::run(const Machine& machine, const void* in, void* out, int images) const {
  const char* from = static_cast<const char*>(in);
  for (const Segment& segment : segments_) {
    char* to = &segment == &segments_.back() ? static_cast<char*>(out) : segment.out.as<char>();
    for (int image = 0; image < images; image += segment.group) {
      const auto at = static_cast<std::size_t>(image);
      run_group(machine, segment, from + at * operations_[segment.begin]->in_bytes(),
                to + at * operations_[segment.end - 1]->out_bytes(), std::min(segment.group, images - image));
    }
    from = to;
  }
}

void Plan::run_group(const Machine& machine, const Segment& segment, const char* in, char* out, int images) const {
  for (std::size_t i = segment.begin; i < segment.end; ++i) {
    char* to = i + 1 == segment.end ? out : segment.between[(i - segment.begin) % 2].as<char>();
    operations_[i]->run(machine, in, to, images);
    in = to;
  }
}

}  // namespace deepsim::runtime::detail
