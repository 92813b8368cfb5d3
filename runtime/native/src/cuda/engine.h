// The engine for a GPU: images and features stay on the device from the first kernel of a call to the last.
#pragma once

#include <memory>

#include "../engine.h"

namespace deepsim::runtime::detail::cuda {

// Raise DeviceError telling why this GPU cannot be used with these options, UsageError for an unknown precision.
void check_device(const EngineOptions& options, int ordinal);

// Which kernels would run on this GPU with these options, and why, in words. Raises as check_device, and where they cannot be
// loaded.
std::string describe_kernels(const EngineOptions& options, int ordinal);

// Raises as make_engine.
std::unique_ptr<Engine> make_engine(const Bundle& bundle, const EngineOptions& options, int ordinal);

}  // namespace deepsim::runtime::detail::cuda
