// The two roofs of a machine, measured: fp32 multiply-adds from registers, and bytes read from memory.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "session.h"
#include "memory.h"
#include "operation.h"
#include "process.h"

namespace deepsim::runtime::detail {

namespace {

constexpr int kRepeats = 5;

template <class Body>
double best_seconds(const Body& body) {
  double best = 1e30;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

std::uint64_t sum_of(const std::uint64_t* values, std::size_t count) {
  std::uint64_t sums[8] = {};
  for (std::size_t i = 0; i + 8 <= count; i += 8)
    for (std::size_t j = 0; j < 8; ++j) sums[j] += values[i + j];
  std::uint64_t sum = 0;
  for (const std::uint64_t part : sums) sum += part;
  return sum;
}

}  // namespace

Roofs measure_roofs(int asked, const std::string& isa) {
  const kernels::KernelTable& table = *kernels_named(isa);
  const std::shared_ptr<ThreadPool> shared = shared_pool(asked);
  ThreadPool& pool = *shared;
  const int threads = pool.threads();
  log_shortage(pool);
  const std::lock_guard<std::mutex> lock(calls());
  constexpr long rounds = 3'000'000;
  std::atomic<float> sink{0};
  const double computing = best_seconds([&] { pool.run(threads, [&](int, int) { sink = table.multiply_add(rounds); }); });
  const std::size_t bytes = std::size_t{256} << 20;
  const Buffer memory(bytes);
  std::memset(memory.as<char>(), 1, bytes);
  const std::size_t part = bytes / sizeof(std::uint64_t) / static_cast<std::size_t>(threads);
  std::atomic<std::uint64_t> total{0};
  const double reading = best_seconds([&] {
    pool.run(threads,
             [&](int task, int) { total += sum_of(memory.as<std::uint64_t>() + part * static_cast<std::size_t>(task), part); });
  });
  const double multiply_adds = static_cast<double>(rounds) * table.chains * table.lanes * threads;
  return {multiply_adds / computing / 1e9, static_cast<double>(bytes) / reading / 1e9};
}

}  // namespace deepsim::runtime::detail
