// The operations that compute: how a layer is cut into tasks for the threads. How it is cut never changes a result.
#include <algorithm>

#include "operation.h"

namespace deepsim::runtime::detail {

using kernels::Convolution;
using kernels::ConvolutionTask;
using kernels::kBlock;

namespace {

constexpr int kScratchFloats = 160 * 1024;  // aimed at for the part of a task's scratch that is read again and again

std::size_t size(int count) { return static_cast<std::size_t>(count); }
int divide_up(int a, int b) { return (a + b - 1) / b; }

class PoolOperation final : public Operation {
 public:
  explicit PoolOperation(const kernels::Pool& layer) : layer_(layer) {}
  std::size_t in_bytes() const override { return floats(layer_.in_height, layer_.in_width) * sizeof(float); }
  std::size_t out_bytes() const override { return floats(layer_.out_height, layer_.out_width) * sizeof(float); }
  std::size_t scratch_floats(const Machine&, int) const override { return kernels::pool_scratch(layer_); }
  void run(const Machine& machine, const void* in, void* out, int images) const override {
    machine.pool->run(images * layer_.out_height, [&](int task, int thread) {
      const std::size_t image = size(task / layer_.out_height);
      const int row = task % layer_.out_height;
      machine.kernels->pool({&layer_, static_cast<const float*>(in) + image * floats(layer_.in_height, layer_.in_width),
                             static_cast<float*>(out) + image * floats(layer_.out_height, layer_.out_width), row, row + 1,
                             machine.scratch_of(thread)});
    });
  }

 private:
  std::size_t floats(int height, int width) const { return size(layer_.blocks) * size(height) * size(width) * kBlock; }
  kernels::Pool layer_;
};

class FullyConnectedOperation final : public Operation {
 public:
  explicit FullyConnectedOperation(const kernels::FullyConnected& layer) : layer_(layer) {}
  std::size_t in_bytes() const override { return size(layer_.in_blocks) * kBlock * sizeof(float); }
  std::size_t out_bytes() const override { return size(layer_.columns) * sizeof(float); }
  std::size_t scratch_floats(const Machine& machine, int images) const override {
    return kernels::fully_connected_scratch(*machine.kernels, images);
  }
  std::size_t panel_floats(const Machine&, int images) const override { return size(images) * size(layer_.in_blocks) * kBlock; }
  void run(const Machine& machine, const void* in, void* out, int images) const override {
    fill_panel(machine, static_cast<const float*>(in), images);
    const int tiles = divide_up(layer_.columns, machine.kernels->tile_columns);
    const int per_task = std::max(1, tiles / (machine.pool->threads() * 8));
    machine.pool->run(divide_up(tiles, per_task), [&](int task, int thread) {
      machine.kernels->fully_connected({&layer_, machine.panel.floats(), static_cast<float*>(out), images, task * per_task,
                                        std::min(tiles, (task + 1) * per_task), machine.scratch_of(thread)});
    });
  }

 private:
  // [rows][inputs] to [inputs / 16][rows][16]
  void fill_panel(const Machine& machine, const float* in, int rows) const {
    constexpr int per_task = 32;
    machine.pool->run(divide_up(layer_.in_blocks, per_task), [&](int task, int) {
      const int end = std::min(layer_.in_blocks, (task + 1) * per_task);
      float* to = machine.panel.floats() + size(task * per_task) * size(rows) * kBlock;
      for (int block = task * per_task; block < end; ++block)
        for (int row = 0; row < rows; ++row, to += kBlock)
          std::copy_n(in + (size(row) * size(layer_.in_blocks) + size(block)) * kBlock, kBlock, to);
    });
  }
  kernels::FullyConnected layer_;
};

class ConvolutionOperation : public Operation {
 public:
  explicit ConvolutionOperation(const Convolution& layer) : layer_(layer) {}
  std::size_t in_bytes() const override { return static_cast<std::size_t>(layer_.in_image()) * sizeof(float); }
  std::size_t out_bytes() const override {
    if (layer_.store == kernels::Store::pixels) {
      return size(layer_.pixels.crop_side) * size(layer_.pixels.crop_side) * 3 * (layer_.pixels.raw ? sizeof(float) : 1);
    }
    return static_cast<std::size_t>(layer_.out_image()) * sizeof(float);
  }

