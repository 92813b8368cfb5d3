// Variables of the environment.
#pragma once

#include <cstdlib>
#include <string>

namespace deepsim::runtime::detail {

// The value of a variable; `otherwise` where it is not set.
inline std::string environment(const char* name, const char* otherwise = "") {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

}  // namespace deepsim::runtime::detail
