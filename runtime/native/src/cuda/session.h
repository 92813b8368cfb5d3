// The session for a GPU: images and features stay on the device from the first kernel of a call to the last.
#pragma once

#include <memory>

#include "../session.h"

namespace deepsim::runtime::detail::cuda {

// Raise DeviceError telling why this GPU cannot be used with these options, UsageError for an unknown precision.
void check_device(const SessionOptions& options, int ordinal);

// Which kernels would run on this GPU with these options, and why, in words. Raises as check_device, and where they cannot be
// loaded.
std::string describe_kernels(const SessionOptions& options, int ordinal);

// Raises as open_session.
std::unique_ptr<Session> open_session(const Bundle& bundle, const SessionOptions& options, int ordinal);

}  // namespace deepsim::runtime::detail::cuda
