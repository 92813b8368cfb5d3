// The readers of a bundle: every damage has a name and is refused.
#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>

#include "bundle.h"
#include "error.h"
#include "random_bundle.h"
#include "sha256.h"

using namespace deepsim::runtime::detail;
using deepsim::runtime::ErrorKind;
using deepsim::tests::RandomBundle;
using deepsim::tests::with_checksum;

namespace {

std::string read(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// The manifest with one piece of text replaced and its checksum made right again.
std::string edited(const RandomBundle& bundle, const std::string& from, const std::string& to) {
  std::string body = read(bundle.folder / "manifest.json");
  body = body.substr(0, body.rfind(",\n  \"zz_checksum\""));
  const std::size_t at = body.find(from);
  REQUIRE(at != std::string::npos);
  return with_checksum(body.replace(at, from.size(), to));
}

const char* refusal(const std::string& manifest) {
  try {
    parse_manifest(manifest, "manifest.json");
  } catch (const Failure& failure) {
    return kind_name(failure.kind());
  }
  return "accepted";
}

std::string tensor_file(const std::string& header, std::size_t data) {
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i) & 255u);
  return length + header + std::string(data, '\1');
}

bool parses(const std::string& bytes) {
  const auto data = std::make_shared<Bytes>(bytes.data(), bytes.size(), false);
  try {
    Tensors::parse(data, "weights.safetensors");
    return true;
  } catch (const Failure& failure) {
    CHECK(failure.kind() == ErrorKind::bundle);
    return false;
  }
}

}  // namespace

