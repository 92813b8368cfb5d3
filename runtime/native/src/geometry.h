// How a photograph becomes an encoder's square input, and where that square lies in the generator's larger output
// (runtime/geometry.py).
#pragma once

namespace deepsim::runtime::detail {

enum class Resize { warp, shorter };  // to size x size pixels; or the shorter side to `size`, the aspect ratio kept
enum class Interpolation { bilinear, bicubic };

struct Framing {
  Resize resize = Resize::warp;
  int size = 0, side = 0;  // pixels; the central side x side of what was resized are the input
  Interpolation interpolation = Interpolation::bilinear;
};

struct Geometry {
  Framing photograph;
  int offset = 0;  // of the square's first row and column in the generator's output
  int generated_side = 0;  // of the square there, in pixels; 0: as large as the photograph's
};

}  // namespace deepsim::runtime::detail
