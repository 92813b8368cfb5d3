// Reconstruct one picture: reconstruct BUNDLE PICTURE.png RESULT.png
//
// The picture is as large as the bundle's images (image_size), or larger and then cut to its central part; the command line
// resizes it by the bundle's rule instead.
#include <deepsim/inverter.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "pictures.h"

namespace {

Picture central(const Picture& picture, int side, const std::string& path) {
  if (picture.height < side || picture.width < side) {
    throw std::runtime_error(path + ": " + std::to_string(picture.width) + "x" + std::to_string(picture.height) +
                             " pixels, expected at least " + std::to_string(side) + "x" + std::to_string(side) +
                             ". Enlarge it first.");
  }
  Picture cut{side, side, {}};
  const int top = (picture.height - side) / 2, left = (picture.width - side) / 2;
  for (int y = top; y < top + side; ++y) {
    const auto begin = picture.rgb.begin() + (static_cast<std::ptrdiff_t>(y) * picture.width + left) * 3;
    cut.rgb.insert(cut.rgb.end(), begin, begin + std::ptrdiff_t{3} * side);
  }
  return cut;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "Usage: reconstruct BUNDLE PICTURE.png RESULT.png\n");
    return 2;
  }
  try {
    deepsim::runtime::Inverter inverter(argv[1]);
    const Picture picture = central(read_picture(argv[2]), inverter.image_size(), argv[2]);
    Picture result = picture;
    inverter.reconstruct(picture.rgb.data(), 1, result.rgb.data());
    write_picture(argv[3], result);
    std::fprintf(stderr, "%s: reconstructed from %s's %s with %s kernels on %d threads\n", argv[3], inverter.encoder().c_str(),
                 inverter.layer().c_str(), inverter.isa().c_str(), inverter.threads());
    return 0;
  } catch (const deepsim::Error& error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return error.exit_code();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return 3;
  }
}
