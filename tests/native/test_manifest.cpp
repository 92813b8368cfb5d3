// The manifest's second schema: every field of the geometry and of the encoder's kinds, and what the first one means.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "error.h"
#include "random_bundle.h"

using namespace deepsim::runtime::detail;
using namespace deepsim::tests;
using nlohmann::json;

namespace {

Manifest made(EncoderKind kind) {
  const PixelConvention pixels{true, {104, 117, 123}, {1, 1, 1}};
  Manifest manifest;
  manifest.geometry = {{Resize::shorter, 40, 32, Interpolation::bicubic}, 3};
  manifest.encoder_kind = kind;
  manifest.encoder = {"small", {3, 32, 32, false}, {layer("conv1", Kind::conv, 3, 5, 3, 2, 1, Activation::relu)}, pixels};
  manifest.generator = {"conv1",
                        {5, 16, 16, false},
                        {layer("wide", Kind::conv, 5, 8, 3, 1, 2, Activation::lrelu),
                         layer("image", Kind::deconv, 8, 3, 4, 2, 1, Activation::none)},
                        pixels};
  return manifest;
}

json record_of(EncoderKind kind) {
  json record = json::parse(manifest_bytes(made(kind), "tensors"));
  record.erase("zz_checksum");
  return record;
}

std::string bytes_of(const json& record) {
  const std::string whole = record.dump(2);
  return with_checksum(whole.substr(0, whole.size() - 2));
}

// "accepted", or the error's name and message.
std::string answer(const json& record) {
  try {
    parse_manifest(bytes_of(record), "manifest.json");
  } catch (const Failure& failure) {
    return std::string(kind_name(failure.kind())) + ": " + failure.what();
  }
  return "accepted";
}

// The answer to the record of a bundle with a table, with one value at `place` changed.
std::string changed(const char* place, const json& value) {
  json record = record_of(EncoderKind::table);
  record.at(json::json_pointer(place)) = value;
  return answer(record);
}

std::string without(const char* place, const char* name) {
  json record = record_of(EncoderKind::table);
  record.at(json::json_pointer(place)).erase(name);
  return answer(record);
}

bool begins(const std::string& text, const char* start) { return text.rfind(start, 0) == 0; }

}  // namespace

TEST_CASE("schema 2 gives back the geometry and the encoder that were written") {
  for (const EncoderKind kind : {EncoderKind::none, EncoderKind::table, EncoderKind::graph}) {
    const Manifest wanted = made(kind), found = parse_manifest(manifest_bytes(wanted, "tensors"), "manifest.json");
    CHECK(found.encoder_kind == kind);
    CHECK(found.can_encode() == (kind == EncoderKind::table));
    CHECK(found.geometry.offset == 3);
    CHECK(found.side() == 32);
    CHECK(found.full_side() == 36);
    CHECK(found.geometry.photograph.size == 40);
    CHECK(found.geometry.photograph.resize == Resize::shorter);
    CHECK(found.geometry.photograph.interpolation == Interpolation::bicubic);
    CHECK(found.encoder.layers.size() == (kind == EncoderKind::table ? 1 : 0));
    CHECK(found.encoder.name == (kind == EncoderKind::none ? "" : "small"));
    CHECK(found.layer == "conv1");
  }
}

TEST_CASE("without a generator, the encoder says layer and features") {
  for (const EncoderKind kind : {EncoderKind::table, EncoderKind::graph}) {
    Manifest wanted = made(kind);
    wanted.generator = {};
    wanted.layer = "conv1";
    wanted.features = {5, 16, 16, false};
    wanted.geometry.offset = 0;
    const Manifest found = parse_manifest(manifest_bytes(wanted, "tensors"), "manifest.json");
    CHECK_FALSE(found.can_decode());
    CHECK(found.layer == "conv1");
    CHECK(found.features == Shape{5, 16, 16, false});
    CHECK(found.full_side() == 32);
    wanted.geometry.offset = 1;
    CHECK_THROWS_AS(parse_manifest(manifest_bytes(wanted, "tensors"), "manifest.json"), Failure);
    wanted.geometry.offset = 0;
    wanted.geometry.generated_side = 31;  // nothing is generated that could be enlarged
    CHECK_THROWS_AS(parse_manifest(manifest_bytes(wanted, "tensors"), "manifest.json"), Failure);
    wanted.geometry.generated_side = 0;
    json record = json::parse(manifest_bytes(wanted, "tensors"));
    record.erase("zz_checksum");
    record["layer"] = "conv2";
    CHECK(
        begins(answer(record), "BundleError: manifest.json: not a valid manifest (layer 'conv2', its network gives 'conv1')"));
    record["layer"] = "conv1";
    record["encoder"] = nullptr;
    CHECK(begins(answer(record), "BundleError: manifest.json: not a valid manifest (neither an encoder nor a generator)"));
    record["schema"] = 1;
    CHECK(begins(answer(record), "BundleError"));
  }
}

