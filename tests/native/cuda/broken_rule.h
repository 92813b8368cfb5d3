// Which rule of the emulation a kernel breaks.
#pragma once

#include <functional>
#include <optional>

#include "device.h"

namespace deepsim::tests {

// The rule that one block of so many threads breaks when it runs in this order, if any.
inline std::optional<cuda::emulation::Rule> broken(int threads, std::size_t shared_bytes, const std::function<void()>& body,
                                                   const cuda::emulation::Schedule& schedule) {
  try {
    cuda::emulation::launch({}, threads, shared_bytes, body, schedule);
  } catch (const cuda::emulation::Violation& violation) {
    return violation.rule;
  }
  return {};
}

}  // namespace deepsim::tests
