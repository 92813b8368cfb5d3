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

// A type by its name in the module: "half", "brain" or "single". Its values' bits are in the lower half where it has 16.
struct Precision {
  std::string name;
  double unit() const { return name == "half" ? 0x1p-11 : name == "brain" ? 0x1p-8 : 0x1p-24; }  // of rounding
  int bytes() const { return name == "single" ? 4 : 2; }
  int plane() const { return 16 / bytes(); }  // channels that lie together
  std::uint32_t bits(double value) const;
  double value(std::uint32_t bits) const;
  std::uint32_t poison() const { return name == "single" ? 0xffe5a5a5u : 0xfe5au; }  // that no conversion or sum makes
  double rounded(double x) const { return value(bits(x)); }
};

// Normal values of this scale that the type holds, so that reading them adds no error.
Tensor random_tensor(int n, int c, int h, int w, double scale, const Precision& precision, std::mt19937& random);

class Planes {
 public:
  struct Shape {
    int images, channels, height, width;
    int pad = 0;
    bool flat = false;
    int tail = 0;  // rows behind the last plane that the last tile may read
  };

  // All poison, the zeros of the padding too.
  Planes(const Shape& shape, const Precision& precision);
  // The zeros of the padding, the values, and behind them poison that nobody may use.
  Planes(const Shape& shape, const Tensor& x, const Precision& precision);

  cuda::Place place();
  int plane_rows() const { return plane_rows_; }
  // Bits of the images' values; poison where nobody wrote.
  std::vector<std::uint32_t> interior() const;
  // How many elements that belong to no pixel are not poison any more.
  int touched_outside() const;
  // How many elements are not poison any more.
  int touched() const;
  // Take what another one of the same shape holds, in the same memory.
  void take(const Planes& other);

 private:
  std::size_t index(int n, int c, int y, int x) const;
  template <class Body>
  void for_all(const Body& body) const;

  std::size_t size() const { return memory_.size() / bytes_; }
  std::uint32_t get(std::size_t index) const;
  void set(std::size_t index, std::uint32_t bits);

  Shape shape_;
  Precision precision_;
  std::size_t bytes_;  // of a value
  int guard_, image_rows_, plane_rows_, planes_;
  std::vector<unsigned char> memory_;
};

}  // namespace deepsim::tests
