#include "manifest.h"

#include <cmath>
#include <map>
#include <string>

#include "error.h"
#include "files.h"
#include "sha256.h"
#include "strict_json.h"

namespace deepsim::runtime::detail {

namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32, kMaxNumber = 1 << 16, kMaxSide = 4096;
// Of every bundle of schema 1: CaffeNet's (Dosovitskiy & Brox 2016, section 4).
constexpr Framing kSchema1Framing{Resize::warp, 256, 227, Interpolation::bilinear};

[[noreturn]] void raise(ErrorKind kind, const std::string& message) { throw Failure(kind, message); }

json parse_json(std::string_view bytes, const std::string& source) {
  try {
    return parse_strictly(bytes, kMaxDepth);
  } catch (const JsonFault& fault) {
    if (fault.kind == JsonFault::syntax) {
      raise(ErrorKind::bundle_corrupt, source + ": not JSON (" + fault.what() + "). Copy or export the bundle again.");
    }
    raise(ErrorKind::bundle_unsafe, source + ": " + fault.what() + ". Do not use this bundle.");
  }
}

// The file ends in a checksum of itself: SHA-256 of the same text without that last key.
void check_checksum(std::string_view bytes, const std::string& source) {
  constexpr std::string_view key = ",\n  \"zz_checksum\": \"", end = "\"\n}\n";
  constexpr std::size_t digits = 64, suffix = key.size() + digits + end.size();
  bool matches = bytes.size() > suffix;
  if (matches) {
    const std::string_view body = bytes.substr(0, bytes.size() - suffix), rest = bytes.substr(body.size());
    const std::string whole = std::string(body) + "\n}";
    matches = rest.substr(0, key.size()) == key && rest.substr(key.size() + digits) == end &&
              rest.substr(key.size(), digits) == sha256(whole.data(), whole.size());
  }
  if (!matches) {
    raise(ErrorKind::bundle_corrupt,
          source + ": its checksum does not match, it was changed. Copy or export the bundle again.");
  }
}

class Reader {
 public:
  explicit Reader(std::string source) : source_(std::move(source)) {}

  Manifest read(const json& record) const {
    Manifest manifest;
    manifest.name = text(record, "name");
    const json& generator = field(record, "generator");
    const bool alone = generator.is_null() && record.at("schema") != 1;  // the encoder
    if (!alone) read_generator(generator, &manifest);
    if (record.at("schema") == 1) {
      read_schema_1(record, &manifest);
    } else {
      manifest.geometry = geometry(field(record, "geometry"));
      read_encoder(field(record, "encoder"), &manifest);
    }
    if (alone) check_alone(record, manifest);
    if (record.contains("display")) manifest.display = display(record);
    const json& files = field(record, "files");
    if (!files.is_object()) invalid("files");
    for (const auto& [name, entry] : files.items()) manifest.files[checked(name)] = file(name, entry);
    check_engines(field(record, "engines"), manifest.files);
    check_networks(manifest);
    return manifest;
  }

 private:
  [[noreturn]] void invalid(const std::string& what) const {
    raise(ErrorKind::bundle, source_ + ": not a valid manifest (" + what + "), expected schema 1 or 2. Export it again.");
  }
  [[noreturn]] void unsafe(const std::string& what) const {
    raise(ErrorKind::bundle_unsafe, source_ + ": " + what + ". Do not use this bundle.");
  }
  const json& field(const json& record, const char* name) const {
    if (!record.is_object() || !record.contains(name)) invalid(name);
    return record.at(name);
  }
  std::string text(const json& record, const char* name) const {
    const json& value = field(record, name);
    if (!value.is_string()) invalid(name);
    return value.get<std::string>();
  }
  int whole(const json& value, const std::string& name) const {
    if (!value.is_number_integer() || value < 0 || value > kMaxNumber) unsafe("absurd value of " + name);
    return value.get<int>();
  }
  int optional(const json& record, const char* name, int otherwise) const {
    return record.contains(name) ? whole(record.at(name), name) : otherwise;
  }

  Display display(const json& record) const {
    static const std::map<std::string, Display> known = {{"clip", Display::clip}, {"stretch", Display::stretch}};
    return named(record, "display", known);
  }

