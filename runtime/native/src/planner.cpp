// From a layer table to a builder's calls: lowers, and fuses what belongs together (flatten and reshape into the fully
// connected weights, LRN into the pooling before it, pixels into the first and last layer).
#include "planner.h"

#include <algorithm>

#include "error.h"
#include "files.h"
#include "footprint.h"

namespace deepsim::runtime::detail {

using kernels::blocks_of;
using kernels::kBlock;

namespace {

constexpr double kMaxActivations = 1 << 26;  // floats of one image; thirty times what the published networks take

class Planner {
 public:
  Planner(const Network& network, std::string prefix, const Tensors& tensors, WeightLimit* limit, Builder* builder)
      : network_(network), prefix_(std::move(prefix)), tensors_(tensors), limit_(limit), builder_(builder) {}

  void encoder() {
    shape_ = network_.input;
    add_layers(true, false);
    builder_->features_out({shape_.channels, shape_.height, shape_.width});
  }

  void generator() {
    shape_ = network_.input;
    builder_->features_in({shape_.channels, shape_.height, shape_.width});
    add_layers(false, true);
  }

 private:
  // Look at the whole table before memory is taken for any of it.
  void check_layers(bool from_pixels, bool to_pixels) {
    Shape shape = network_.input;
    for (const Layer& layer : network_.layers) {
      if (!layer.has_weights() && layer.activation != Activation::none) refuse(layer, "activation");
      const bool convolves = layer.kind == Kind::conv || layer.kind == Kind::deconv;
      if (!convolves && (layer.padding > 0 || layer.groups > 1))
        refuse(layer, layer.padding > 0 ? "padding" : "number of groups");
      slope_of(layer);  // raises for an activation that is not known
      const bool first = &layer == &network_.layers.front(), last = &layer == &network_.layers.back();
      const Shape output = layer.output_shape(shape);
      const bool reshapes = layer.kind == Kind::fc && !last && (&layer)[1].kind == Kind::reshape;
      const Shape stored = reshapes ? (&layer)[1].output_shape(output) : output;
      const Footprint footprint = footprint_of(layer, shape, stored, from_pixels && first, to_pixels && last);
      check_memory(layer, "activations", footprint.activations, kMaxActivations);
      limit_->floats += footprint.weights;
      const std::size_t most = (limit_->spare_bytes + 2 * tensors_.bytes()) / sizeof(float);
      check_memory(layer, "weights up to it", limit_->floats, static_cast<double>(most));
      shape = output;
    }
  }

  void check_memory(const Layer& layer, const char* what, double floats, double most) const {
    if (floats <= most) return;
    const auto text = [](double count) { return with_commas(static_cast<std::uint64_t>(std::min(4 * count, 1e18))); };
    throw Failure(ErrorKind::bundle, prefix_ + " layer " + layer.name + ": " + what + " take " + text(floats) +
                                         " bytes, expected at most " + text(most) + ". Use backend onnxruntime or torch.");
  }

  void add_layers(bool from_pixels, bool to_pixels) {
    check_layers(from_pixels, to_pixels);
    const std::vector<Layer>& layers = network_.layers;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const bool last = i + 1 == layers.size();
      const bool before_image = to_pixels && i + 2 == layers.size();  // which is an operation of its own
      const Layer* next = last || before_image ? nullptr : &layers[i + 1];
      if (layers[i].activation == Activation::tanh255 && !(last && to_pixels)) refuse(layers[i], "tanh before the end");
      if (from_pixels && i == 0) {
        add_first(layers[i]);
      } else if (to_pixels && last) {
        add_image(layers[i]);
      } else {
        i += static_cast<std::size_t>(add_layer(layers[i], next));
      }
    }
  }

  // Add one layer; tell how many of the following ones it took with it.
  int add_layer(const Layer& layer, const Layer* next) {
    switch (layer.kind) {
      case Kind::fc:
        return add_fully_connected(layer, next);
      case Kind::conv:
        layer.stride > 1 ? add_strided(layer)
                         : add_lowered(layer, lower_convolution(layer, shape_, weight(layer), bias(layer)));
        return 0;
      case Kind::deconv:
        add_deconvolution(layer);
        return 0;
      case Kind::pool:
      case Kind::lrn:
        return add_pool(layer, next);
      case Kind::reshape:
        if (layer.shape.channels != shape_.channels || layer.shape.height != shape_.height) refuse(layer, "reshape here");
        shape_ = layer.shape;
        return 0;
    }
    unknown(layer, "the planner");
  }

  void add_first(const Layer& layer) {
    if (layer.kind != Kind::conv) refuse(layer, "first layer");
    PixelsIn in;
    in.side = shape_.height;
    in.stride = layer.stride;
    in.pad = layer.padding;
    in.bgr = network_.pixels.bgr;
    std::copy(network_.pixels.mean.begin(), network_.pixels.mean.end(), in.mean);
    std::copy(network_.pixels.scale.begin(), network_.pixels.scale.end(), in.scale);
    Lowered lowered = lower_strided(layer, shape_, true, weight(layer), bias(layer));
    in.height = lowered.layer.in_height;
    in.width = lowered.layer.in_width;
    builder_->pixels_in(in);
    add_lowered(layer, std::move(lowered));
  }

