// Memory for weights and activations: aligned, on large pages where the system has them, and freed with its owner.
#pragma once

#include <cstddef>
#include <memory>

namespace deepsim::runtime::detail {

class Buffer {
 public:
  Buffer() = default;
  // Take `bytes` of memory whose pages are not touched yet. Raises OutOfMemory naming the size.
  explicit Buffer(std::size_t bytes);

  std::size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }
  float* floats() const { return as<float>(); }

 private:
  struct Free {
    Free() : mapped(0) {}
    explicit Free(std::size_t bytes) : mapped(bytes) {}
    std::size_t mapped;  // bytes; 0: from malloc
    void operator()(void* data) const;
  };
  std::unique_ptr<void, Free> data_;
  std::size_t bytes_ = 0;
};

}  // namespace deepsim::runtime::detail
