// What tests ask of the driver that stands in for NVIDIA's, and how they set it up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "deepsim/inverter.h"

extern "C" {
std::size_t deepsim_stand_in_memory(void);
int deepsim_stand_in_objects(void);
std::size_t deepsim_stand_in_graphs(void);
long deepsim_stand_in_calls(const char* name);
void deepsim_stand_in_count_anew(void);
void deepsim_stand_in_forget(void);
int cuCtxPushCurrent_v2(void*);
int cuCtxPopCurrent_v2(void**);
const char* deepsim_stand_in_launched(void);  // names of the kernels that ran since the last time
int cuMemAlloc_v2(std::uint64_t*, std::size_t);
int cuMemFree_v2(std::uint64_t);
}

namespace deepsim::tests {

// A variable of the environment, "FAILS" for DEEPSIM_STAND_IN_FAILS, for as long as this lives.
class StandIn {
 public:
  StandIn(const std::string& name, const std::string& value) : name_("DEEPSIM_STAND_IN_" + name) {
    setenv(name_.c_str(), value.c_str(), 1);
  }
  ~StandIn() { unsetenv(name_.c_str()); }
  StandIn(const StandIn&) = delete;
  StandIn& operator=(const StandIn&) = delete;

 private:
  std::string name_;
};

// The GPU's context, current in this thread for as long as this lives: what the driver's own functions need.
class CurrentContext {
 public:
  CurrentContext() { (void)cuCtxPushCurrent_v2(nullptr); }
  ~CurrentContext() {
    void* context = nullptr;
    (void)cuCtxPopCurrent_v2(&context);
  }
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;
};

inline runtime::Options on_gpu(int max_batch = 4, bool stable = false, const std::string& precision = "") {
  runtime::Options options;
  options.device = "cuda:0";
  options.precision = precision;
  options.stable = stable;
  options.max_batch = max_batch;
  return options;
}

}  // namespace deepsim::tests
