// SHA-256 (FIPS 180-4), with the processor's own instructions where it has them.
#pragma once

#include <cstddef>
#include <string>

namespace deepsim::runtime::detail {

// 64 lower-case hexadecimal digits.
std::string sha256(const void* data, std::size_t size);

}  // namespace deepsim::runtime::detail
