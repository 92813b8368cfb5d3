// Which instruction sets can run here, and what the kernels need of scratch memory.
#include <algorithm>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels.h"

namespace deepsim::kernels {

namespace baseline {
extern const KernelTable table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const KernelTable table;
}
namespace avx512 {
extern const KernelTable table;
}
#endif

#if defined(__x86_64__)
// __builtin_cpu_supports does not know "f16c" in every compiler. The registers it needs are those of AVX2.
static bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

const KernelTable* const* available_kernels() {
  struct Available {
    const KernelTable* tables[4] = {};
    Available() {
      const KernelTable** next = tables;
#if defined(__x86_64__)
      const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
      const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
      if (avx512) *next++ = &avx512::table;
      if (avx2) *next++ = &avx2::table;
#endif
      *next = &baseline::table;
    }
  };
  static const Available available;
  return available.tables;
}

namespace {

std::size_t steps_scratch(std::size_t steps) { return 2 * ((steps + kBlock - 1) / kBlock * kBlock); }

std::size_t size(int count) { return static_cast<std::size_t>(count); }

}  // namespace

TileRange tile_range(const Convolution& layer) {
  const int m = layer.winograd;
  return {layer.row_begin / m, (layer.row_end + m - 1) / m, layer.column_begin / m, (layer.column_end + m - 1) / m};
}

std::size_t convolve_scratch(const KernelTable&, const Convolution& layer, int images, int rows) {
  const std::size_t height = size((rows - 1) * layer.window_stride + layer.kernel);
  const std::size_t width = size((layer.windows_across() - 1) * layer.window_stride + layer.kernel);
  return steps_scratch(size(layer.in_blocks * layer.kernel * layer.kernel)) +
         size(images) * size(layer.in_blocks) * height * width * kBlock;
}

std::size_t winograd_scratch(const KernelTable& table, const Convolution& layer, int tiles) {
  const std::size_t side = size(layer.winograd + layer.kernel - 1);
  return steps_scratch(size(layer.in_blocks)) + side * side * size(tiles) * size(table.tile_columns);
}

std::size_t winograd_transformed(const Convolution& layer, int tiles) {
  const std::size_t side = size(layer.winograd + layer.kernel - 1);
  return side * side * size(tiles) * size(layer.in_blocks) * kBlock;
}

std::size_t fully_connected_scratch(const KernelTable& table, int rows) { return size(rows) * size(table.tile_columns); }

std::size_t pool_scratch(const Pool& layer) { return size(2 * layer.blocks + 2) * kBlock; }

}  // namespace deepsim::kernels
