#include "error.h"

namespace deepsim::runtime::detail {

const char* kind_name(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::usage:
      return "UsageError";
    case ErrorKind::data:
      return "DataError";
    case ErrorKind::bundle:
      return "BundleError";
    case ErrorKind::bundle_corrupt:
      return "BundleCorrupt";
    case ErrorKind::bundle_unsafe:
      return "BundleUnsafe";
    case ErrorKind::shape:
      return "ShapeError";
    case ErrorKind::dtype:
      return "DtypeError";
    case ErrorKind::device:
      return "DeviceError";
    case ErrorKind::out_of_memory:
      return "OutOfMemory";
    case ErrorKind::numeric:
      return "NumericError";
    case ErrorKind::deepsim:
      break;
  }
  return "DeepsimError";
}

int exit_code(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::usage:
      return 2;
    case ErrorKind::device:
    case ErrorKind::out_of_memory:
      return 4;
    case ErrorKind::numeric:
      return 5;
    case ErrorKind::data:
    case ErrorKind::bundle:
    case ErrorKind::bundle_corrupt:
    case ErrorKind::bundle_unsafe:
    case ErrorKind::shape:
    case ErrorKind::dtype:
      return 3;
    case ErrorKind::deepsim:
      break;
  }
  return 1;
}

}  // namespace deepsim::runtime::detail
