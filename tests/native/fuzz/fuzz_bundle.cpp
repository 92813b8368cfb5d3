// A whole bundle on disk: opened, planned, packed, and run where that is quick. The input is either the body of a
// manifest as text, or two networks drawn from bytes (drawn_networks.h); the weights are made to suit.
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "drawn_networks.h"
#include "session.h"
#include "error.h"
#include "manifest.h"
#include "operation.h"

namespace {

using namespace deepsim::runtime::detail;
using namespace deepsim::tests;
using deepsim::runtime::ErrorKind;

constexpr double kMaxWork = 2e8;  // multiply-adds of an image; sanitizers are slow
constexpr std::size_t kSpareBytes = std::size_t{8} << 20;

struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("deepsim-fuzz-" + std::to_string(getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  void write(const char* name, const std::string& bytes) const {
    std::ofstream(path / name, std::ios::binary | std::ios::trunc) << bytes;
  }
};

std::string isa_of(std::uint8_t number) {
  std::vector<std::string> names;
  for (const auto* table = deepsim::kernels::available_kernels(); *table != nullptr; ++table) names.push_back((*table)->name);
  return names[number % names.size()];
}

void run(Session& session, const Manifest& manifest) {
  const auto full = static_cast<std::size_t>(manifest.full_side()), side = static_cast<std::size_t>(manifest.side());
  const std::vector<std::uint8_t> image(side * side * 3, 100);
  std::vector<float> features(static_cast<std::size_t>(manifest.features.elements()), 0.5f), raw(full * full * 3);
  std::vector<std::uint8_t> crop(side * side * 3), whole(full * full * 3);
  if (manifest.can_encode()) session.encode(image.data(), 1, features.data());
  if (!manifest.can_decode()) return;
  session.decode_raw(features.data(), 1, true, raw.data());
  session.decode(features.data(), 1, true, whole.data());
  session.decode(features.data(), 1, false, crop.data());
  const std::size_t offset = static_cast<std::size_t>(manifest.geometry.offset) * (full + 1) * 3;
  for (std::size_t row = 0; row < side; ++row) {  // the crop is a part of the whole, bit for bit
    const std::uint8_t* found = crop.data() + row * side * 3;
    if (!std::equal(found, found + side * 3, whole.data() + offset + row * full * 3)) __builtin_trap();
  }
}

void open_and_run(const std::string& manifest, const std::string& tensors, const DrawnBundle& drawn) {
  static const Folder folder;
  folder.write("manifest.json", manifest);
  folder.write("weights.safetensors", tensors);
  try {
    const Bundle bundle = Bundle::open(folder.path.string());
    SessionOptions options;
    options.max_batch = options.threads = 1;
    options.half_fc_weights = drawn.half;
    options.isa = isa_of(drawn.isa);
    options.spare_bytes = kSpareBytes;
    const std::unique_ptr<Session> made = open_session(bundle, options);
    Session& session = *made;
    const double work = work_of(bundle.manifest().encoder, true) + 2 * work_of(bundle.manifest().generator, false);
    if (work <= kMaxWork) run(session, bundle.manifest());
  } catch (const Failure& failure) {
    if (failure.kind() == ErrorKind::deepsim) throw std::logic_error(failure.what());
  }
}

// The text decides the networks; the weights, whose hash a manifest must have, can only be made once they are known.
void open_text(const std::string& text) {
  const std::string body = text.substr(0, text.rfind("\n}"));
  DrawnBundle bundle;
  try {
    const Manifest manifest = parse_manifest(with_checksum(body), "manifest.json");
    if (manifest.can_encode()) add_weights(manifest.encoder, "encoder", true, &bundle);
    if (manifest.can_decode()) add_weights(manifest.generator, "generator", true, &bundle);
    const std::string tensors = tensor_bytes(bundle.weights, bundle.shapes);
    open_and_run(manifest_bytes(manifest, tensors), tensors, bundle);
  } catch (const Failure&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0 && data[0] == '{') {
    open_text({reinterpret_cast<const char*>(data), size});
    return 0;
  }
  const DrawnBundle drawn = draw_bundle(data, size);
  const std::string tensors = tensor_bytes(drawn.weights, drawn.shapes);
  open_and_run(manifest_bytes(drawn.manifest, tensors), tensors, drawn);
  return 0;
}
