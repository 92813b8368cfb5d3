#include "crop.h"

#include <algorithm>

namespace deepsim::runtime::detail {

using kernels::Convolution;

namespace {

struct Range {
  int begin, end;
};

// The windows whose outputs cover `pixels` of a layer's output; whole tiles with Winograd.
Range windows_for(const Convolution& layer, Range pixels, int windows) {
  Range range = pixels;
  if (layer.sign != 0) {  // a window gives 2x2 pixels
    range.begin = layer.sign < 0 ? (pixels.begin + 1) / 2 : pixels.begin / 2;
    range.end = layer.sign < 0 ? pixels.end / 2 + 1 : (pixels.end + 1) / 2;
  }
  if (layer.winograd > 0) {
    range.begin = range.begin / layer.winograd * layer.winograd;
    range.end = (range.end + layer.winograd - 1) / layer.winograd * layer.winograd;
  }
  return {std::max(range.begin, 0), std::min(range.end, windows)};
}

// The input pixels that these windows read, Winograd's whole tiles included: one at least, also where all that they read is
// zeros around the input, so that no layer is left without windows.
Range inputs_for(const Convolution& layer, Range windows, int extent) {
  int end = windows.end;
  if (layer.winograd > 0) end = (end + layer.winograd - 1) / layer.winograd * layer.winograd;
  const int first = windows.begin * layer.window_stride - layer.pad;
  const int last = (end - 1) * layer.window_stride - layer.pad + layer.kernel;
  const int begin = std::clamp(first, 0, extent - 1);
  return {begin, std::clamp(last, begin + 1, extent)};
}

}  // namespace

void crop(int side, int offset, const std::vector<Convolution*>& layers) {
  kernels::Pixels& pixels = layers.front()->pixels;
  pixels.crop_top = pixels.crop_left = offset;
  pixels.crop_side = side;
  Range rows{pixels.crop_top, pixels.crop_top + side}, columns{pixels.crop_left, pixels.crop_left + side};
  for (Convolution* layer : layers) {
    rows = windows_for(*layer, rows, layer->row_end);
    columns = windows_for(*layer, columns, layer->column_end);
    layer->row_begin = rows.begin;
    layer->row_end = rows.end;
    layer->column_begin = columns.begin;
    layer->column_end = columns.end;
    rows = inputs_for(*layer, rows, layer->in_height);
    columns = inputs_for(*layer, columns, layer->in_width);
  }
}

}  // namespace deepsim::runtime::detail
