// Activations in memory as kernels/cuda/layers.h describes them, made and looked at with arithmetic of the tests' own.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "device.h"
#include "float64.h"
#include "layers.h"

namespace deepsim::tests {

// A 16-bit type by its name in the module: "half" or "brain".
struct Precision {
  std::string name;
  double unit() const { return name == "half" ? 0x1p-11 : 0x1p-8; }  // of rounding
  std::uint16_t bits(double value) const;
  double value(std::uint16_t bits) const;
  double rounded(double x) const { return value(bits(x)); }
};

// Normal values of this scale that the type holds, so that reading them adds no error.
Tensor random_tensor(int n, int c, int h, int w, double scale, const Precision& precision, std::mt19937& random);

// A NaN that no conversion makes.
constexpr std::uint16_t kPoison = 0xfe5a;

class Planes {
 public:
  struct Shape {
    int images, channels, height, width;
    int pad = 0;
    bool flat = false;
    int tail = 0;  // rows behind the last plane that the last tile may read
  };

  // All poison, the zeros of the padding too.
  explicit Planes(const Shape& shape);
  // The zeros of the padding, the values, and behind them poison that nobody may use.
  Planes(const Shape& shape, const Tensor& x, const Precision& precision);

  cuda::Place place();
  int plane_rows() const { return plane_rows_; }
  const std::vector<std::uint16_t>& bits() const { return bits_; }
  // Values of the images; poison where nobody wrote.
  std::vector<std::uint16_t> interior() const;
  // How many elements that belong to no pixel are not poison any more.
  int touched_outside() const;

 private:
  std::size_t index(int n, int c, int y, int x) const;
  template <class Body>
  void for_all(const Body& body) const;

  Shape shape_;
  int guard_, image_rows_, plane_rows_, planes_;
  std::vector<std::uint16_t> bits_;
};

}  // namespace deepsim::tests
