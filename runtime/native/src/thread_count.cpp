#include "thread_count.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <thread>
#include <vector>

#include "environment.h"
#include "error.h"

namespace deepsim::runtime::detail {

namespace {

constexpr int kMostThreads = 4096;
constexpr int kMostCpus = 1 << 20;  // that a mask is taken to have at most

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

// Where in its hierarchies this process is: the folder in that of cgroup v2, and in that of v1 which has the CPU's quota.
struct Place {
  std::optional<std::string> v1, v2;
};

// Lines "number:controllers:folder"; those of v2 are "0::folder".
Place place_of(std::istream& lines) {
  Place place;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t controllers = line.find(':'), folder = line.find(':', controllers + 1);
    if (controllers == std::string::npos || folder == std::string::npos) continue;
    const std::string names = line.substr(controllers + 1, folder - controllers - 1);
    if (line.compare(0, 3, "0::") == 0) place.v2 = line.substr(folder + 1);
    if (has_word(names, "cpu")) place.v1 = line.substr(folder + 1);
  }
  return place;
}

// A hierarchy of control groups as it is mounted: `top`, a folder of it, at `point`.
struct Mount {
  std::string top, point;
  bool v2 = false;
};

// Spaces and backslashes are written as \040, \134.
std::string decoded(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string digits = text[i] == '\\' ? text.substr(i + 1, 3) : "";
    const bool octal = digits.size() == 3 && digits.find_first_not_of("01234567") == std::string::npos;
    result += octal ? static_cast<char>(std::stoi(digits, nullptr, 8)) : text[i];
    if (octal) i += 3;
  }
  return result;
}

// Lines "36 35 98:0 TOP POINT options ... - TYPE source options", as proc(5) has them.
std::vector<Mount> mounts_of(std::istream& lines) {
  std::vector<Mount> mounts;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line.substr(0, dash)), after(line.substr(dash + 3));
    std::string skipped, top, point, type, source, options;
    before >> skipped >> skipped >> skipped >> top >> point;
    after >> type >> source >> options;
    const bool v1 = type == "cgroup" && has_word(options, "cpu");
    if (v1 || type == "cgroup2") mounts.push_back({decoded(top), decoded(point), !v1});
  }
  return mounts;
}

// What `folder` is below `top`, "" for the same; nothing when it is not below it.
std::optional<std::string> below(const std::string& top, const std::string& folder) {
  const std::string base = top == "/" ? "" : top;
  if (folder == top || folder == "/") return folder == top || base.empty() ? std::optional<std::string>("") : std::nullopt;
  if (folder.compare(0, base.size() + 1, base + "/") != 0) return std::nullopt;
  return folder.substr(base.size());
}

// The quota of one group in CPUs: cpu.max holds "quota period", or "max period"; in v1 a file has each, and -1 means none.
std::optional<double> quota_of(const std::string& group, bool v2) {
  double quota = -1, period = -1;
  if (v2) {
    std::ifstream(group + "/cpu.max") >> quota >> period;
  } else {
    std::ifstream(group + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(group + "/cpu.cfs_period_us") >> period;
  }
  if (!(quota > 0 && period > 0)) return std::nullopt;
  return quota / period;
}

// The least quota of the group `folder` below `point` and of all groups above it.
double least_quota(const std::string& point, std::string folder, bool v2, double least) {
  for (;;) {
    if (const std::optional<double> quota = quota_of(point + folder, v2)) least = std::min(least, *quota);
    const std::size_t slash = folder.rfind('/');
    if (slash == std::string::npos) return least;
    folder.resize(slash);
  }
}

double cpu_quota(const std::string& root) {
  std::ifstream groups(root + "/proc/self/cgroup"), mounted(root + "/proc/self/mountinfo");
  const Place place = place_of(groups);
  double least = HUGE_VAL;
  for (const Mount& mount : mounts_of(mounted)) {
    const std::optional<std::string>& folder = mount.v2 ? place.v2 : place.v1;
    if (!folder) continue;
    // In a container the folder's name may be that outside; what is mounted is then the container's own.
    const std::string found = below(mount.top, *folder).value_or("");
    least = least_quota(root + mount.point, found, mount.v2, least);
  }
  return least;
}

}  // namespace

int affinity_cpus(int (*get)(pid_t, std::size_t, cpu_set_t*)) {
  for (int cpus = CPU_SETSIZE; cpus <= kMostCpus; cpus *= 2) {
    const std::size_t bytes = CPU_ALLOC_SIZE(cpus);
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(cpus), [](cpu_set_t* each) { CPU_FREE(each); });
    if (!set) return 0;
    CPU_ZERO_S(bytes, set.get());
    if (get(0, bytes, set.get()) == 0) return CPU_COUNT_S(bytes, set.get());
    if (errno != EINVAL) return 0;  // else the mask is larger
  }
  return 0;
}

int usable_cpus(const std::string& root) {
  const int found = affinity_cpus(sched_getaffinity);
  const int cpus = found > 0 ? found : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return static_cast<int>(std::clamp(std::ceil(cpu_quota(root)), 1.0, static_cast<double>(std::min(cpus, kMostThreads))));
}

ThreadCount thread_count(int asked) {
  if (asked > 0) return {asked, true};
  const std::string text = environment("DEEPSIM_NUM_THREADS");
  if (text.empty()) return {usable_cpus(), false};
  const bool digits = text.size() <= 4 && text.find_first_not_of("0123456789") == std::string::npos;
  const int count = digits ? std::stoi(text) : 0;
  if (count < 1 || count > kMostThreads) {
    throw Failure(ErrorKind::usage, "DEEPSIM_NUM_THREADS: '" + text + "', expected a number of threads from 1 to 4096.");
  }
  return {count, true};
}

}  // namespace deepsim::runtime::detail
