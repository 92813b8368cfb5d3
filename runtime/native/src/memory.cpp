#include "memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "error.h"

namespace deepsim::runtime::detail {

namespace {

constexpr std::size_t kLargePage = std::size_t{2} << 20, kPage = std::size_t{64} << 10;
constexpr std::size_t kLine = 64;  // of the cache

// Under AddressSanitizer all memory is malloc's, where it sees what is read or written beyond the end.
#if defined(__has_feature)
#define DEEPSIM_UNDER_ASAN __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define DEEPSIM_UNDER_ASAN 1
#else
#define DEEPSIM_UNDER_ASAN 0
#endif

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Pages from the system itself, at a multiple of `alignment`: freed, they go back there, and leave no gaps in what malloc has.
void* map_pages(std::size_t bytes, std::size_t alignment) {
  void* const mapped = mmap(nullptr, bytes + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(mapped);
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  const std::size_t before = round_up(address, alignment) - address;
  if (before > 0) (void)munmap(begin, before);
  (void)munmap(begin + before + bytes, alignment - before);
#if defined(MADV_HUGEPAGE)
  if (alignment == kLargePage) (void)madvise(begin + before, bytes, MADV_HUGEPAGE);  // a hint: without, it is slower
#endif
  return begin + before;
}

}  // namespace

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  const std::size_t unit = bytes >= kLargePage ? kLargePage : bytes >= kPage ? kPage : kLine;
  const std::size_t taken = round_up(bytes > 0 ? bytes : 1, unit);
  const bool fits = taken >= bytes && taken <= SIZE_MAX - unit, mapped = unit > kLine && !DEEPSIM_UNDER_ASAN;
  data_ = {!fits ? nullptr : mapped ? map_pages(taken, unit) : std::aligned_alloc(unit, taken), Free{mapped ? taken : 0}};
  if (data_) return;
  throw Failure(ErrorKind::out_of_memory,
                "memory: " + std::to_string(bytes) + " bytes are not to be had. Use a smaller max_batch, or free memory.");
}

void Buffer::Free::operator()(void* data) const {
  if (mapped > 0) {
    (void)munmap(data, mapped);
  } else {
    std::free(data);
  }
}

}  // namespace deepsim::runtime::detail
