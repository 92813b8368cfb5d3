#include "log.h"

#include <mutex>
#include <new>

namespace deepsim::runtime::detail {

namespace {

std::mutex mutex;
void (*current_sink)(int, const char*, void*) = nullptr;
void* current_user = nullptr;

}  // namespace

void log(Level level, const std::string& message) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (current_sink != nullptr) current_sink(static_cast<int>(level), message.c_str(), current_user);
}

void reset_log_after_fork() { new (&mutex) std::mutex; }

void set_log(void (*sink)(int, const char*, void*), void* user) {
  const std::lock_guard<std::mutex> lock(mutex);
  current_sink = sink;
  current_user = user;
}

}  // namespace deepsim::runtime::detail
