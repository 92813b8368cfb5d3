// parse_manifest on raw bytes, and on the same bytes as the body of a manifest whose checksum is right.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "bundle_bytes.h"
#include "error.h"
#include "manifest.h"

namespace {

using namespace deepsim::runtime::detail;

// Anything but a Failure leaves, and is a bug.
void read(std::string_view bytes) {
  try {
    const Manifest manifest = parse_manifest(bytes, "manifest.json");
    if (!manifest.can_decode() && manifest.encoder_kind == EncoderKind::none) __builtin_trap();
    if (manifest.can_decode() && manifest.generator.shapes().back().channels != 3) __builtin_trap();
  } catch (const Failure&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  read(bytes);
  const std::size_t end = bytes.rfind("\n}");
  read(deepsim::tests::with_checksum(bytes.substr(0, end)));
  return 0;
}
