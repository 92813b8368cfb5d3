// The engine for a GPU: images and features stay on the device from the first kernel of a call to the last.
#pragma once

#include <memory>

#include "../engine.h"

namespace deepsim::runtime::detail::cuda {

// Raises as make_engine.
std::unique_ptr<Engine> make_engine(const Bundle& bundle, const EngineOptions& options, int ordinal);

}  // namespace deepsim::runtime::detail::cuda
