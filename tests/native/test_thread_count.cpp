// How many threads there are by default: the affinity mask, whatever its size, and the quota of control groups.
#include <doctest/doctest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "error.h"
#include "thread_count.h"

using namespace deepsim::runtime::detail;
namespace fs = std::filesystem;

namespace {

// A folder that holds what /proc and the control groups would tell.
class Root {
 public:
  Root() {
    char pattern[] = "/tmp/deepsim-root-XXXXXX";
    REQUIRE(mkdtemp(pattern) != nullptr);
    path_ = pattern;
  }
  ~Root() { fs::remove_all(path_); }
  Root(const Root&) = delete;
  Root& operator=(const Root&) = delete;

  Root& write(const std::string& name, const std::string& text) {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name) << text;
    return *this;
  }
  int cpus() const { return usable_cpus(path_.string()); }

 private:
  fs::path path_;
};

constexpr const char* kGroup = "proc/self/cgroup";
constexpr const char* kMounts = "proc/self/mountinfo";
const std::string kV2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const std::string kV1 =
    "30 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "31 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n";

int all_cpus() { return affinity_cpus(sched_getaffinity); }

// What the kernel answers on a machine with 5000 CPUs of which this process may use 3.
int large_mask(pid_t, std::size_t bytes, cpu_set_t* set) {
  if (bytes * 8 < 5000) {
    errno = EINVAL;
    return -1;
  }
  for (const std::size_t cpu : {std::size_t{0}, std::size_t{1500}, std::size_t{4999}}) CPU_SET_S(cpu, bytes, set);
  return 0;
}

int no_mask(pid_t, std::size_t, cpu_set_t*) {
  errno = ENOSYS;
  return -1;
}

}  // namespace

TEST_CASE("an affinity mask of any size is counted") {
  CHECK(affinity_cpus(large_mask) == 3);
  CHECK(affinity_cpus(no_mask) == 0);
  CHECK(all_cpus() >= 1);
}

TEST_CASE("a quota of CPU time bounds the number of threads, rounded up, in cgroup v2") {
  Root root;
  CHECK(root.cpus() == std::max(1, all_cpus()));  // without any file
  root.write(kGroup, "0::/a/b\n").write(kMounts, kV2);
  CHECK(root.cpus() == all_cpus());
  root.write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  CHECK(root.cpus() == all_cpus());
  root.write("sys/fs/cgroup/a/b/cpu.max", "100000 100000\n");
  CHECK(root.cpus() == 1);
  root.write("sys/fs/cgroup/a/b/cpu.max", "110000 100000\n");
  CHECK(root.cpus() == std::min(2, all_cpus()));
  root.write("sys/fs/cgroup/a/b/cpu.max", "5000 100000\n");
  CHECK(root.cpus() == 1);
  root.write("sys/fs/cgroup/a/b/cpu.max", "nonsense");
  CHECK(root.cpus() == all_cpus());
}

TEST_CASE("the least quota of a group and of those above it counts") {
  Root root;
  root.write(kGroup, "0::/a/b\n").write(kMounts, kV2).write("sys/fs/cgroup/a/b/cpu.max", "900000 100000\n");
  root.write("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
  CHECK(root.cpus() == 1);
  root.write("sys/fs/cgroup/a/cpu.max", "max 100000\n").write("sys/fs/cgroup/cpu.max", "100000 100000\n");
  CHECK(root.cpus() == 1);
}

TEST_CASE("cgroup v1 has a quota and a period, and a container sees its own group at the top") {
  Root root;
  root.write(kGroup, "4:memory:/c\n3:cpuacct,cpu:/c\n0::/\n").write(kMounts, kV1);
  root.write("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "-1\n")
      .write("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "50000\n");
  CHECK(root.cpus() == all_cpus());
  root.write("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "50000\n");
  CHECK(root.cpus() == 1);

  Root container;
  container.write(kGroup, "3:cpu,cpuacct:/docker/0123\n");
  container.write(kMounts, "31 23 0:28 /docker/0123 /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n");
  container.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "20000\n").write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  CHECK(container.cpus() == 1);

  Root outside;  // the folder's name is that outside of the container's namespace
  outside.write(kGroup, "0::/../../elsewhere\n").write(kMounts, kV2).write("sys/fs/cgroup/cpu.max", "100000 100000\n");
  CHECK(outside.cpus() == 1);
}

TEST_CASE("a mount point with a space is found, and broken lines are passed over") {
  Root root;
  root.write(kGroup, "broken\n\n0::/\n");
  root.write(kMounts, "short line\n29 23 0:26 / /control\\040groups rw - cgroup2 cgroup2 rw\n");
  root.write("control groups/cpu.max", "100000 100000\n");
  CHECK(root.cpus() == 1);
}

TEST_CASE("a number of threads that the user asks for goes before what the system would let it use") {
  CHECK(thread_count(7).count == 7);
  CHECK(thread_count(7).asked);
  unsetenv("DEEPSIM_NUM_THREADS");
  CHECK(thread_count(0).count == usable_cpus());
  CHECK(!thread_count(0).asked);
  setenv("DEEPSIM_NUM_THREADS", "5", 1);
  CHECK(thread_count(0).count == 5);
  CHECK(thread_count(0).asked);
  for (const char* wrong : {"0", "4097", "two", "99999"}) {
    setenv("DEEPSIM_NUM_THREADS", wrong, 1);
    CHECK_THROWS_AS(thread_count(0), Failure);
  }
  unsetenv("DEEPSIM_NUM_THREADS");
}
