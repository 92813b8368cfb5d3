// CUTLASS's strided dgrad as a peer of our up-convolutions (kernel 4, stride 2, padding 1): fp16, NHWC, sums in fp32, bias
// and LeakyReLU in its epilogue, on tensor cores of compute capability 8.0 and later.
//
//   cutlass_dgrad BATCH HEIGHT INPUTS OUTPUTS [...]
//
// Every four numbers are a layer; width = height. Where outputs are no multiple of 8, which CUTLASS needs, they are filled
// up. Prints a line of JSON for each layer: the best of the tiles below, checked against float64 before it is timed.
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "cutlass/cutlass.h"
#include "cutlass/conv/kernel/default_conv2d_dgrad.h"
#include "cutlass/epilogue/thread/linear_combination_leaky_relu.h"

#include "cutlass/conv/device/implicit_gemm_convolution.h"  // needs the others before it

namespace {

constexpr float kSlope = 0.3f;
constexpr double kMostError = 2e-3;  // relative; the output's rounding to fp16 gives about 3e-4
constexpr int kRounds = 7, kWrong = 5, kUnusable = 4, kUsage = 2;

using Half = cutlass::half_t;
using Layout = cutlass::layout::TensorNHWC;

struct Layer {
  int batch, height, inputs, outputs;
};

[[noreturn]] void fail(int code, const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::exit(code);
}

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) fail(kUnusable, std::string("cutlass: could not ") + what + " (" + cudaGetErrorString(status) + ").");
}

template <class T>
class Memory {
 public:
  explicit Memory(std::size_t count) : count_(count) { check(cudaMalloc(&pointer_, std::max<std::size_t>(count, 1) * sizeof(T)), "take memory"); }
  explicit Memory(const std::vector<T>& values) : Memory(values.size()) {
    check(cudaMemcpy(pointer_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "copy to the GPU");
  }
  ~Memory() { (void)cudaFree(pointer_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  T* get() const { return pointer_; }
  std::vector<T> values(std::size_t count) const {
    std::vector<T> host(count);
    check(cudaMemcpy(host.data(), pointer_, count * sizeof(T), cudaMemcpyDeviceToHost), "copy from the GPU");
    return host;
  }
  void poison() { check(cudaMemset(pointer_, 0xff, count_ * sizeof(T)), "fill memory"); }

 private:
  T* pointer_ = nullptr;
  std::size_t count_;
};

// Normal numbers; many repeat, since a thousand images take as long to draw as to measure.
std::vector<Half> draw(std::size_t count, double deviation, unsigned seed) {
  constexpr std::size_t kDistinct = std::size_t{1} << 22;
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, static_cast<float>(deviation));
  std::vector<Half> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = i < kDistinct ? Half(normal(generator)) : values[i - kDistinct];
  return values;
}

// One thread for each value of the first image: out[y][x][co] = leaky(bias + sum in[p][q][ci] * weight[ci][r][s][co]) over
// all p, r with 2p - 1 + r = y, and so across.
__global__ void reference(const Half* in, const Half* weight, const Half* bias, double* out, int height, int inputs, int outputs) {
  const int side = 2 * height;
  const int at = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (at >= side * side * outputs) return;
  const int co = at % outputs, x = at / outputs % side, y = at / outputs / side;
  double sum = static_cast<double>(static_cast<float>(bias[co]));
  for (int r = (y + 1) % 2; r < 4; r += 2)
    for (int s = (x + 1) % 2; s < 4; s += 2) {
      const int p = (y + 1 - r) / 2, q = (x + 1 - s) / 2;
      if (y + 1 < r || x + 1 < s || p >= height || q >= height) continue;
      for (int ci = 0; ci < inputs; ++ci)
        sum += static_cast<double>(static_cast<float>(in[(p * height + q) * inputs + ci])) *
               static_cast<double>(static_cast<float>(weight[((ci * 4 + r) * 4 + s) * outputs + co]));
    }
  out[at] = sum > 0 ? sum : static_cast<double>(kSlope) * sum;
}

struct Problem {
  explicit Problem(const Layer& layer)
      : layer(layer),
        size({layer.batch, 2 * layer.height, 2 * layer.height, layer.outputs}, {layer.inputs, 4, 4, layer.outputs},
             {1, 1, 1, 1}, {2, 2}, {1, 1}, {layer.batch, layer.height, layer.height, layer.inputs},
             cutlass::conv::Mode::kCrossCorrelation),
        in(draw(pixels() * static_cast<std::size_t>(layer.batch) * static_cast<std::size_t>(layer.inputs), 1, 1)),
        weight(draw(static_cast<std::size_t>(layer.inputs) * 16 * static_cast<std::size_t>(layer.outputs),
                    std::sqrt(0.5 / layer.inputs), 2)),
        bias(draw(static_cast<std::size_t>(layer.outputs), 0.1, 3)),
        out(static_cast<std::size_t>(layer.batch) * image()) {
    Memory<double> exact(image());
    const int values = static_cast<int>(image());
    reference<<<(values + 255) / 256, 256>>>(in.get(), weight.get(), bias.get(), exact.get(), layer.height, layer.inputs, layer.outputs);
    check(cudaDeviceSynchronize(), "compute in float64");
    wanted = exact.values(image());
  }
  std::size_t pixels() const { return static_cast<std::size_t>(layer.height) * static_cast<std::size_t>(layer.height); }
  std::size_t image() const { return 4 * pixels() * static_cast<std::size_t>(layer.outputs); }

  Layer layer;
  cutlass::conv::Conv2dProblemSize size;
  Memory<Half> in, weight, bias, out;
  std::vector<double> wanted;  // the first image
};

// The relative error of the first image.
double error_of(const Problem& problem) {
  const std::vector<Half> found = problem.out.values(problem.image());
  double difference = 0, whole = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double apart = static_cast<double>(static_cast<float>(found[i])) - problem.wanted[i];
    difference += apart * apart;
    whole += problem.wanted[i] * problem.wanted[i];
  }
  return std::sqrt(difference / whole);
}

template <class Run>
double seconds_of(const Run& run, int calls) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "create an event");
  check(cudaEventCreate(&end), "create an event");
  check(cudaEventRecord(begin), "record an event");
  for (int call = 0; call < calls; ++call) run();
  check(cudaEventRecord(end), "record an event");
  check(cudaEventSynchronize(end), "compute");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin, end), "read the time");
  (void)cudaEventDestroy(begin);
  (void)cudaEventDestroy(end);
  return static_cast<double>(milliseconds) / 1e3 / calls;
}

