// The kernels without a matrix product: pooling with normalisation, and what lies between the host's layouts and planes. They
// read nothing that the kernels before do not write, so they wait for those first.
#pragma once

#include "epilogue.h"
#include "layers.h"
#include "tile.h"

namespace deepsim::cuda {

DEEPSIM_DEVICE void begin_pass() {
  wait_for_earlier();
  let_later_start();
}

// What lies together of a pixel.
template <class Element>
using Row = Neighbours<Element, kPlane<Element>>;
static_assert(sizeof(Row<Half>) == kRow && sizeof(Row<Single>) == kRow);

template <class Element>
DEEPSIM_DEVICE Row<Element> load_row(const Place& place, int image, int channel, int y, int x) {
  return *reinterpret_cast<const Row<Element>*>(row_of<Element>(place, image, channel, y, x));
}

template <class Element>
DEEPSIM_DEVICE void store_row(const Place& place, int image, int channel, int y, int x, const Row<Element>& values) {
  *reinterpret_cast<Row<Element>*>(row_of<Element>(place, image, channel, y, x)) = values;
}

template <class Element>
DEEPSIM_DEVICE void widen(const Row<Element>& row, float (&values)[kPlane<Element>]) {
  DEEPSIM_UNROLL
  for (int i = 0; i < kPlane<Element> / 2; ++i) {
    const Pair pair = unpack<Element>(row.twos[i]);
    values[2 * i] = pair.low;
    values[2 * i + 1] = pair.high;
  }
}

// The largest of the window of output pixel (y, x), a plane's channels at once; a window may end at the border.
template <class Element>
DEEPSIM_DEVICE Row<Element> pool_window(const Pool& layer, int image, int channel, int y, int x) {
  const int top = y * layer.stride, left = x * layer.stride;
  const int rows = layer.in.height - top < layer.kernel ? layer.in.height - top : layer.kernel;
  const int columns = layer.in.width - left < layer.kernel ? layer.in.width - left : layer.kernel;
  const unsigned char* line = row_of<Element>(layer.in, image, channel, top, left);
  Row<Element> most = *reinterpret_cast<const Row<Element>*>(line);
  DEEPSIM_NO_UNROLL
  for (int down = 0; down < rows; ++down, line += layer.in.y * kRow)
    for (int across = 0; across < columns; ++across) {
      const Row<Element> values = *reinterpret_cast<const Row<Element>*>(line + across * layer.in.x * kRow);
      DEEPSIM_UNROLL
      for (int i = 0; i < kPlane<Element> / 2; ++i) most.twos[i] = larger<Element>(most.twos[i], values.twos[i]);
    }
  return most;
}

// x / (1 + 1e-4 / 5 sum of squares of five channels)^0.75 (Krizhevsky et al. 2012, 3.3); the squares are fp32, fp16 ones
// would overflow above 256. `channels` points at these channels, four others on each side, all multiples of 16 bytes.
template <int kCount>
DEEPSIM_DEVICE void normalise(const float* channels, float (&values)[kCount]) {
  float near[kCount + 8];
  DEEPSIM_UNROLL
  for (int first = 0; first < kCount + 8; first += 4) {
    const Four four = shared_load(reinterpret_cast<const Four*>(channels - 4 + first));
    DEEPSIM_UNROLL
    for (int i = 0; i < 4; ++i) near[first + i] = four.values[i];
  }
  DEEPSIM_UNROLL
  for (int i = 0; i < kCount; ++i) {
    float sum = 0.0f;
    DEEPSIM_UNROLL
    for (int j = 2; j <= 6; ++j) sum = multiply_add(near[i + j], near[i + j], sum);
    const float root = reciprocal_root(multiply_add(2e-5f, sum, 1.0f));  // x^-0.75 is x^-0.5 times its root
    values[i] = near[i + 4] * root * square_root(root);
  }
}

template <class Element>
DEEPSIM_DEVICE void pool(const Pool& layer, unsigned char* shared) {
  begin_pass();
  constexpr int plane = kPlane<Element>;
  const int pixels = pool_pixels(layer.planes.value), pitch = layer.planes.value * plane + 8;
  const int count = layer.images * layer.area.value;
  auto* channels = reinterpret_cast<float*>(shared);
  if (layer.normalise)
    for (int i = thread_index(); i < pixels * 8; i += kPoolThreads)
      shared_store(channels + i / 8 * pitch + (i % 8 < 4 ? i % 8 : pitch - 8 + i % 8), 0.0f);
  for (int pass = 0; pass <= layer.normalise; ++pass) {
    for (int i = thread_index(); i < pixels * layer.planes.value; i += kPoolThreads) {
      const int pixel = divide(i, layer.planes), index = block_x() * pixels + pixel;
      const int channel = (i - pixel * layer.planes.value) * plane;
      if (index >= count) continue;
      const int image = divide(index, layer.area), rest = index - image * layer.area.value;
      const int y = divide(rest, layer.width), x = rest - y * layer.width.value;
      float* own = channels + pixel * pitch + 4 + channel;
      float values[plane];
      Row<Element> row;
      if (pass == 0) {
        row = pool_window<Element>(layer, image, channel, y, x);
      } else {
        normalise(own, values);
        row = narrow<Element, kPlane<Element>>(values);
      }
      if (pass == layer.normalise) {
        store_row<Element>(layer.out, image, channel, y, x, row);
        continue;
      }
      widen<Element>(row, values);
      DEEPSIM_UNROLL
      for (int first = 0; first < plane; first += 4)
        shared_store(reinterpret_cast<Four*>(own + first),
                     Four{{values[first], values[first + 1], values[first + 2], values[first + 3]}});
    }
    if (pass < layer.normalise) sync_block();
  }
}

// Network value of channel c of a pixel of the photograph, 0 beyond its border.
DEEPSIM_DEVICE float value_of(const PixelsIn& layer, int image, int y, int x, int c) {
  if (!lies_in(y, layer.side) || !lies_in(x, layer.side)) return 0.0f;
  const std::ptrdiff_t at = ((static_cast<std::ptrdiff_t>(image) * layer.side + y) * layer.side + x) * 3;
  return value_of_level(layer, c, layer.in[at + (layer.bgr ? 2 - c : c)]);
}

// One thread for each plane of a pixel of the result, pixels side by side.
template <class Element>
DEEPSIM_DEVICE void pixels_in(const PixelsIn& layer) {
  begin_pass();
  const int index = block_x() * kPassThreads + thread_index();
  if (index >= layer.images * layer.planes.value * layer.area.value) return;
  const int of_images = divide(index, layer.area), pixel = index - of_images * layer.area.value;
  const int image = divide(of_images, layer.planes), plane = of_images - image * layer.planes.value;
  const int y = divide(pixel, layer.width), x = pixel - y * layer.width.value;
  const int first = plane * kPlane<Element>, top = y * layer.stride - layer.pad, left = x * layer.stride - layer.pad;
  int down = divide(first, layer.row_channels), rest = first - down * layer.row_channels.value;
  float values[kPlane<Element>];
  DEEPSIM_UNROLL
  for (int i = 0; i < kPlane<Element>; ++i) {
    values[i] = down < layer.stride ? value_of(layer, image, top + down, left + rest / 3, rest % 3) : 0.0f;
    if (++rest < layer.row_channels.value) continue;
    rest = 0;
    ++down;
  }
  store_row<Element>(layer.out, image, first, y, x, narrow<Element, kPlane<Element>>(values));
}

// One thread for each plane of a pixel of the result.
template <class Element>
DEEPSIM_DEVICE void space_to_depth(const SpaceToDepth& layer) {
  begin_pass();
  const int area = layer.out.height * layer.out.width, index = block_x() * kPassThreads + thread_index();
  const int planes = layer.planes * layer.stride * layer.stride;
  if (index >= layer.images * area * planes) return;
  const int pixel = index / planes, plane = index % planes, phase = plane / layer.planes;
  const int image = pixel / area, y = pixel % area / layer.out.width, x = pixel % layer.out.width;
  const int down = y * layer.stride + phase / layer.stride - layer.pad;
  const int across = x * layer.stride + phase % layer.stride - layer.pad;
  Row<Element> values = {};
  const bool inside = down >= 0 && down < layer.in.height && across >= 0 && across < layer.in.width;
  if (inside) values = load_row<Element>(layer.in, image, plane % layer.planes * kPlane<Element>, down, across);
  store_row<Element>(layer.out, image, plane * kPlane<Element>, y, x, values);
}

// One thread for each plane of a pixel, pixels side by side.
template <class Element, bool In>
DEEPSIM_DEVICE void features(const Features& layer) {
  begin_pass();
  constexpr int plane = kPlane<Element>;
  const int area = layer.place.height * layer.place.width;
  const int planes = (layer.channels + kColumns - 1) / kColumns * (kColumns / plane);
  const int index = block_x() * kPassThreads + thread_index();
  if (index >= layer.images * planes * area) return;
  const int image = index / (planes * area), channel = index / area % planes * plane, pixel = index % area;
  const int y = pixel / layer.place.width, x = pixel % layer.place.width;
  float* plain = layer.plain + (static_cast<std::ptrdiff_t>(image) * layer.channels + channel) * area + pixel;
  float values[plane];
  if (!In) widen<Element>(load_row<Element>(layer.place, image, channel, y, x), values);
  for (int i = 0; i < plane; ++i) {
    const bool real = channel + i < layer.channels;
    if (In) values[i] = real ? plain[static_cast<std::ptrdiff_t>(i) * area] : 0.0f;
    if (!In && real) plain[static_cast<std::ptrdiff_t>(i) * area] = values[i];
  }
  if (In) store_row<Element>(layer.place, image, channel, y, x, narrow<Element, kPlane<Element>>(values));
}

// One thread for each value of a feature, for all steps.
DEEPSIM_DEVICE void interpolate(const Line& line) {
  begin_pass();
  const int index = block_x() * kPassThreads + thread_index();
  if (index >= line.size) return;
  const float start = line.start[index], end = line.end[index];
  for (int i = 0; i < line.count; ++i) {
    const int step = line.first + i;
    const float weight = step + 1 == line.steps ? 1.0f : static_cast<float>(step * (1.0 / (line.steps - 1)));
    line.out[static_cast<std::ptrdiff_t>(i) * line.size + index] = (1.0f - weight) * start + weight * end;
  }
}

}  // namespace deepsim::cuda
