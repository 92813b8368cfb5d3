// Files of a bundle: reached without following a link, of exactly the size that is expected, mapped into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace deepsim::runtime::detail {

// The bytes of a file, for as long as this lives.
class Bytes {
 public:
  Bytes(const char* data, std::size_t size, bool mapped) : data_(data), size_(size), mapped_(mapped) {}
  ~Bytes();
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  const char* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  const char* data_;
  std::size_t size_;
  bool mapped_;
};

// Map `folder/name`, `name` with '/' between its parts; `size` is what it must have (none: at most `limit`). Raises
// BundleUnsafe for links and what is no regular file, BundleCorrupt for another size, BundleError when it cannot be
// read. Returns nullptr when it does not exist.
std::shared_ptr<const Bytes> map_file(const std::string& folder, const std::string& name, std::optional<std::uint64_t> size,
                                      std::uint64_t limit);

// 1234567 -> "1,234,567"
std::string with_commas(std::uint64_t number);

}  // namespace deepsim::runtime::detail
