#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "error.h"

namespace deepsim::runtime::detail {

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  constexpr std::size_t large_page = std::size_t{2} << 20;
  const std::size_t alignment = bytes >= large_page ? large_page : 64;
  const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  data_.reset(rounded < bytes ? nullptr : std::aligned_alloc(alignment, rounded));
  if (!data_) {
    throw Failure(ErrorKind::out_of_memory, "memory: " + std::to_string(bytes) +
                                                " bytes are not to be had. Use a smaller max_batch, or free memory.");
  }
#if defined(MADV_HUGEPAGE)
  if (alignment == large_page) (void)madvise(data_.get(), rounded, MADV_HUGEPAGE);  // a hint: without, it is slower
#endif
}

void Buffer::Free::operator()(void* data) const { std::free(data); }

}  // namespace deepsim::runtime::detail
