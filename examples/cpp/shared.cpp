// Share one Inverter among threads: shared BUNDLE [THREADS [CALLS]]
//
// Every thread decodes its own features; each result must equal, byte for byte, what one thread alone computes.
#include <deepsim/inverter.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "Usage: shared BUNDLE [THREADS [CALLS]]\n");
    return 2;
  }
  const int threads = argc > 2 ? std::atoi(argv[2]) : 4, calls = argc > 3 ? std::atoi(argv[3]) : 20;
  try {
    deepsim::runtime::Inverter inverter(argv[1]);
    const auto size = static_cast<std::size_t>(inverter.feature_size());
    const std::size_t image =
        static_cast<std::size_t>(inverter.image_size()) * static_cast<std::size_t>(inverter.image_size()) * 3;
    std::atomic<int> different{0};
    std::vector<std::thread> running;
    for (int t = 0; t < threads; ++t)
      running.emplace_back([&, t] {
        std::mt19937 random(static_cast<unsigned>(t));
        std::vector<float> features(size);
        for (float& value : features) value = static_cast<float>(random() % 1000) / 500.0f;
        std::vector<std::uint8_t> first(image), again(image);
        inverter.decode(features.data(), 1, first.data());
        for (int call = 1; call < calls; ++call) {
          inverter.decode(features.data(), 1, again.data());
          different += again != first;
        }
      });
    for (std::thread& thread : running) thread.join();
    std::printf("%d threads x %d calls: %d results differ\n", threads, calls, different.load());
    return different == 0 ? 0 : 5;
  } catch (const deepsim::Error& error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return error.exit_code();
  }
}
