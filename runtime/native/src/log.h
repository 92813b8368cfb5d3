// Notes for people, to wherever the application wants them.
#pragma once

#include <string>

namespace deepsim::runtime::detail {

enum class Level { information = 0, warning = 1 };

void log(Level level, const std::string& message);
void set_log(void (*sink)(int, const char*, void*), void* user);

}  // namespace deepsim::runtime::detail
