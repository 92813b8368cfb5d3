#include "planes.h"

#include <algorithm>

namespace deepsim::tests {

namespace emulation = cuda::emulation;

std::uint16_t Precision::bits(double value) const {
  const float narrow = static_cast<float>(value);
  const bool half = name == "half";
  return static_cast<std::uint16_t>(half ? emulation::to_bits(narrow, cuda::Half{}) : emulation::to_bits(narrow, cuda::Brain{}));
}

double Precision::value(std::uint16_t bits) const {
  const bool half = name == "half";
  return static_cast<double>(half ? emulation::from_bits(bits, cuda::Half{}) : emulation::from_bits(bits, cuda::Brain{}));
}

Tensor random_tensor(int n, int c, int h, int w, double scale, const Precision& precision, std::mt19937& random) {
  std::normal_distribution<double> normal(0.0, scale);
  Tensor x(n, c, h, w);
  for (double& value : x.values) value = precision.rounded(normal(random));
  return x;
}

Planes::Planes(const Shape& shape) : shape_(shape) {
  const int pitch = shape.width + shape.pad;
  guard_ = shape.flat ? 0 : shape.pad * pitch + shape.pad;
  image_rows_ = shape.flat ? 1 : (shape.height + shape.pad) * pitch;
  plane_rows_ = guard_ + shape.images * image_rows_;
  planes_ = shape.channels / 8 * (shape.flat ? shape.height * shape.width : 1);
  bits_.assign(static_cast<std::size_t>((planes_ * plane_rows_ + shape.tail) * 8), kPoison);
}

Planes::Planes(const Shape& shape, const Tensor& x, const Precision& precision) : Planes(shape) {
  std::fill_n(bits_.begin(), planes_ * plane_rows_ * 8, std::uint16_t{0});
  for_all([&](int n, int c, int y, int column) { bits_[index(n, c, y, column)] = precision.bits(x.at(n, c, y, column)); });
}

cuda::Place Planes::place() {
  const int pixels = shape_.height * shape_.width;
  cuda::Place place;
  place.base = bits_.data() + guard_ * 8;
  place.even = 2 * plane_rows_ * (shape_.flat ? pixels : 1);
  place.odd = plane_rows_;
  place.image = image_rows_;
  place.y = shape_.flat ? 2 * plane_rows_ * shape_.width : shape_.width + shape_.pad;
  place.x = shape_.flat ? 2 * plane_rows_ : 1;
  place.height = shape_.height;
  place.width = shape_.width;
  return place;
}

std::size_t Planes::index(int n, int c, int y, int x) const {
  const int pixel = y * shape_.width + x;
  const int plane = shape_.flat ? (c / 16 * shape_.height * shape_.width + pixel) * 2 + c / 8 % 2 : c / 8;
  const int row = shape_.flat ? n : guard_ + n * image_rows_ + y * (shape_.width + shape_.pad) + x;
  return static_cast<std::size_t>((plane * plane_rows_ + row) * 8 + c % 8);
}

template <class Body>
void Planes::for_all(const Body& body) const {
  for (int n = 0; n < shape_.images; ++n)
    for (int c = 0; c < shape_.channels; ++c)
      for (int y = 0; y < shape_.height; ++y)
        for (int x = 0; x < shape_.width; ++x) body(n, c, y, x);
}

std::vector<std::uint16_t> Planes::interior() const {
  std::vector<std::uint16_t> values;
  for_all([&](int n, int c, int y, int x) { values.push_back(bits_[index(n, c, y, x)]); });
  return values;
}

int Planes::touched_outside() const {
  std::vector<std::uint16_t> rest = bits_;
  for_all([&](int n, int c, int y, int x) { rest[index(n, c, y, x)] = kPoison; });
  return static_cast<int>(std::count_if(rest.begin(), rest.end(), [](std::uint16_t bits) { return bits != kPoison; }));
}

}  // namespace deepsim::tests