 protected:
  // Cut the columns too when there are too few other tasks to keep the threads busy.
  int column_parts(const Machine& machine, int tasks) const {
    const int tiles = divide_up(layer_.columns, machine.kernels->tile_columns);
    const int wanted = 3 * machine.pool->threads();
    return tasks >= wanted ? 1 : std::min(tiles, divide_up(wanted, tasks));
  }
  void take_columns(const Machine& machine, int part, int parts, ConvolutionTask* task) const {
    const int tiles = divide_up(layer_.columns, machine.kernels->tile_columns);
    task->column_tile_begin = tiles * part / parts;
    task->column_tile_end = tiles * (part + 1) / parts;
  }
  Convolution layer_;
};

// Tasks: several images where they are small, some rows of one where they are large.
class DirectOperation final : public ConvolutionOperation {
 public:
  using ConvolutionOperation::ConvolutionOperation;
  std::size_t scratch_floats(const Machine& machine, int images) const override {
    const Cut cut = cut_for(images, 1);
    return kernels::convolve_scratch(*machine.kernels, layer_, cut.images, cut.rows);
  }
  void run(const Machine& machine, const void* in, void* out, int images) const override {
    const Cut cut = cut_for(images, machine.pool->threads());
    const int bands = divide_up(layer_.windows_down(), cut.rows), batches = divide_up(images, cut.images);
    const int parts = column_parts(machine, layer_.groups * bands * batches);
    machine.pool->run(layer_.groups * batches * bands * parts, [&](int index, int thread) {
      ConvolutionTask task;
      task.layer = &layer_;
      task.in = static_cast<const float*>(in);
      task.out = out;
      take_columns(machine, index % parts, parts, &task);
      const int band = index / parts % bands, batch = index / parts / bands % batches;
      task.group = index / parts / bands / batches;
      task.image_begin = batch * cut.images;
      task.images = std::min(cut.images, images - task.image_begin);
      task.row_begin = layer_.row_begin + band * cut.rows;
      task.row_end = std::min(layer_.row_end, task.row_begin + cut.rows);
      task.scratch = machine.scratch_of(thread);
      machine.kernels->convolve(task);
    });
  }

 private:
  struct Cut {
    int images, rows;
  };
  Cut cut_for(int images, int threads) const {
    const int row = layer_.in_blocks * kBlock * layer_.window_stride *
                    ((layer_.windows_across() - 1) * layer_.window_stride + layer_.kernel);
    const int rows = std::max(1, kScratchFloats / row - layer_.kernel / layer_.window_stride);
    if (rows < 2 * layer_.windows_down()) {
      const int bands = divide_up(layer_.windows_down(), rows);
      return {1, divide_up(layer_.windows_down(), bands)};
    }
    return {std::clamp(rows / layer_.windows_down(), 1, divide_up(images, threads)), layer_.windows_down()};
  }
};

// Tiles are transformed and multiplied in chunks. Where the weights are small, a task does both for its chunk, in its
// scratch. Where they are large, all chunks are transformed first, into memory shared by the threads, and a task then
// multiplies every chunk with the same few columns: each weight is read from memory once for all images.
class WinogradOperation final : public ConvolutionOperation {
 public:
  using ConvolutionOperation::ConvolutionOperation;
  std::size_t scratch_floats(const Machine& machine, int images) const override {
    const int tiles = chunk_tiles(machine, images, 1);
    const std::size_t products = kernels::winograd_scratch(*machine.kernels, layer_, tiles);
    return products + (shares() ? 0 : kernels::winograd_transformed(layer_, tiles));
  }
  std::size_t panel_floats(const Machine& machine, int images) const override {
    if (!shares()) return 0;
    const int chunk = chunk_tiles(machine, images, 1);
    return size(layer_.groups * divide_up(total_tiles(images), chunk)) * kernels::winograd_transformed(layer_, chunk);
  }
  void run(const Machine& machine, const void* in, void* out, int images) const override {
    ConvolutionTask task;
    task.layer = &layer_;
    task.in = static_cast<const float*>(in);
    task.out = out;
    task.block_end = layer_.in_blocks;
    shares() ? run_shared(machine, task, images) : run_local(machine, task, images);
  }

