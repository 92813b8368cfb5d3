// Notes for people, to wherever the application wants them.
#pragma once

#include <string>

namespace deepsim::runtime::detail {

enum class Level { information = 0, warning = 1 };

void log(Level level, const std::string& message);
// For the child of a fork, where the mutex of the log may be held by a thread that is not there.
void reset_log_after_fork();
void set_log(void (*sink)(int, const char*, void*), void* user);

}  // namespace deepsim::runtime::detail