  void read_generator(const json& record, Manifest* manifest) const {
    manifest->generator = network(record, "layer");
    manifest->layer = manifest->generator.name;
    manifest->features = manifest->generator.input;
  }

  // An encoder without a generator: its last layer is the one whose features are wanted.
  void check_alone(const json& record, const Manifest& manifest) const {
    if (manifest.encoder_kind == EncoderKind::none) invalid("neither an encoder nor a generator");
    if (text(record, "layer") != manifest.layer) {
      invalid("layer '" + text(record, "layer") + "', its network gives '" + manifest.layer + "'");
    }
  }

  void read_schema_1(const json& record, Manifest* manifest) const {
    manifest->geometry = {kSchema1Framing, (manifest->full_side() - kSchema1Framing.side) / 2, kSchema1Framing.side};
    manifest->encoder_kind = EncoderKind::table;
    manifest->encoder = network(field(record, "encoder"), "name");
  }

  Geometry geometry(const json& record) const {
    const json& generated = field(record, "generated");
    const Geometry geometry{framing(field(record, "photograph")), whole(field(generated, "offset"), "offset"),
                            whole(field(generated, "side"), "side")};
    if (geometry.generated_side < 1 || geometry.generated_side > geometry.photograph.side) {
      unsafe("generated side " + generated.at("side").dump() + ", expected 1 to the photograph's, " +
             std::to_string(geometry.photograph.side));
    }
    return geometry;
  }

  Framing framing(const json& record) const {
    static const std::map<std::string, Resize> rules = {{"warp", Resize::warp}, {"shorter", Resize::shorter}};
    static const std::map<std::string, Interpolation> interpolations = {{"bilinear", Interpolation::bilinear},
                                                                        {"bicubic", Interpolation::bicubic}};
    const Framing framing{named(record, "resize", rules), whole(field(record, "size"), "size"),
                          whole(field(record, "side"), "side"), named(record, "interpolation", interpolations)};
    if (record.size() != 4) invalid("photograph");
    if (framing.size > kMaxSide || framing.side < 1 || framing.side > framing.size) {
      unsafe("photograph of side " + std::to_string(framing.side) + " from size " + std::to_string(framing.size) +
             ", expected 1 to " + std::to_string(kMaxSide) + " and a side up to the size");
    }
    return framing;
  }

  void read_encoder(const json& record, Manifest* manifest) const {
    static const std::map<std::string, EncoderKind> kinds = {{"table", EncoderKind::table}, {"graph", EncoderKind::graph}};
    if (record.is_null()) return;
    manifest->encoder_kind = named(record, "kind", kinds);
    manifest->encoder = manifest->can_encode() ? network(record, "name") : graph(record);
    const bool is_table = manifest->can_encode();
    const std::string layer = is_table ? manifest->encoder.layers.back().name : text(record, "layer");
    const Shape features =
        is_table ? manifest->encoder.shapes().back() : shape(field(record, "feature_shape"), "feature_shape");
    if (!manifest->can_decode()) {
      manifest->layer = layer;
      manifest->features = features;
    } else if (!is_table && (layer != manifest->layer || !(features == manifest->features))) {
      unsafe("its encoder's features are not its generator's input");
    }
  }

  // A graph says what goes in and comes out; what it computes is in a file.
  Network graph(const json& record) const {
    return {text(record, "name"), shape(field(record, "input_shape"), "input_shape"), {}, pixels(field(record, "pixels"))};
  }

  FileRecord file(const std::string& name, const json& entry) const {
    const json& size = field(entry, "size");
    const bool fits = size.is_number_unsigned() && size.get<std::uint64_t>() <= kMaxFileBytes;
    if (!fits) unsafe("size of " + name + " is " + size.dump() + ", expected 0 to " + with_commas(kMaxFileBytes));
    const std::string digest = text(entry, "sha256");
    if (digest.size() != 64 || digest.find_first_not_of("0123456789abcdef") != std::string::npos) {
      unsafe("sha256 of " + name + " is not 64 hexadecimal digits");
    }
    return {size.get<std::uint64_t>(), digest};
  }

