// Tensors::parse; then every name and shape that its header gives is looked for, and the ends of what is found read.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "error.h"
#include "safetensors.h"

namespace {

using namespace deepsim::runtime::detail;
using nlohmann::json;

float ends(const float* values, const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count == 0 ? 0.0f : values[0] + values[count - 1];
}

void find(const Tensors& tensors, const std::string& name, const std::vector<std::int64_t>& shape) {
  static volatile float sink;
  try {
    sink = ends(tensors.find(name, shape), shape);
    (void)sink;
  } catch (const Failure&) {
  }
}

// An accepted header is JSON whose records have shapes, or parse() is wrong and this throws.
void find_all(const Tensors& tensors, std::string_view bytes) {
  std::size_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::size_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  const json header = json::parse(bytes.substr(8, length));
  for (const auto& [name, record] : header.items()) {
    if (name == "__metadata__") continue;
    const auto shape = record.at("shape").get<std::vector<std::int64_t>>();
    find(tensors, name, shape);
    find(tensors, name, {1});
  }
  find(tensors, "", {});
}

}  // namespace

// The first byte says by how much the file is misaligned in memory; the rest is the file, in memory of just its size.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t shift = data[0] % 8;
  std::vector<char> memory(shift);
  memory.insert(memory.end(), data + 1, data + size);
  memory.shrink_to_fit();
  try {
    const auto bytes = std::make_shared<Bytes>(memory.data() + shift, size - 1, false);
    const Tensors tensors = Tensors::parse(bytes, "weights.safetensors");
    find_all(tensors, {bytes->data(), bytes->size()});
  } catch (const Failure&) {
  }
  return 0;
}
