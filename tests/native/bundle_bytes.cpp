#include "bundle_bytes.h"

#include <nlohmann/json.hpp>

#include "sha256.h"

namespace deepsim::tests {

using nlohmann::json;
using runtime::detail::Display;
using runtime::detail::EncoderKind;
using runtime::detail::Geometry;
using runtime::detail::Interpolation;
using runtime::detail::Kind;
using runtime::detail::Resize;
using runtime::detail::sha256;
using runtime::detail::Shape;

namespace {

constexpr const char* kKinds[] = {"fc", "conv", "deconv", "pool", "lrn", "reshape"};
constexpr const char* kActivations[] = {"none", "relu", "lrelu", "lrelu0.2", "tanh255"};

json shape_json(const Shape& shape) {
  if (shape.flat) return {shape.channels};
  return {shape.channels, shape.height, shape.width};
}

json network_json(const Network& network, const char* name) {
  json layers = json::array();
  for (const Layer& each : network.layers) {
    const json shape = each.kind == Kind::reshape ? shape_json(each.shape) : json::array();
    layers.push_back({{"name", each.name},
                      {"kind", kKinds[static_cast<int>(each.kind)]},
                      {"inputs", each.inputs},
                      {"outputs", each.outputs},
                      {"kernel", each.kernel},
                      {"stride", each.stride},
                      {"padding", each.padding},
                      {"groups", each.groups},
                      {"activation", kActivations[static_cast<int>(each.activation)]},
                      {"shape", shape},
                      {"ceil_mode", each.ceil_mode}});
    if (each.output_padding > 0) layers.back()["output_padding"] = each.output_padding;
  }
  const json pixels = {
      {"order", network.pixels.bgr ? "BGR" : "RGB"}, {"mean", network.pixels.mean}, {"scale", network.pixels.scale}};
  return {{name, network.name}, {"input_shape", shape_json(network.input)}, {"layers", layers}, {"pixels", pixels}};
}

json geometry_json(const Geometry& geometry) {
  const auto& photograph = geometry.photograph;
  const int generated = geometry.generated_side > 0 ? geometry.generated_side : photograph.side;
  return {{"photograph",
           {{"resize", photograph.resize == Resize::warp ? "warp" : "shorter"},
            {"size", photograph.size},
            {"side", photograph.side},
            {"interpolation", photograph.interpolation == Interpolation::bilinear ? "bilinear" : "bicubic"}}},
          {"generated", {{"side", generated}, {"offset", geometry.offset}}}};
}

json encoder_json(const Manifest& manifest) {
  if (manifest.encoder_kind == EncoderKind::none) return nullptr;
  json record = network_json(manifest.encoder, "name");
  record["kind"] = manifest.can_encode() ? "table" : "graph";
  if (manifest.can_encode()) return record;
  record.erase("layers");
  record["layer"] = manifest.can_decode() ? manifest.generator.name : manifest.layer;
  record["feature_shape"] = shape_json(manifest.can_decode() ? manifest.generator.input : manifest.features);
  return record;
}

json record_of(const Network& generator, const std::string& tensors) {
  const json files = {{"weights.safetensors", {{"size", tensors.size()}, {"sha256", sha256(tensors.data(), tensors.size())}}}};
  return {{"name", "random"},
          {"layer", generator.name},
          {"generator", network_json(generator, "layer")},
          {"files", files},
          {"engines", json::array()}};
}

std::string with_checksum(const json& record) {
  const std::string whole = record.dump(2);
  return tests::with_checksum(whole.substr(0, whole.size() - 2));
}

}  // namespace

std::string with_checksum(const std::string& body) {
  const std::string whole = body + "\n}";
  return body + ",\n  \"zz_checksum\": \"" + sha256(whole.data(), whole.size()) + "\"\n}\n";
}

std::string manifest_bytes(const Manifest& manifest, const std::string& tensors) {
  json record = record_of(manifest.generator, tensors);
  record["schema"] = 2;
  if (manifest.display != Display::clip) record["display"] = name_of(manifest.display);
  if (!manifest.can_decode()) {
    record["generator"] = nullptr;
    record["layer"] = manifest.layer;
  }
  record["geometry"] = geometry_json(manifest.geometry);
  record["encoder"] = encoder_json(manifest);
  return with_checksum(record);
}

std::string manifest_bytes_1(const Network& encoder, const Network& generator, const std::string& tensors) {
  json record = record_of(generator, tensors);
  record["schema"] = 1;
  record["encoder"] = network_json(encoder, "name");
  return with_checksum(record);
}

std::string tensor_bytes(const Weights& weights, const WeightShapes& shapes) {
  json header = json::object();
  std::string data;
  for (const auto& [name, values] : weights) {
    const std::size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    header[name] = {{"dtype", "F32"}, {"shape", shapes.at(name)}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i) & 255u);
  return length + text + data;
}

}  // namespace deepsim::tests
