#include "deviation.h"

#include <doctest/doctest.h>

#include <random>

namespace deepsim::tests {

using kernels::reference::Image;
using runtime::Inverter;

namespace {

Image random_features(const runtime::detail::Shape& shape) {
  Image features(shape.channels, shape.height, shape.width);
  std::mt19937 random(5);
  for (double& value : features.values) value = static_cast<float>(random() % 1000) / 500.0f;  // exact in float32
  return features;
}

bool iterates(Inverter& inverter, const std::vector<std::uint8_t>& images) {
  std::vector<std::uint8_t> once(images.size()), twice(images.size()), looped(images.size());
  inverter.reconstruct(images.data(), 2, once.data());
  inverter.reconstruct(once.data(), 2, twice.data());
  inverter.reencode(images.data(), 2, 2, {2}, looped.data());
  return looped == twice;
}

}  // namespace

Deviation deviation_of(const RandomBundle& bundle, const runtime::Options& options) {
  Inverter inverter(bundle.path(), options);
  Deviation found;
  const int side = inverter.image_size(), full = inverter.full_image_size();
  const auto size = static_cast<std::size_t>(inverter.feature_size());
  Image features = random_features(bundle.manifest.generator.input);
  if (inverter.can_encode()) {
    const std::vector<std::uint8_t> images = random_images(2, 3, side);
    features = reference_encode(bundle, images.data() + images.size() / 2);
    std::vector<float> encoded(2 * size);
    inverter.encode(images.data(), 2, encoded.data());
    found.features = relative_error(encoded.data() + size, features.values);
    found.iterates = iterates(inverter, images);
  }
  std::vector<float> exact(features.values.begin(), features.values.end());
  std::vector<std::uint8_t> whole(static_cast<std::size_t>(full) * static_cast<std::size_t>(full) * 3);
  std::vector<std::uint8_t> part(static_cast<std::size_t>(side) * static_cast<std::size_t>(side) * 3);
  inverter.decode(exact.data(), 1, whole.data(), true);
  inverter.decode(exact.data(), 1, part.data());
  found.levels = mean_difference(whole, reference_decode(bundle, features));
  found.part = part == cropped(whole, full, side, inverter.image_offset());
  return found;
}

bool ran_or_refused(const Recipe& recipe, const runtime::Options& options, double features, double levels,
                    const std::string& refusal) {
  const RandomBundle bundle(recipe);
  try {
    const Deviation found = deviation_of(bundle, options);
    CHECK(found.features < features);
    CHECK(found.levels < levels);
    CHECK(found.part);
    CHECK(found.iterates);
    return true;
  } catch (const Error& error) {
    CAPTURE(error.what());
    CHECK(error.kind() == "BundleError");
    CHECK(std::string(error.what()).find(refusal) != std::string::npos);
    return false;
  }
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names{""};
  for (const char* c = deepsim_instruction_sets(); *c != '\0'; ++c) {
    if (*c == ',') names.emplace_back();
    if (*c != ',') names.back() += *c;
  }
  return names;
}

}  // namespace deepsim::tests
