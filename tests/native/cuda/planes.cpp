#include "planes.h"

#include <algorithm>
#include <cstring>

namespace deepsim::tests {

namespace emulation = cuda::emulation;

std::uint32_t Precision::bits(double value) const {
  const float narrow = static_cast<float>(value);
  if (name == "half") return emulation::to_bits(narrow, cuda::Half{});
  return name == "brain" ? emulation::to_bits(narrow, cuda::Brain{}) : emulation::to_bits(narrow, cuda::Single{});
}

double Precision::value(std::uint32_t bits) const {
  if (name == "half") return static_cast<double>(emulation::from_bits(bits, cuda::Half{}));
  const bool brain = name == "brain";
  return static_cast<double>(brain ? emulation::from_bits(bits, cuda::Brain{}) : emulation::from_bits(bits, cuda::Single{}));
}

Tensor random_tensor(int n, int c, int h, int w, double scale, const Precision& precision, std::mt19937& random) {
  std::normal_distribution<double> normal(0.0, scale);
  Tensor x(n, c, h, w);
  for (double& value : x.values) value = precision.rounded(normal(random));
  return x;
}

Planes::Planes(const Shape& shape, const Precision& precision)
    : shape_(shape), precision_(precision), bytes_(static_cast<std::size_t>(precision.bytes())) {
  const int pitch = shape.width + shape.pad;
  guard_ = shape.flat ? 0 : shape.pad * pitch + shape.pad;
  image_rows_ = shape.flat ? 1 : (shape.height + shape.pad) * pitch;
  plane_rows_ = guard_ + shape.images * image_rows_;
  planes_ = shape.channels / precision.plane() * (shape.flat ? shape.height * shape.width : 1);
  memory_.resize(static_cast<std::size_t>((planes_ * plane_rows_ + shape.tail) * 16));
  const std::uint32_t poison = precision.poison();
  for (std::size_t i = 0; i < size(); ++i) set(i, poison);
}

Planes::Planes(const Shape& shape, const Tensor& x, const Precision& precision) : Planes(shape, precision) {
  std::fill_n(memory_.begin(), planes_ * plane_rows_ * 16, std::uint8_t{0});
  for_all([&](int n, int c, int y, int column) { set(index(n, c, y, column), precision.bits(x.at(n, c, y, column))); });
}

cuda::Place Planes::place() {
  const int pixels = shape_.height * shape_.width, sixteen = 16 / precision_.plane() * plane_rows_;
  cuda::Place place;
  place.base = memory_.data() + guard_ * 16;
  place.sixteen = sixteen * (shape_.flat ? pixels : 1);
  place.plane = plane_rows_;
  place.image = image_rows_;
  place.y = shape_.flat ? sixteen * shape_.width : shape_.width + shape_.pad;
  place.x = shape_.flat ? sixteen : 1;
  place.height = shape_.height;
  place.width = shape_.width;
  return place;
}

std::size_t Planes::index(int n, int c, int y, int x) const {
  const int together = precision_.plane(), pixel = y * shape_.width + x;
  const int sixteen = c / 16 * shape_.height * shape_.width + pixel;
  const int plane = shape_.flat ? sixteen * (16 / together) + c % 16 / together : c / together;
  const int row = shape_.flat ? n : guard_ + n * image_rows_ + y * (shape_.width + shape_.pad) + x;
  return static_cast<std::size_t>((plane * plane_rows_ + row) * together + c % together);
}

std::uint32_t Planes::get(std::size_t index) const {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &memory_[index * bytes_], bytes_);
  return bits;
}

void Planes::set(std::size_t index, std::uint32_t bits) { std::memcpy(&memory_[index * bytes_], &bits, bytes_); }

template <class Body>
void Planes::for_all(const Body& body) const {
  for (int n = 0; n < shape_.images; ++n)
    for (int c = 0; c < shape_.channels; ++c)
      for (int y = 0; y < shape_.height; ++y)
        for (int x = 0; x < shape_.width; ++x) body(n, c, y, x);
}

std::vector<std::uint32_t> Planes::interior() const {
  std::vector<std::uint32_t> values;
  for_all([&](int n, int c, int y, int x) { values.push_back(get(index(n, c, y, x))); });
  return values;
}

int Planes::touched() const {
  int touched = 0;
  for (std::size_t i = 0; i < size(); ++i) touched += get(i) != precision_.poison();
  return touched;
}

int Planes::touched_outside() const {
  Planes rest = *this;
  for_all([&](int n, int c, int y, int x) { rest.set(index(n, c, y, x), precision_.poison()); });
  return rest.touched();
}

void Planes::take(const Planes& other) { std::copy(other.memory_.begin(), other.memory_.end(), memory_.begin()); }

}  // namespace deepsim::tests