TEST_CASE("SHA-256 of the standard's examples and across the padding's edges") {
  CHECK(sha256("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("", 0) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const std::string a(119, 'a'), million(1000000, 'a');
  CHECK(sha256(a.data(), 55) == "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  CHECK(sha256(a.data(), 56) == "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
  CHECK(sha256(a.data(), 64) == "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
  CHECK(sha256(million.data(), million.size()) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("a good bundle is read") {
  const RandomBundle bundle(false);
  const Bundle opened = Bundle::open(bundle.path());
  CHECK(opened.manifest().encoder.layers.size() == bundle.manifest.encoder.layers.size());
  CHECK(opened.weights().find("generator.deconv0.weight", {5, 3, 4, 4})[7] == bundle.weights.at("generator.deconv0.weight")[7]);
  CHECK_THROWS_AS(opened.weights().find("generator.deconv0.weight", {3, 5, 4, 4}), Failure);
  CHECK_THROWS_AS(opened.weights().find("generator.nothing", {1}), Failure);
}

TEST_CASE("every changed byte of a manifest is refused") {
  const RandomBundle bundle(false);
  const std::string good = read(bundle.folder / "manifest.json");
  int accepted = 0;
  for (std::size_t at = 0; at < good.size(); at += 7) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    accepted += std::string(refusal(bad)) == "accepted";
  }
  for (std::size_t size = 0; size < good.size(); size += 13)
    accepted += std::string(refusal(good.substr(0, size))) == "accepted";
  CHECK(accepted == 0);
  CHECK(std::string(refusal(good)) == "accepted");
}

TEST_CASE("a manifest built to mislead is unsafe, though its checksum is right") {
  const RandomBundle bundle(false);
  const std::string unsafe = "BundleUnsafe";
  for (const char* name : {"../weights", "/weights", "a//b", "a/../b", ".hidden", "manifest.json", "a/b/c/d/e", ""})
    CHECK(refusal(edited(bundle, "\"weights.safetensors\"", '"' + std::string(name) + '"')) == unsafe);
  CHECK(refusal(edited(bundle, "\"kernel\": 11", "\"kernel\": 0")) == unsafe);
  CHECK(refusal(edited(bundle, "\"kernel\": 11", "\"kernel\": 1e3")) == unsafe);
  CHECK(refusal(edited(bundle, "\"kernel\": 11", "\"kernel\": -1")) == unsafe);
  CHECK(refusal(edited(bundle, "\"kernel\": 11", "\"kernel\": 99999999999999999999")) == unsafe);
  CHECK(refusal(edited(bundle, "\"stride\": 8", "\"stride\": 0")) == unsafe);
  CHECK(refusal(edited(bundle, "\"groups\": 2", "\"groups\": 3")) == unsafe);
  CHECK(refusal(edited(bundle, "\"groups\": 2", "\"groups\": 2, \"groups\": 2")) == unsafe);
  CHECK(refusal(edited(bundle, "\"outputs\": 50", "\"outputs\": 51")) == unsafe);
  CHECK(refusal(edited(bundle, "\"size\": ", "\"size\": -")) == unsafe);
  CHECK(refusal(edited(bundle, "\"order\": \"BGR\"", "\"order\": \"GRB\"")) == unsafe);
  CHECK(refusal(edited(bundle, "\"engines\": []", "\"engines\": [{}]")) == unsafe);
  CHECK(refusal(edited(bundle, "\"engines\": []", "\"engines\": " + std::string(40, '[') + std::string(40, ']'))) == unsafe);
  CHECK(refusal(edited(bundle, "\"kind\": \"conv\"", "\"kind\": \"attention\"")) == std::string("BundleError"));
  CHECK(refusal(edited(bundle, "\"schema\": 2", "\"schema\": 3")) == std::string("BundleError"));
  CHECK(refusal(std::string(100000, '[')) == unsafe);
  CHECK(refusal("[1, 2") == std::string("BundleCorrupt"));
}

TEST_CASE("files: cut off, changed, linked, missing, not a file") {
  const RandomBundle bundle(false);
  const auto weights = bundle.folder / "weights.safetensors";
  const std::string good = read(weights);
  const auto kind = [&] {
    try {
      Bundle::open(bundle.path()).weights();
    } catch (const Failure& failure) {
      return std::string(kind_name(failure.kind()));
    }
    return std::string("accepted");
  };
  CHECK(kind() == "accepted");
  write(weights, good.substr(1));
  CHECK(kind() == "BundleCorrupt");
  std::string changed = good;
  changed[good.size() / 2] ^= 1;
  write(weights, changed);
  CHECK(kind() == "BundleCorrupt");
  std::filesystem::remove(weights);
  CHECK(kind() == "BundleCorrupt");
  write(bundle.folder / "elsewhere", good);
  std::filesystem::create_symlink("elsewhere", weights);
  CHECK(kind() == "BundleUnsafe");
  std::filesystem::remove(weights);
  std::filesystem::create_directory(weights);
  CHECK(kind() == "BundleUnsafe");
}

// Looking through all siblings at the end of each object would take minutes.
TEST_CASE("safetensors: a header of many small tensors is read in time that grows with it") {
  std::string header = "{";
  for (int i = 0; header.size() < (1 << 20) - 100; ++i)
    header += (i > 0 ? ",\"" : "\"") + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  CHECK(parses(tensor_file(header + "}", 0)));
  CHECK_FALSE(parses(tensor_file(header + R"(,"7":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0)));
}

TEST_CASE("safetensors: the published rules") {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})";
  CHECK(parses(tensor_file(good, 24)));
  CHECK(parses(tensor_file(R"({"__metadata__":{"x":"y"}})", 0)));
  CHECK_FALSE(parses(""));
  CHECK_FALSE(parses("1234567"));
  CHECK_FALSE(parses(tensor_file(good, 23)));
  CHECK_FALSE(parses(tensor_file(good, 25)));
  CHECK_FALSE(parses(tensor_file(good, 24).substr(0, 20)));
  CHECK_FALSE(parses(std::string(8, '\xff') + good));
  CHECK_FALSE(parses(tensor_file("[]", 0)));
  CHECK_FALSE(parses(tensor_file(R"({"a":{"dtype":"F32","shape":[2,3]}})", 24)));
  CHECK_FALSE(parses(tensor_file(R"({"a":{"dtype":"F33","shape":[6],"data_offsets":[0,24]}})", 24)));
  CHECK_FALSE(parses(tensor_file(R"({"a":{"dtype":"F32","shape":[7],"data_offsets":[0,24]}})", 24)));
  CHECK_FALSE(parses(tensor_file(R"({"a":{"dtype":"F32","shape":[-6],"data_offsets":[0,24]}})", 24)));
  CHECK_FALSE(parses(tensor_file(R"({"a":{"dtype":"F32","shape":[6],"data_offsets":[24,0]}})", 24)));
  CHECK_FALSE(parses(tensor_file(R"({"a":{"dtype":"F32","shape":[6],"data_offsets":[4,28]}})", 28)));
  CHECK_FALSE(parses(tensor_file(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0)));
  CHECK_FALSE(parses(tensor_file(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                                 R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                                 6)));
  CHECK_FALSE(parses(tensor_file(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                                 R"("b":{"dtype":"U8","shape":[4],"data_offsets":[6,10]}})",
                                 10)));
  CHECK(parses(tensor_file(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})", 0)));
  CHECK_FALSE(parses(
      tensor_file(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[18446744073709551612,18446744073709551612]}})", 0)));
  CHECK(parses(tensor_file("{}" + std::string((1 << 20) - 2, ' '), 0)));
  CHECK_FALSE(parses(tensor_file("{}" + std::string((1 << 20) - 1, ' '), 0)));
  CHECK_FALSE(parses(tensor_file(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                                 R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                                 4)));
}

TEST_CASE("safetensors: weights that are not finite are refused by name") {
  const std::string header = R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})";
  const auto refusal_of = [&](float value) -> std::string {
    std::string bytes = tensor_file(header, 12);
    std::memcpy(&bytes[bytes.size() - 4], &value, sizeof value);
    const auto data = std::make_shared<Bytes>(bytes.data(), bytes.size(), false);
    try {
      const Tensors tensors = Tensors::parse(data, "weights.safetensors");
      const float found = tensors.find("a", {3})[2];
      CHECK(found == value);
      return "accepted";
    } catch (const Failure& failure) {
      CHECK(failure.kind() == ErrorKind::bundle);
      return failure.what();
    }
  };
  const std::string refused =
      "weights.safetensors: a holds NaN or infinity, expected finite float32. Train or export it again.";
  CHECK(refusal_of(std::numeric_limits<float>::max()) == "accepted");
  CHECK(refusal_of(-std::numeric_limits<float>::denorm_min()) == "accepted");
  CHECK(refusal_of(std::numeric_limits<float>::infinity()) == refused);
  CHECK(refusal_of(-std::numeric_limits<float>::infinity()) == refused);
  CHECK(refusal_of(std::numeric_limits<float>::quiet_NaN()) == refused);
  CHECK(refusal_of(-std::numeric_limits<float>::signaling_NaN()) == refused);
}
