#include "openmp.h"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstddef>
#include <cstring>

#include "environment.h"

namespace deepsim::runtime::detail {

namespace {

constexpr int kSoftly = 1;  // omp_pause_soft: what threads have for themselves stays
constexpr int kMost = 8;    // wheels for Python bring a copy each
using Pause = int (*)(int);

// Never emptied: a library that starts threads does not leave the process.
std::atomic<Pause> pauses[kMost];
std::atomic<unsigned long long> loads_seen{0};

bool is_openmp(const char* path) {
  const char* const slash = std::strrchr(path, '/');
  const char* const name = slash != nullptr ? slash + 1 : path;
  for (const char* const known : {"libgomp.", "libgomp-", "libomp.", "libomp-", "libiomp5."})
    if (std::strncmp(name, known, std::strlen(known)) == 0) return true;
  return false;
}

void remember(Pause found) {
  for (std::atomic<Pause>& each : pauses) {
    Pause known = nullptr;
    if (each.compare_exchange_strong(known, found) || known == found) return;
  }
}

// How often the process has loaded a library, from the first entry alone.
int read_loads(dl_phdr_info* info, std::size_t size, void* loads) {
  if (size >= offsetof(dl_phdr_info, dlpi_adds) + sizeof info->dlpi_adds)
    *static_cast<unsigned long long*>(loads) = info->dlpi_adds;
  return 1;
}

int keep_path(dl_phdr_info* info, std::size_t, void* paths) {
  if (info->dlpi_name != nullptr && is_openmp(info->dlpi_name))
    for (char** each = static_cast<char**>(paths); each != static_cast<char**>(paths) + kMost; ++each)
      if (*each == nullptr) {
        *each = strdup(info->dlpi_name);
        break;
      }
  return 0;
}

void look_for_libraries() {
  char* paths[kMost] = {};
  dl_iterate_phdr(keep_path, paths);
  for (char* const path : paths) {
    if (path == nullptr) continue;
    // Looked up where it is loaded already; the handle is kept, so that the function stays.
    if (void* const library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD); library != nullptr)
      if (void* const found = dlsym(library, "omp_pause_resource_all"); found != nullptr)
        remember(reinterpret_cast<Pause>(found));
    std::free(path);
  }
}

}  // namespace

void rest_openmp_threads() {
  static const bool kept = environment("DEEPSIM_KEEP_OPENMP", "0") != "0";
  if (kept) return;
  unsigned long long loads = 0;
  dl_iterate_phdr(read_loads, &loads);
  if (loads != loads_seen.load()) {
    look_for_libraries();
    loads_seen.store(loads);
  }
  for (const std::atomic<Pause>& each : pauses) {
    const Pause pause = each.load();
    if (pause == nullptr) return;
    (void)pause(kSoftly);  // it refuses within a parallel region; then there is nothing to be done
  }
}

}  // namespace deepsim::runtime::detail
