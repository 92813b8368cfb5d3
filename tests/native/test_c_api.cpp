// The C ABI as other versions' clients see it: structs that are shorter or longer than this version's.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>

#include "deepsim/inverter.h"
#include "older/client.h"
#include "random_bundle.h"

using namespace deepsim::tests;

namespace {

// Options followed by what a later version could add.
struct LaterOptions {
  deepsim_options known{};
  std::uint64_t added[4] = {};
};

// The name of the error that opening with these options is, and its message.
std::string opening(const std::string& bundle, const deepsim_options& options) {
  deepsim_inverter* inverter = nullptr;
  deepsim_error error;
  const int code = deepsim_open(bundle.c_str(), &options, &inverter, &error);
  CHECK((code == 0) == (inverter != nullptr));
  deepsim_close(inverter);
  return code == 0 ? "opened" : std::string(error.kind) + ": " + error.message;
}

}  // namespace

TEST_CASE("a client compiled with the first version's header gets the images that one of this version gets") {
  const RandomBundle bundle(false);
  const std::vector<std::uint8_t> images = random_images(2, 4);
  const OlderClient older = run_older_client(bundle.path(), images, 2);
  CHECK(older.error == "");
  CHECK(older.options_size == 48);
  CHECK(older.image_size == kSide);
  CHECK(older.full_image_size == 256);
  CHECK(older.encoder == "random");
  deepsim::runtime::Options options;
  options.isa = "baseline";
  std::vector<std::uint8_t> wanted(2 * kImage);
  deepsim::runtime::Inverter(bundle.path(), options).reconstruct(images.data(), 2, wanted.data());
  CHECK(older.reconstructed == wanted);
}

TEST_CASE("an older client is told in words what a bundle without an encoder lacks") {
  const RandomBundle bundle(
      {{},
       {layer("image", deepsim::runtime::detail::Kind::conv, 5, 3, 3, 1, 1, deepsim::runtime::detail::Activation::none)},
       6,
       1,
       false,
       1,
       deepsim::runtime::detail::EncoderKind::none,
       {5, 8, 8, false}});
  const OlderClient older = run_older_client(bundle.path(), std::vector<std::uint8_t>(6 * 6 * 3), 1);
  CHECK(older.error == "encoder: this bundle has none, expected a table of layers. It decodes and interpolates.");
  CHECK(older.encoder == "");
  CHECK(older.image_size == 6);
}

TEST_CASE("options of another size: shorter ones have defaults, longer ones are served while they ask for nothing unknown") {
  const RandomBundle bundle(false);
  LaterOptions options;
  const auto sized = [&](std::size_t size) {
    options.known.size = static_cast<std::uint32_t>(size);
    return opening(bundle.path(), options.known);
  };
  CHECK(sized(sizeof options.known) == "opened");
  CHECK(sized(offsetof(deepsim_options, stable) + 4) == "opened");
  CHECK(sized(sizeof options) == "opened");
  options.known.unused = -1;  // as in the padding of an older client
  CHECK(sized(sizeof options.known) == "opened");
  const std::string expected = ", expected 44 to 4096. Set size to its sizeof.";
  CHECK(sized(43) == "UsageError: options: size 43" + expected);
  CHECK(sized(0) == "UsageError: options: size 0" + expected);
  CHECK(sized(4097) == "UsageError: options: size 4097" + expected);
  options.added[3] = 1;
  CHECK(sized(sizeof options) ==
        "UsageError: options: size 80 with values beyond byte 48, expected zeros there, which this "
        "version does not know.");
  CHECK(sized(sizeof options - 8) == "opened");
}

TEST_CASE("a description fills as much as the client has and no byte more") {
  const RandomBundle bundle(false);
  deepsim_inverter* inverter = nullptr;
  deepsim_error error;
  REQUIRE(deepsim_open(bundle.path().c_str(), nullptr, &inverter, &error) == 0);
  struct {
    deepsim_bundle_info known{};
    unsigned char later[8], guard[8];
  } info;
  std::memset(info.later, 7, sizeof info.later + sizeof info.guard);
  info.known.size = sizeof info.known + sizeof info.later;
  REQUIRE(deepsim_describe_bundle(inverter, &info.known, &error) == 0);
  CHECK(info.known.size == sizeof info.known + sizeof info.later);
  CHECK(info.known.can_encode == 1);
  CHECK(std::string(info.known.encoder_kind) == "table");
  CHECK(info.known.image_offset == (256 - kSide) / 2);
  CHECK(info.known.resized == 256);
  CHECK(std::string(info.known.resize) == "warp");
  CHECK(std::string(info.known.interpolation) == "bilinear");
  for (const unsigned char byte : info.later) CHECK(byte == 0);
  for (const unsigned char byte : info.guard) CHECK(byte == 7);
  CHECK(std::string(info.known.display) == "clip");
  CHECK(info.known.can_decode == 1);
  std::memset(&info.known, 7, sizeof info.known);
  info.known.size = offsetof(deepsim_bundle_info, display);  // a client of the first version
  REQUIRE(deepsim_describe_bundle(inverter, &info.known, &error) == 0);
  CHECK(std::string(info.known.interpolation) == "bilinear");
  CHECK(info.known.can_decode == 0x07070707);
  info.known.size = offsetof(deepsim_bundle_info, display) - 1;
  CHECK(deepsim_describe_bundle(inverter, &info.known, &error) == 2);
  CHECK(std::string(error.message) == "info: size 39, expected 40 to 4096. Set size to its sizeof.");
  CHECK(deepsim_describe_bundle(inverter, nullptr, &error) == 2);
  deepsim_close(inverter);
}