TEST_CASE("how pictures are made is clipping, unless the manifest says stretching") {
  Manifest wanted = made(EncoderKind::table);
  CHECK(parse_manifest(manifest_bytes(wanted, "tensors"), "manifest.json").display == Display::clip);
  wanted.display = Display::stretch;
  CHECK(parse_manifest(manifest_bytes(wanted, "tensors"), "manifest.json").display == Display::stretch);
  json record = record_of(EncoderKind::table);
  for (const json& display : {json("squash"), json(3), json(nullptr)}) {
    record["display"] = display;
    CHECK(begins(answer(record), "BundleError: manifest.json: not a valid manifest (display"));
  }
  record["display"] = "clip";
  CHECK(answer(record) == "accepted");
}

TEST_CASE("schema 1 means CaffeNet's geometry and a table") {
  const RandomBundle bundle(false);
  const Manifest& networks = bundle.manifest;
  const Manifest found = parse_manifest(manifest_bytes_1(networks.encoder, networks.generator, "tensors"), "manifest.json");
  CHECK(found.can_encode());
  CHECK(found.side() == 227);
  CHECK(found.geometry.photograph.size == 256);
  CHECK(found.geometry.photograph.resize == Resize::warp);
  CHECK(found.geometry.photograph.interpolation == Interpolation::bilinear);
  CHECK(found.geometry.offset == (256 - 227) / 2);
  const Manifest small = made(EncoderKind::table);
  CHECK_THROWS_WITH_AS(parse_manifest(manifest_bytes_1(small.encoder, small.generator, "tensors"), "manifest.json"),
                       "manifest.json: its networks do not fit together, expected 227x227 in, and out at -95 of a square. "
                       "Do not use this bundle.",
                       Failure);
}

TEST_CASE("a photograph's framing is one of those that are known") {
  CHECK(answer(record_of(EncoderKind::table)) == "accepted");
  CHECK(changed("/geometry/photograph/resize", "warp") == "accepted");
  CHECK(changed("/geometry/photograph/size", 4096) == "accepted");
  CHECK(changed("/geometry/photograph/size", 32) == "accepted");
  CHECK(begins(changed("/geometry/photograph/resize", "longer"),
               "BundleError: manifest.json: not a valid manifest (resize 'longer')"));
  CHECK(begins(changed("/geometry/photograph/resize", 1), "BundleError"));
  CHECK(begins(changed("/geometry/photograph/interpolation", "nearest"), "BundleError"));
  for (const json& size : {json(31), json(0), json(4097), json(-40), json(40.0), json("40"), json(nullptr), json(true)})
    CHECK(begins(changed("/geometry/photograph/size", size), "BundleUnsafe"));
  for (const json& side : {json(0), json(-1), json(41), json(31), json(32.0), json({32})})
    CHECK(begins(changed("/geometry/photograph/side", side), "BundleUnsafe"));
  for (const char* name : {"resize", "size", "side", "interpolation"})
    CHECK(begins(without("/geometry/photograph", name), "BundleError"));
  json record = record_of(EncoderKind::table);
  record["geometry"]["photograph"]["gamma"] = 2;
  CHECK(begins(answer(record), "BundleError: manifest.json: not a valid manifest (photograph)"));
}

