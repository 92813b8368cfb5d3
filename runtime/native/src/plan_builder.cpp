// The builder of plans for the CPU: packs the weights of every step and keeps it as an operation.
#include "plan.h"
#include "planner.h"

namespace deepsim::runtime::detail {

class PlanBuilder final : public Builder {
 public:
  PlanBuilder(const PlanOptions& options, Packed* packed) : options_(options), packed_(packed) {}

  Plan take() {
    plan_.build_operations();
    return std::move(plan_);
  }

  std::string name() const override { return "the cpu backend"; }
  bool stores_forward() const override { return true; }
  void pixels_in(const PixelsIn& layer) override { add(detail::pixels_in(layer)); }
  void space_to_depth(const SpaceToDepth& layer) override { add(detail::space_to_depth(layer)); }
  void features_in(const FeatureLayout& layout) override { add(detail::features_in(layout)); }
  void features_out(const FeatureLayout& layout) override { add(detail::features_out(layout)); }
  void pool(const kernels::Pool& layer) override { add(detail::pool(layer)); }

  void fully_connected(Connected layer) override {
    kernels::FullyConnected record;
    record.in_blocks = static_cast<int>(layer.input_of.size()) / kernels::kBlock;
    record.columns = static_cast<int>(layer.row_of.size());
    record.half = options_.half_fc_weights;
    record.slope = layer.slope;
    keep(pack_fully_connected(layer.weight, layer.inputs, layer.row_of, layer.input_of, record.half,
                              options_.kernels->tile_columns, *options_.pool),
         std::move(layer.bias));
    record.weights = packed_->weights.back().as<void>();
    record.bias = packed_->biases.back().data();
    add(detail::fully_connected(record));
  }

  void convolution(Lowered lowered) override {
    const int tile = options_.kernels->tile_columns;
    lowered.layer.winograd = winograd_for(lowered.layer);
    keep(lowered.layer.winograd > 0 ? pack_winograd(lowered.weights, tile, *options_.pool)
                                    : pack_direct(lowered.weights, tile, *options_.pool),
         std::move(lowered.bias));
    lowered.layer.weights = packed_->weights.back().floats();
    lowered.layer.bias = packed_->biases.back().data();
    plan_.steps_.push_back({nullptr, lowered.layer});
  }

 private:
  // F(3x3, 2x2), F(4x4, 3x3) and F(2x2, 5x5), where enough of a tile lies inside and there are channels to make up for
  // transforming.
  static int winograd_for(const kernels::Convolution& layer) {
    const int rows = layer.windows_down();
    if (layer.window_stride != 1 || layer.store == kernels::Store::pixels || layer.in_blocks < 2) return 0;
    if (layer.kernel == 2 && rows > 5) return 3;
    if (layer.kernel == 3 && rows > 6) return 4;
    if (layer.kernel == 5 && rows > 6) return 2;
    return 0;
  }

  void keep(Buffer weights, std::vector<float> bias) {
    packed_->weights.push_back(std::move(weights));
    packed_->biases.push_back(std::move(bias));
  }
  void add(std::unique_ptr<Operation> operation) { plan_.steps_.push_back({std::move(operation), {}}); }

  const PlanOptions& options_;
  Packed* packed_;
  Plan plan_;
};

Plan Plan::encoder(const Network& network, const Tensors& tensors, const PlanOptions& options, Packed* packed) {
  PlanBuilder builder(options, packed);
  plan_encoder(network, tensors, &packed->limit, &builder);
  return builder.take();
}

Plan Plan::generator(const Network& network, const Tensors& tensors, const PlanOptions& options, Packed* packed) {
  PlanBuilder builder(options, packed);
  plan_generator(network, tensors, &packed->limit, &builder);
  return builder.take();
}

}  // namespace deepsim::runtime::detail