struct Result {
  std::string tile;
  double seconds = 0, error = 0;
};

template <int Rows, int Columns, int WarpRows, int WarpColumns>
void measure(Problem* problem, Result* best) {
  using Epilogue = cutlass::epilogue::thread::LinearCombinationLeakyRelu<Half, 8, float, float, cutlass::epilogue::thread::ScaleType::NoBetaScaling>;
  using Kernel = typename cutlass::conv::kernel::DefaultConv2dDgrad<
      Half, Layout, Half, Layout, Half, Layout, float, cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80,
      cutlass::gemm::GemmShape<Rows, Columns, 32>, cutlass::gemm::GemmShape<WarpRows, WarpColumns, 32>,
      cutlass::gemm::GemmShape<16, 8, 16>, Epilogue, cutlass::conv::threadblock::StridedDgradIdentityThreadblockSwizzle<1>, 3,
      cutlass::arch::OpMultiplyAdd, cutlass::conv::IteratorAlgorithm::kOptimized, cutlass::conv::StrideSupport::kStrided>::Kernel;
  using Convolution = cutlass::conv::device::ImplicitGemmConvolution<Kernel>;
  const Layout in = Layout::packed({problem->layer.batch, problem->layer.height, problem->layer.height, problem->layer.inputs});
  const Layout weight = Layout::packed({problem->layer.inputs, 4, 4, problem->layer.outputs});
  const Layout out = Layout::packed({problem->layer.batch, 2 * problem->layer.height, 2 * problem->layer.height, problem->layer.outputs});
  const Layout same(cutlass::make_Coord(0, 0, 0));  // the bias: every pixel reads the same
  typename Convolution::Arguments arguments{problem->size,
                                            {problem->in.get(), in},
                                            {problem->weight.get(), weight},
                                            {problem->bias.get(), same},
                                            {problem->out.get(), out},
                                            {1.0f, 1.0f, kSlope}};
  const std::string tile = std::to_string(Rows) + "x" + std::to_string(Columns);
  Convolution convolution;
  if (convolution.can_implement(arguments) != cutlass::Status::kSuccess) return;  // another tile will
  Memory<std::uint8_t> workspace(convolution.get_workspace_size(arguments));
  const auto run = [&] {
    const cutlass::Status status = convolution();
    if (status != cutlass::Status::kSuccess) fail(kUnusable, "cutlass: tile " + tile + " did not start (" + cutlass::cutlassGetStatusString(status) + ").");
  };
  if (convolution.initialize(arguments, workspace.get()) != cutlass::Status::kSuccess) return;
  problem->out.poison();
  run();
  check(cudaDeviceSynchronize(), "compute");
  const double error = error_of(*problem);
  if (!(error <= kMostError)) fail(kWrong, "cutlass: tile " + tile + " is off by " + std::to_string(error) + ", expected at most 0.002.");
  std::vector<double> rounds;
  for (int round = 0; round < kRounds; ++round) {
    const double once = seconds_of(run, 3);
    rounds.push_back(seconds_of(run, std::clamp(static_cast<int>(0.03 / once), 3, 1000)));
  }
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  const double median = rounds[kRounds / 2];
  if (best->tile.empty() || median < best->seconds) *best = {tile, median, error};
}

void measure(const Layer& asked) {
  Layer layer = asked;
  layer.outputs = (asked.outputs + 7) / 8 * 8;
  Problem problem(layer);
  Result best;
  measure<128, 128, 64, 64>(&problem, &best);
  measure<128, 64, 64, 32>(&problem, &best);
  measure<64, 64, 32, 32>(&problem, &best);
  measure<128, 32, 64, 32>(&problem, &best);
  if (best.tile.empty()) fail(kUnusable, "cutlass: no tile takes a layer of " + std::to_string(layer.inputs) + " channels.");
  std::printf("{\"batch\": %d, \"height\": %d, \"inputs\": %d, \"outputs\": %d, \"tile\": \"%s\", \"seconds\": %.9g, \"error\": %.3g}\n",
              asked.batch, asked.height, asked.inputs, asked.outputs, best.tile.c_str(), best.seconds, best.error);
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 5 || count % 4 != 1) fail(kUsage, "usage: cutlass_dgrad BATCH HEIGHT INPUTS OUTPUTS [...]");
  for (int at = 1; at < count; at += 4) {
    int numbers[4];
    for (int i = 0; i < 4; ++i) numbers[i] = std::atoi(arguments[at + i]);
    if (*std::min_element(numbers, numbers + 4) < 1) fail(kUsage, "cutlass_dgrad: a number below 1.");
    measure(Layer{numbers[0], numbers[1], numbers[2], numbers[3]});
  }
  return 0;
}