  // A plain relative path: at most four parts that begin with a letter, a digit or an underscore.
  std::string checked(const std::string& name) const {
    int parts = 1, length = 0;
    bool plain = name != "manifest.json";
    for (const char c : name) {
      const bool word = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
      if (c == '/') {
        plain = plain && length > 0 && ++parts <= 4;
        length = 0;
      } else {
        plain = plain && (word || (length > 0 && (c == '.' || c == '-'))) && ++length <= 100;
      }
    }
    if (!plain || length == 0) unsafe("file name '" + name + "', expected a plain relative path in the bundle");
    return name;
  }

  void check_engines(const json& engines, const std::map<std::string, FileRecord>& files) const {
    if (!engines.is_array()) invalid("engines");
    for (const json& engine : engines) {
      if (!engine.is_object() || !engine.contains("path") || !engine.at("path").is_string()) {
        unsafe("an engine without a path, expected target, precision, path");
      }
      const std::string path = checked(engine.at("path").get<std::string>());
      const auto below = files.lower_bound(path + "/");
      const bool listed =
          files.count(path) > 0 || (below != files.end() && below->first.compare(0, path.size() + 1, path + "/") == 0);
      if (!listed) unsafe("engine " + path + " has no listed file, so no hash");
    }
  }

  Network network(const json& record, const char* name) const {
    Network network;
    network.name = text(record, name);
    network.input = shape(field(record, "input_shape"), "input_shape");
    const json& layers = field(record, "layers");
    if (!layers.is_array() || layers.empty()) invalid("layers");
    for (const json& entry : layers) network.layers.push_back(layer(entry));
    network.pixels = pixels(field(record, "pixels"));
    return network;
  }

  Shape shape(const json& value, const std::string& name) const {
    if (!value.is_array() || (value.size() != 1 && value.size() != 3)) unsafe("absurd value of " + name);
    if (value.size() == 1) return {whole(value[0], name), 1, 1, true};
    return {whole(value[0], name), whole(value[1], name), whole(value[2], name), false};
  }

  template <class Value>
  Value named(const json& record, const char* field_name, const std::map<std::string, Value>& known) const {
    const auto found = known.find(text(record, field_name));
    if (found == known.end()) invalid(std::string(field_name) + " '" + text(record, field_name) + "'");
    return found->second;
  }

  Layer layer(const json& record) const {
    static const std::map<std::string, Kind> kinds = {{"fc", Kind::fc},     {"conv", Kind::conv}, {"deconv", Kind::deconv},
                                                      {"pool", Kind::pool}, {"lrn", Kind::lrn},   {"reshape", Kind::reshape}};
    static const std::map<std::string, Activation> activations = {{"none", Activation::none},
                                                                  {"relu", Activation::relu},
                                                                  {"lrelu", Activation::lrelu},
                                                                  {"lrelu0.2", Activation::lrelu02},
                                                                  {"tanh255", Activation::tanh255}};
    Layer layer;
    layer.name = text(record, "name");
    layer.kind = named(record, "kind", kinds);
    layer.inputs = optional(record, "inputs", 0);
    layer.outputs = optional(record, "outputs", 0);
    layer.kernel = optional(record, "kernel", 1);
    layer.stride = optional(record, "stride", 1);
    layer.padding = optional(record, "padding", 0);
    layer.groups = optional(record, "groups", 1);
    layer.output_padding = optional(record, "output_padding", 0);
    if (layer.output_padding > 0 && (layer.kind != Kind::deconv || layer.output_padding >= layer.stride)) {
      invalid("output_padding of layer " + layer.name);
    }
    if (layer.kernel < 1 || layer.stride < 1 || layer.groups < 1) unsafe("layer " + layer.name + " has a zero extent");
    if (record.contains("activation")) layer.activation = named(record, "activation", activations);
    if (record.contains("shape") && !record.at("shape").empty()) layer.shape = shape(record.at("shape"), "shape");
    if (record.contains("ceil_mode")) {
      if (!record.at("ceil_mode").is_boolean()) invalid("ceil_mode");
      layer.ceil_mode = record.at("ceil_mode").get<bool>();
    }
    return layer;
  }

  PixelConvention pixels(const json& record) const {
    PixelConvention pixels;
    const std::string order = text(record, "order");
    if (order != "BGR" && order != "RGB") unsafe("channel order '" + order + "', expected BGR or RGB");
    pixels.bgr = order == "BGR";
    pixels.mean = three(field(record, "mean"), "mean");
    pixels.scale = three(field(record, "scale"), "scale");
    for (const float scale : pixels.scale)
      if (scale == 0.0f) unsafe("a pixel scale of zero");
    return pixels;
  }