 private:
  static constexpr std::size_t kSharedFloats = std::size_t{1} << 20;  // of a group's weights

  int total_tiles(int images) const { return images * kernels::tile_range(layer_).count(); }
  bool shares() const { return kernels::winograd_transformed(layer_, 1) * size(layer_.columns) > kSharedFloats; }
  int chunk_tiles(const Machine& machine, int images, int threads) const {
    const int rows = machine.kernels->tile_rows;
    const auto one = static_cast<int>(kernels::winograd_transformed(layer_, 1));
    const int wanted = std::clamp(kScratchFloats / one / rows * rows, 2 * rows, 8 * rows);
    return std::max(1, std::min(wanted, divide_up(total_tiles(images), shares() ? 1 : threads)));
  }
  static void take_chunk(int chunk, int tiles, int total, ConvolutionTask* task) {
    task->tile_begin = chunk * tiles;
    task->tile_end = std::min(total, task->tile_begin + tiles);
  }

  void run_local(const Machine& machine, const ConvolutionTask& common, int images) const {
    const int total = total_tiles(images), tiles = chunk_tiles(machine, images, machine.pool->threads());
    const int chunks = divide_up(total, tiles), parts = column_parts(machine, layer_.groups * chunks);
    machine.pool->run(layer_.groups * chunks * parts, [&](int index, int thread) {
      ConvolutionTask task = common;
      take_columns(machine, index % parts, parts, &task);
      take_chunk(index / parts % chunks, tiles, total, &task);
      task.group = index / parts / chunks;
      task.transformed = machine.scratch_of(thread);
      task.scratch = task.transformed + kernels::winograd_transformed(layer_, task.tile_end - task.tile_begin);
      machine.kernels->winograd_transform(task);
      machine.kernels->winograd_multiply(task);
    });
  }

  void run_shared(const Machine& machine, const ConvolutionTask& common, int images) const {
    const int total = total_tiles(images), tiles = chunk_tiles(machine, images, 1);
    const int chunks = divide_up(total, tiles), parts = divide_up(layer_.columns, machine.kernels->tile_columns);
    const auto take = [&](int index, ConvolutionTask* task) {
      take_chunk(index % chunks, tiles, total, task);
      task->group = index / chunks;
      task->transformed = machine.panel.floats() + size(index) * kernels::winograd_transformed(layer_, tiles);
    };
    const int cuts = std::min(layer_.in_blocks, divide_up(4 * machine.pool->threads(), layer_.groups * chunks));
    machine.pool->run(layer_.groups * chunks * cuts, [&](int index, int) {
      ConvolutionTask task = common;
      take(index / cuts, &task);
      task.block_begin = layer_.in_blocks * (index % cuts) / cuts;
      task.block_end = layer_.in_blocks * (index % cuts + 1) / cuts;
      machine.kernels->winograd_transform(task);
    });
    machine.pool->run(layer_.groups * parts, [&](int index, int thread) {
      for (int chunk = 0; chunk < chunks; ++chunk) {
        ConvolutionTask task = common;
        take(index / parts * chunks + chunk, &task);
        take_columns(machine, index % parts, parts, &task);
        task.scratch = machine.scratch_of(thread);
        machine.kernels->winograd_multiply(task);
      }
    });
  }
};

}  // namespace

std::unique_ptr<Operation> pool(const kernels::Pool& layer) { return std::make_unique<PoolOperation>(layer); }
std::unique_ptr<Operation> fully_connected(const kernels::FullyConnected& layer) {
  return std::make_unique<FullyConnectedOperation>(layer);
}
std::unique_ptr<Operation> convolution(const Convolution& layer) {
  if (layer.winograd > 0) return std::make_unique<WinogradOperation>(layer);
  return std::make_unique<DirectOperation>(layer);
}

}  // namespace deepsim::runtime::detail
