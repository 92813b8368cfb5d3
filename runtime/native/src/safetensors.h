// Tensors of a .safetensors file by its published rules: eight bytes of header length, a JSON header that gives every
// tensor's type, shape and place, then the data without gap or overlap.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "files.h"

namespace deepsim::runtime::detail {

class Tensors {
 public:
  // Check the whole header against the size of the data. Raises BundleError naming `source`.
  static Tensors parse(std::shared_ptr<const Bytes> data, const std::string& source);

  // The values of a float32 tensor, valid for as long as this or a copy of it. Raises BundleError when it is missing,
  // of another type or shape, or not finite.
  const float* find(const std::string& name, const std::vector<std::int64_t>& shape) const;

  // Bytes of the whole file; 0 without one.
  std::size_t bytes() const { return file_ ? file_->size() : 0; }

 private:
  struct Entry {
    std::string type;
    std::vector<std::int64_t> shape;
    std::uint64_t begin = 0, end = 0;  // in the data
  };
  std::string source_;
  std::shared_ptr<const Bytes> file_;
  std::shared_ptr<std::vector<float>> copy_;  // of the data where the file has it misaligned
  const char* data_ = nullptr;
  std::map<std::string, Entry> entries_;
};

}  // namespace deepsim::runtime::detail
