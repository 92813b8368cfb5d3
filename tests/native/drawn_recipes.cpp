#include "drawn_recipes.h"

#include <random>

#include "error.h"

namespace deepsim::tests {

using runtime::detail::Activation;
using runtime::detail::Failure;
using runtime::detail::Kind;
using runtime::detail::Shape;

namespace {

constexpr int kMostPixels = 60;

class Draw {
 public:
  explicit Draw(unsigned seed) : random_(seed) {}
  int from(int least, int most) { return least + static_cast<int>(random_() % static_cast<unsigned>(most - least + 1)); }
  bool one_in(int times) { return from(1, times) == 1; }
  int channels() { return one_in(3) ? 16 * from(1, 3) : from(1, 40); }

 private:
  std::mt19937 random_;  // whose numbers are the same everywhere; the standard's distributions are not
};

std::string numbered(const char* kind, const std::vector<Layer>& layers) { return kind + std::to_string(layers.size()); }

Layer drawn_convolution(Draw* draw, const std::string& name, const Shape& input) {
  int outputs = draw->channels(), groups = 1;
  if (draw->one_in(4) && input.channels % 2 == 0) {
    groups = 2;
    outputs += outputs % 2;
  }
  return layer(name, Kind::conv, input.channels, outputs, draw->from(1, 5), draw->one_in(3) ? draw->from(2, 4) : 1,
               draw->from(0, 3), static_cast<Activation>(draw->from(0, 2)), groups);
}

Layer drawn_deconvolution(Draw* draw, const std::string& name, const Shape& input) {
  const bool up = !draw->one_in(3);
  const int kernel = up ? 4 : draw->from(1, 4);
  const Layer drawn = layer(name, Kind::deconv, input.channels, draw->channels(), kernel, up ? 2 : 1, up ? 1 : draw->from(0, 3),
                            static_cast<Activation>(draw->from(0, 3)));
  return up && draw->one_in(2) ? wide_upconvolution(drawn) : drawn;
}

Layer drawn_pool(Draw* draw, const std::string& name) {
  Layer pool = layer(name, Kind::pool, 0, 0, draw->from(1, 4), draw->from(1, 4), 0, Activation::none);
  pool.ceil_mode = draw->one_in(2);
  return pool;
}

// A layer on maps of this shape.
Layer drawn_layer(Draw* draw, const std::vector<Layer>& layers, const Shape& input, bool generates) {
  const int kind = draw->from(1, 10);
  if (kind == 1) return drawn_pool(draw, numbered("pool", layers));
  if (kind == 2) return layer(numbered("norm", layers), Kind::lrn, 0, 0, 1, 1, 0, Activation::none);
  if (kind == 3 && generates) {
    Layer same = reshape(input.channels, input.height, input.width);
    return same;
  }
  if (kind < 7 && generates) return drawn_deconvolution(draw, numbered("deconv", layers), input);
  return drawn_convolution(draw, numbered("conv", layers), input);
}

// Add a layer unless it does not fit or grows too large; the shape that the layers then end in.
Shape add(const Layer& layer, const Shape& input, std::vector<Layer>* layers) {
  try {
    const Shape output = layer.output_shape(input);
    if (output.height > kMostPixels || output.width > kMostPixels) return input;
    layers->push_back(layer);
    return output;
  } catch (const Failure&) {
    return input;
  }
}

Layer connected(const std::string& name, const Shape& input, int outputs, Activation activation) {
  return layer(name, Kind::fc, static_cast<int>(input.elements()), outputs, 1, 1, 0, activation);
}

// Fully connected layers on whatever came before, some of them in a row.
Shape add_connected(Draw* draw, Shape shape, std::vector<Layer>* layers) {
  for (int left = draw->from(1, 2); left > 0; --left)
    shape = add(connected(numbered("fc", *layers), shape, draw->from(1, 70), Activation::relu), shape, layers);
  return shape;
}

}  // namespace

Recipe drawn_encoder(unsigned seed) {
  Draw draw(seed);
  Recipe recipe;
  recipe.side = draw.from(5, 40);
  recipe.seed = seed;
  recipe.tanh = draw.one_in(2);
  Shape shape{3, recipe.side, recipe.side, false};
  while (recipe.encoder.empty()) shape = add(drawn_convolution(&draw, "first", shape), shape, &recipe.encoder);
  for (int left = draw.from(0, 4); left > 0; --left)
    shape = add(drawn_layer(&draw, recipe.encoder, shape, false), shape, &recipe.encoder);
  if (draw.one_in(2)) shape = add_connected(&draw, shape, &recipe.encoder);
  recipe.generator = {connected("fc", shape, 8, Activation::lrelu),
                      connected("grown", {8, 1, 1, true}, 2 * recipe.side * recipe.side, Activation::lrelu),
                      reshape(2, recipe.side, recipe.side), layer("image", Kind::conv, 2, 3, 1, 1, 0, Activation::none)};
  return recipe;
}

Recipe drawn_generator(unsigned seed) {
  Draw draw(seed);
  Recipe recipe;
  recipe.kind = runtime::detail::EncoderKind::none;
  recipe.seed = seed;
  recipe.tanh = draw.one_in(2);
  const int side = draw.from(1, 20);
  Shape shape{draw.channels(), side, side, false};
  if (draw.one_in(2)) shape = {shape.channels, 1, 1, true};
  recipe.features = shape;
  if (shape.flat || draw.one_in(4)) {
    if (draw.one_in(3)) shape = add_connected(&draw, shape, &recipe.generator);
    const int channels = draw.channels(), height = draw.from(1, 9);
    shape = add(connected("grown", shape, channels * height * height, Activation::lrelu), shape, &recipe.generator);
    shape = add(reshape(channels, height, height), shape, &recipe.generator);
  }
  for (int left = draw.from(0, 5); left > 0; --left)
    shape = add(drawn_layer(&draw, recipe.generator, shape, true), shape, &recipe.generator);
  const Activation end = recipe.tanh ? Activation::tanh255 : static_cast<Activation>(draw.from(0, 2));
  const std::size_t before = recipe.generator.size();
  while (recipe.generator.size() == before) {
    const int kernel = draw.from(1, 5);
    const bool up = draw.one_in(2);
    const Layer image = layer("image", up || draw.one_in(2) ? Kind::deconv : Kind::conv, shape.channels, 3, up ? 4 : kernel,
                              up ? 2 : 1, up ? 1 : draw.from(0, 2), end);
    shape = add(up && draw.one_in(2) ? wide_upconvolution(image) : image, shape, &recipe.generator);
  }
  recipe.side = draw.from(1, shape.height);
  recipe.offset = draw.from(0, shape.height - recipe.side);
  return recipe;
}

}  // namespace deepsim::tests