  std::array<float, 3> three(const json& value, const std::string& name) const {
    if (!value.is_array() || value.size() != 3) unsafe("absurd value of " + name);
    std::array<float, 3> numbers{};
    for (std::size_t i = 0; i < 3; ++i) {
      if (!value[i].is_number() || !std::isfinite(value[i].get<float>())) unsafe("absurd value of " + name);
      numbers[i] = value[i].get<float>();
    }
    return numbers;
  }

  void check_networks(const Manifest& manifest) const {
    const Network& encoder = manifest.encoder;
    const int side = manifest.side(), offset = manifest.geometry.offset, generated = manifest.generated_side();
    const Shape photograph{3, side, side, false};
    const Shape image = manifest.can_decode() ? manifest.generator.shapes().back() : photograph;
    const bool takes = manifest.encoder_kind == EncoderKind::none || encoder.input == photograph;
    const bool feeds = !manifest.can_encode() || encoder.shapes().back() == manifest.features;
    const bool gives = !image.flat && image.channels == 3 && image.height == image.width && offset >= 0 &&
                       offset + generated <= image.height && (manifest.can_decode() || generated == side);
    if (takes && feeds && gives) return;
    const std::string square = std::to_string(side) + "x" + std::to_string(side);
    unsafe("its networks do not fit together, expected " + square + " in, and out at " +
           std::to_string(manifest.geometry.offset) + " of a square");
  }

  std::string source_;
};

}  // namespace

const char* name_of(EncoderKind kind) {
  switch (kind) {
    case EncoderKind::none:
      break;
    case EncoderKind::table:
      return "table";
    case EncoderKind::graph:
      return "graph";
  }
  return "none";
}

void require_encoder(const Manifest& manifest) {
  switch (manifest.encoder_kind) {
    case EncoderKind::table:
      return;
    case EncoderKind::graph:
      raise(ErrorKind::usage, "encoder: " + manifest.encoder.name +
                                  " is a graph in encoder.onnx, expected a table of layers. "
                                  "Encode with ONNX Runtime, and decode here.");
    case EncoderKind::none:
      break;
  }
  raise(ErrorKind::usage, "encoder: this bundle has none, expected a table of layers. It decodes and interpolates.");
}

const char* name_of(Display display) {
  switch (display) {
    case Display::clip:
      break;
    case Display::stretch:
      return "stretch";
  }
  return "clip";
}

void require_generator(const Manifest& manifest) {
  if (manifest.can_decode()) return;
  raise(ErrorKind::usage, "generator: this bundle has none, expected a table of layers. It encodes only.");
}

void require_images(const Manifest& manifest, bool full) {
  require_generator(manifest);
  if (full || manifest.generated_side() == manifest.side()) return;
  raise(ErrorKind::usage,
        "geometry: this bundle's images have " + std::to_string(manifest.generated_side()) + " pixels and are enlarged to " +
            std::to_string(manifest.side()) +
            ", which libdeepsim does not do. Decode full images and enlarge them, or give arrays of the host to Python's "
            "Inverter.");
}

void require_pictures(const Manifest& manifest, bool full) {
  require_images(manifest, full);
  switch (manifest.display) {
    case Display::clip:
      return;
    case Display::stretch:
      break;
  }
  raise(ErrorKind::usage,
        "display: this bundle's pictures are stretched, which libdeepsim does not do. Decode raw images and stretch them, or "
        "give arrays of the host to Python's Inverter.");
}

Manifest parse_manifest(std::string_view bytes, const std::string& source) {
  const json record = parse_json(bytes, source);
  if (!record.is_object() || !record.contains("schema")) {
    raise(ErrorKind::bundle_corrupt, source + ": no schema field, expected a bundle manifest. Copy or export it again.");
  }
  if (record.at("schema") != 1 && record.at("schema") != 2) {
    raise(ErrorKind::bundle,
          source + ": schema " + record.at("schema").dump() + ", this version reads 1 and 2. Export it again.");
  }
  check_checksum(bytes, source);
  return Reader(source).read(record);
}

}  // namespace deepsim::runtime::detail
