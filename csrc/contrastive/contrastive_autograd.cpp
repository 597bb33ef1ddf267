// The gradient of ccfast::centroid_contrastive_loss, for every device. In C++, because on a GPU the loss takes little
// longer than its launches, and Python's autograd functions take longer than that.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/library.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "../common/dispatch.h"
#include "contrastive_op.h"

namespace ccfast {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Tensors = std::tuple<at::Tensor, at::Tensor>;
using Maybe = std::optional<at::Tensor>;

// The options of the loss, as its schema has them.
struct LossOptions {
  double temperature;
  bool normalize;
  const std::string& reduction;
  double label_smoothing;
  int64_t ignore_index;
  const Maybe &temperatures, &mask, &weights;
};

Tensors compute(const at::Tensor& features, const at::Tensor& memory, const at::Tensor& labels,
                const LossOptions& options, bool with_gradient) {
  static const auto op = find_op<CentroidContrastiveLossOp>();
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(features, memory, labels, options.temperature, options.normalize, options.reduction,
                 options.label_smoothing, options.ignore_index, with_gradient, options.temperatures, options.mask,
                 options.weights);
}

Maybe maybe(const at::Tensor& value) { return value.defined() ? Maybe(value) : std::nullopt; }

at::Tensor memory_grad(const at::Tensor& upstream, AutogradContext* ctx, const variable_list& saved) {
  static const auto op = find_op<CentroidContrastiveLossMemoryGradOp>();
  auto& options = ctx->saved_data;
  return op.call(upstream, saved[1], saved[2], saved[3], options["temperature"].toDouble(),
                 options["normalize"].toBool(), options["reduction"].toStringRef(),
                 options["label_smoothing"].toDouble(), options["ignore_index"].toInt(), maybe(saved[4]),
                 maybe(saved[5]), maybe(saved[6]));
}

// gradient * factor, rounded to dtype, in one launch.
at::Tensor scaled(const at::Tensor& gradient, const at::Tensor& factor, at::ScalarType dtype) {
  if (dtype == gradient.scalar_type()) return gradient * factor;
  at::Tensor out = at::empty_like(gradient, gradient.options().dtype(dtype));
  return at::mul_out(out, gradient, factor);
}

// The pointer in which this torch holds a node: std::shared_ptr, or c10::intrusive_ptr in later ones.
template <class Made, class... Args>
auto make_node(Args&&... args) {
  using Held = decltype(torch::autograd::get_current_node());
  if constexpr (std::is_same_v<Held, std::shared_ptr<torch::autograd::Node>>) {
    return std::make_shared<Made>(std::forward<Args>(args)...);
  } else {
    return c10::make_intrusive<Made>(std::forward<Args>(args)...);
  }
}

// A gradient that raises an error when it is differentiated again, instead of counting as a constant: its history
// includes the inputs and the upstream gradient, so that derivatives by any of them raise.
at::Tensor once_differentiable(const at::Tensor& gradient, const at::Tensor& upstream) {
  if (!gradient.defined()) return gradient;
  torch::autograd::edge_list edges;
  if (const auto node = torch::autograd::get_current_node()) edges = node->next_edges();
  if (upstream.requires_grad()) edges.push_back(torch::autograd::impl::gradient_edge(upstream));
  at::Tensor out = gradient.detach();
  torch::autograd::create_gradient_edge(
      out, make_node<torch::autograd::Error>("centroid_contrastive_loss: second derivatives are not implemented",
                                             std::move(edges)));
  return out;
}

// Inputs: features, memory, then those without a gradient. `gradient` gets the loss's gradient by the features.
class Loss : public torch::autograd::Function<Loss> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& features, const at::Tensor& memory,
                            const at::Tensor& labels, const LossOptions& options, bool with_gradient,
                            at::Tensor* gradient) {
    const auto [loss, by_features] = compute(features, memory, labels, options, with_gradient);
    *gradient = by_features;
    ctx->saved_data["dtype"] = features.scalar_type();
    if (!memory.requires_grad()) {
      ctx->save_for_backward({by_features});
      return loss;
    }
    // The memory is saved only if it needs a gradient; otherwise it may be updated in place before backward.
    ctx->save_for_backward({by_features, features, memory, labels, options.temperatures.value_or(at::Tensor()),
                            options.mask.value_or(at::Tensor()), options.weights.value_or(at::Tensor())});
    ctx->saved_data["temperature"] = options.temperature;
    ctx->saved_data["normalize"] = options.normalize;
    ctx->saved_data["reduction"] = options.reduction;
    ctx->saved_data["label_smoothing"] = options.label_smoothing;
    ctx->saved_data["ignore_index"] = options.ignore_index;
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& upstream) {
    const bool again = at::GradMode::is_enabled();  // create_graph
    const at::AutoGradMode constants(false);
    variable_list by_input(6);  // one per argument of forward
    const at::Tensor& by_loss = upstream[0];
    const variable_list saved = ctx->get_saved_variables();
    if (ctx->needs_input_grad(0)) {
      const at::Tensor factor = by_loss.dim() ? by_loss.unsqueeze(1) : by_loss;
      by_input[0] = scaled(saved[0], factor, ctx->saved_data["dtype"].toScalarType());
    }
    if (ctx->needs_input_grad(1)) by_input[1] = memory_grad(by_loss, ctx, saved);
    if (!again) return by_input;
    const at::AutoGradMode recorded(true);
    for (at::Tensor& gradient : by_input) gradient = once_differentiable(gradient, by_loss);
    return by_input;
  }
};

// Without this check a forward-mode derivative would be zero.
void refuse_tangents(std::initializer_list<const at::Tensor*> inputs) {
  for (const at::Tensor* input : inputs)
    TORCH_CHECK_NOT_IMPLEMENTED(!input->_fw_grad(0).defined(),
                                "centroid_contrastive_loss: forward-mode derivatives (torch.func.jvp, jacfwd, hessian, "
                                "torch.autograd.forward_ad) are not implemented; use backward()");
}

Tensors centroid_contrastive_loss_autograd(const at::Tensor& features, const at::Tensor& memory,
                                           const at::Tensor& labels, double temperature, bool normalize,
                                           const std::string& reduction, double label_smoothing, int64_t ignore_index,
                                           bool with_gradient, const Maybe& temperatures, const Maybe& mask,
                                           const Maybe& weights) {
  refuse_tangents(
      {&features, &memory, &labels, temperatures ? &*temperatures : &features, weights ? &*weights : &features});
  const LossOptions options{temperature,  normalize,    reduction, label_smoothing,
                            ignore_index, temperatures, mask,      weights};
  if (!at::GradMode::is_enabled() || !(features.requires_grad() || memory.requires_grad()))
    return compute(features, memory, labels, options, with_gradient);
  at::Tensor gradient;
  const at::Tensor loss = Loss::apply(features, memory, labels, options, with_gradient, &gradient);
  return {loss, gradient};
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, Autograd, m) { m.impl("centroid_contrastive_loss", centroid_contrastive_loss_autograd); }

}  // namespace ccfast
