// A bundle's files as bytes: manifests with a right checksum, tensors with values made for them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "manifest.h"

namespace deepsim::tests {

using runtime::detail::Layer;
using runtime::detail::Manifest;
using runtime::detail::Network;
using Weights = std::map<std::string, std::vector<float>>;
using WeightShapes = std::map<std::string, std::vector<std::int64_t>>;

// `body` is a JSON object without its last "\n}".
std::string with_checksum(const std::string& body);

// manifest.json, of schema 2, of a bundle whose weights.safetensors has the bytes `tensors`. Of the record's own fields only
// the geometry, the networks and the display count; without a generator also the layer, and of a graph the features.
std::string manifest_bytes(const Manifest& manifest, const std::string& tensors);

// The same of schema 1, whose geometry is CaffeNet's and whose encoder is a table.
std::string manifest_bytes_1(const Network& encoder, const Network& generator, const std::string& tensors);

std::string tensor_bytes(const Weights& weights, const WeightShapes& shapes);

}  // namespace deepsim::tests