  void add_strided(const Layer& layer) {
    Lowered lowered = lower_strided(layer, shape_, false, weight(layer), bias(layer));
    builder_->space_to_depth({blocks_of(shape_.channels), shape_.height, shape_.width, layer.stride, layer.padding,
                              lowered.layer.in_height, lowered.layer.in_width});
    add_lowered(layer, std::move(lowered));
  }

  void add_deconvolution(const Layer& layer) {
    if (upconvolution_taps(layer) > 0) {
      add_lowered(layer, lower_upconvolution(layer, shape_, builder_->stores_forward(), weight(layer), bias(layer)));
    } else if (layer.stride == 1 && layer.groups == 1 && layer.padding < layer.kernel) {
      add_lowered(layer, lower_convolution(layer, shape_, weight(layer), bias(layer)));
    } else {
      refuse(layer, "deconvolution");
    }
  }

  void add_image(const Layer& layer) {
    const bool convolves = (layer.kind == Kind::conv || layer.kind == Kind::deconv) && layer.stride == 1 && layer.groups == 1 &&
                           layer.padding < layer.kernel;
    if (!convolves && upconvolution_taps(layer) == 0) refuse(layer, "last layer");
    add_lowered(layer, lower_image(layer, shape_, network_.pixels, builder_->stores_forward(), weight(layer), bias(layer)));
  }

  void add_lowered(const Layer& layer, Lowered lowered) {
    builder_->convolution(std::move(lowered));
    shape_ = layer.output_shape(shape_);
  }

  int add_fully_connected(const Layer& layer, const Layer* next) {
    const bool reshapes = next != nullptr && next->kind == Kind::reshape;
    Shape output = layer.output_shape(shape_);
    if (reshapes) output = next->output_shape(output);
    const std::vector<int> columns = blocked_order(output);
    const float* const given = bias(layer);
    std::vector<float> biases(columns.size());
    for (std::size_t i = 0; i < columns.size(); ++i) biases[i] = columns[i] < 0 ? 0.0f : given[columns[i]];
    builder_->fully_connected(
        {weight(layer), layer.inputs, blocked_order(shape_), columns, std::move(biases), slope_of(layer), shape_, output});
    shape_ = output;
    return reshapes ? 1 : 0;
  }

  // For each float of a blocked tensor its index in C, H, W order, -1 for padding.
  static std::vector<int> blocked_order(const Shape& shape) {
    const int pixels = shape.height * shape.width;
    std::vector<int> order;
    order.reserve(static_cast<std::size_t>(blocks_of(shape.channels) * pixels * kBlock));
    for (int block = 0; block < blocks_of(shape.channels); ++block)
      for (int pixel = 0; pixel < pixels; ++pixel)
        for (int channel = block * kBlock; channel < (block + 1) * kBlock; ++channel)
          order.push_back(channel < shape.channels ? channel * pixels + pixel : -1);
    return order;
  }

  int add_pool(const Layer& layer, const Layer* next) {
    const bool pools = layer.kind == Kind::pool;
    const bool normalises = !pools || (next != nullptr && next->kind == Kind::lrn);
    const Shape output = layer.output_shape(shape_);
    const bool outside =
        (output.height - 1) * layer.stride >= shape_.height || (output.width - 1) * layer.stride >= shape_.width;
    if (pools && outside) refuse(layer, "pooling, whose last windows are empty");
    kernels::Pool record;
    record.blocks = blocks_of(shape_.channels);
    record.channels = shape_.channels;
    record.in_height = shape_.height;
    record.in_width = shape_.width;
    record.out_height = output.height;
    record.out_width = output.width;
    record.kernel = pools ? layer.kernel : 1;
    record.stride = pools ? layer.stride : 1;
    record.normalise = normalises;
    builder_->pool(record);
    shape_ = output;
    return pools && normalises ? 1 : 0;
  }

  const float* weight(const Layer& layer) const {
    return tensors_.find(prefix_ + "." + layer.name + ".weight", layer.weight_shape());
  }
  const float* bias(const Layer& layer) const { return tensors_.find(prefix_ + "." + layer.name + ".bias", {layer.outputs}); }
  [[noreturn]] void refuse(const Layer& layer, const std::string& what) const {
    throw Failure(ErrorKind::bundle, prefix_ + " layer " + layer.name + ": " + builder_->name() + " has no kernel for this " +
                                         what + ". Use backend onnxruntime or torch.");
  }

  const Network& network_;
  std::string prefix_;
  const Tensors& tensors_;
  WeightLimit* limit_;
  Builder* builder_;
  Shape shape_{};
};

}  // namespace

void plan_encoder(const Network& network, const Tensors& tensors, WeightLimit* limit, Builder* builder) {
  Planner(network, "encoder", tensors, limit, builder).encoder();
}

void plan_generator(const Network& network, const Tensors& tensors, WeightLimit* limit, Builder* builder) {
  Planner(network, "generator", tensors, limit, builder).generator();
}

}  // namespace deepsim::runtime::detail
