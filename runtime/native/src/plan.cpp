#include "plan.h"

#include <algorithm>

#include "crop.h"

namespace deepsim::runtime::detail {

using kernels::Convolution;

namespace {

constexpr std::size_t kGroupBytes = std::size_t{12} << 20;  // activations of a group between two layers: stay in cache

}  // namespace

Plan Plan::cropped(int side, int offset) const {
  Plan plan;
  plan.steps_ = steps_;
  std::vector<Convolution*> layers;
  for (std::size_t i = steps_.size(); i-- > 0 && !plan.steps_[i].other;) layers.push_back(&plan.steps_[i].convolution);
  crop(side, offset, layers);
  plan.build_operations();
  return plan;
}

void Plan::build_operations() {
  operations_.clear();
  for (const Step& step : steps_)
    operations_.push_back(step.other ? step.other : std::shared_ptr<const Operation>(convolution(step.convolution)));
  if (steps_.back().other) return;
  Convolution last = steps_.back().convolution;
  last.pixels.raw = true;
  raw_ = convolution(last);
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
      for (std::size_t i = segment.begin + side; i + 1 < segment.end; i += 2)
        bytes = std::max(bytes, operations_[i]->out_bytes());
      if (bytes > 0) segment.between[side] = Buffer(bytes * static_cast<std::size_t>(segment.group));
    }
  }
}

void Plan::run(const Machine& machine, const void* in, void* out, int images, bool raw) const {
  const char* from = static_cast<const char*>(in);
  for (const Segment& segment : segments_) {
    char* to = &segment == &segments_.back() ? static_cast<char*>(out) : segment.out.as<char>();
    for (int image = 0; image < images; image += segment.group) {
      const auto at = static_cast<std::size_t>(image);
      run_group(machine, segment, from + at * operations_[segment.begin]->in_bytes(),
                to + at * operation(segment.end - 1, raw).out_bytes(), std::min(segment.group, images - image), raw);
    }
    from = to;
  }
}

void Plan::run_group(const Machine& machine, const Segment& segment, const char* in, char* out, int images, bool raw) const {
  for (std::size_t i = segment.begin; i < segment.end; ++i) {
    char* to = i + 1 == segment.end ? out : segment.between[(i - segment.begin) % 2].as<char>();
    operation(i, raw).run(machine, in, to, images);
    in = to;
  }
}

}  // namespace deepsim::runtime::detail