TEST_CASE("the square lies within the generator's output, which is square") {
  CHECK(changed("/geometry/generated/offset", 0) == "accepted");
  CHECK(changed("/geometry/generated/offset", 4) == "accepted");
  CHECK(changed("/geometry/generated/offset", 5) ==
        "BundleUnsafe: manifest.json: its networks do not fit together, expected 32x32 in, and out at 5 of a square. "
        "Do not use this bundle.");
  for (const json& offset : {json(-1), json(65536), json(1.0), json("1")})
    CHECK(begins(changed("/geometry/generated/offset", offset), "BundleUnsafe"));
  for (const int side : {1, 31}) CHECK(changed("/geometry/generated/side", side) == "accepted");
  CHECK(changed("/geometry/generated/side", 33) ==
        "BundleUnsafe: manifest.json: generated side 33, expected 1 to the photograph's, 32. Do not use this bundle.");
  CHECK(begins(changed("/geometry/generated/side", 0), "BundleUnsafe: manifest.json: generated side 0, expected 1 to "));
  CHECK(begins(changed("/generator/input_shape", {5, 16, 18}), "BundleUnsafe"));
  for (const char* name : {"photograph", "generated"}) CHECK(begins(without("/geometry", name), "BundleError"));
  for (const char* name : {"side", "offset"}) CHECK(begins(without("/geometry/generated", name), "BundleError"));
  CHECK(begins(without("", "geometry"), "BundleError"));
  CHECK(begins(without("", "encoder"), "BundleError"));
  CHECK(begins(changed("/geometry", 3), "BundleError"));
}

TEST_CASE("an output's padding is a deconvolution's alone, and smaller than its stride") {
  const auto padded = [](const char* kind, const json& padding) {
    json record = record_of(EncoderKind::none);
    json& wide = record["generator"]["layers"][1];
    wide["kind"] = kind;
    wide["kernel"] = 5;
    wide["padding"] = 2;
    wide["output_padding"] = padding;
    return answer(record);
  };
  CHECK(padded("deconv", 1) == "accepted");
  CHECK(begins(padded("deconv", 2), "BundleError: manifest.json: not a valid manifest (output_padding of layer image)"));
  CHECK(begins(padded("conv", 1), "BundleError: manifest.json: not a valid manifest (output_padding of layer image)"));
  for (const json& padding : {json(-1), json("1"), json(1.5), json(1 << 17)})
    CHECK(begins(padded("deconv", padding), "BundleUnsafe: manifest.json: absurd value of output_padding"));
  Manifest wanted = made(EncoderKind::none);
  wanted.generator.layers[1] = wide_upconvolution(wanted.generator.layers[1]);
  const Layer found = parse_manifest(manifest_bytes(wanted, "tensors"), "manifest.json").generator.layers[1];
  CHECK(found.output_padding == 1);
  CHECK(found.output_shape({8, 18, 18, false}) == Shape{3, 36, 36, false});
}

TEST_CASE("an encoder is a table or a graph that fits, or none") {
  CHECK(changed("/encoder", nullptr) == "accepted");
  CHECK(changed("/encoder", record_of(EncoderKind::graph).at("encoder")) == "accepted");
  CHECK(begins(changed("/encoder/kind", "plugin"), "BundleError: manifest.json: not a valid manifest (kind 'plugin')"));
  CHECK(begins(without("/encoder", "kind"), "BundleError"));
  CHECK(begins(changed("/encoder", false), "BundleError"));
  CHECK(begins(changed("/encoder/input_shape", {3, 31, 31}), "BundleUnsafe"));
  CHECK(begins(changed("/encoder/input_shape", {1, 32, 32}), "BundleUnsafe"));
  CHECK(begins(changed("/encoder/layers", json::array()), "BundleError"));
  json record = record_of(EncoderKind::graph);
  record["encoder"]["feature_shape"] = {5, 16, 15};
  CHECK(begins(answer(record), "BundleUnsafe: manifest.json: its encoder's features are not its generator's input"));
  record["encoder"]["feature_shape"] = {5, 16, 16};
  record["encoder"]["input_shape"] = {3, 33, 33};
  CHECK(begins(answer(record), "BundleUnsafe"));
  record["encoder"]["input_shape"] = {3, 32, 32};
  CHECK(answer(record) == "accepted");
  record["encoder"]["layer"] = "other";
  CHECK(begins(answer(record), "BundleUnsafe"));
  for (const char* name : {"layer", "feature_shape", "input_shape", "pixels", "name"}) {
    json lacking = record_of(EncoderKind::graph);
    lacking["encoder"].erase(name);
    CHECK(begins(answer(lacking), "BundleError"));
  }
}
