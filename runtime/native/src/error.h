// Every error that the library raises on purpose: the kinds, names and exit codes of runtime/errors.py.
// Grammar of a message: subject: what was found, what was expected. What to do.
#pragma once

#include <stdexcept>
#include <string>

namespace deepsim::runtime {

enum class ErrorKind {
  deepsim,
  usage,
  data,
  bundle,
  bundle_corrupt,
  bundle_unsafe,
  shape,
  dtype,
  device,
  out_of_memory,
  numeric
};

namespace detail {

class Failure : public std::runtime_error {
 public:
  Failure(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

// The name of the Python class, such as "BundleCorrupt".
const char* kind_name(ErrorKind kind) noexcept;
// What a command exits with.
int exit_code(ErrorKind kind) noexcept;

}  // namespace detail
}  // namespace deepsim::runtime
