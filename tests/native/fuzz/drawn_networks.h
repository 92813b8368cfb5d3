// Two networks drawn from a fuzzer's bytes: one record of eight bytes for each layer, so that a changed byte changes
// one field and records can be moved. Most tables fit together where the bytes do not ask for the contrary, or almost
// none would pass the manifest's checks and meet the planner.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bundle_bytes.h"

namespace deepsim::tests {

struct DrawnBundle {
  Manifest manifest;  // its geometry and its networks
  Weights weights;  // of the layers that need few enough of them
  WeightShapes shapes;
  std::uint8_t isa = 0;
  bool half = false;
};

DrawnBundle draw_bundle(const std::uint8_t* data, std::size_t size);

// Values for every layer of a network whose weights are few: deterministic, with NaN and infinities where asked for.
void add_weights(const Network& network, const std::string& prefix, bool finite, DrawnBundle* bundle);
// The multiply-adds of one image about, channels padded as the kernels pad them. from_pixels: an encoder, not a generator.
double work_of(const Network& network, bool from_pixels);

}  // namespace deepsim::tests
