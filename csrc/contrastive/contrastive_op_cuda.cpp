// Glue of ccfast::centroid_contrastive_loss for CUDA tensors: products with the memory by ATen, in blocks of rows. No
// step waits for the device, and no shape depends on data, so that a training step can be captured in a CUDA graph.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <algorithm>

#include "../common/checks.h"
#include "../common/device.h"
#include "arguments.h"
#include "contrastive.h"

namespace ccfast {
namespace {

using contrastive::Extras;
using contrastive::Options;
using contrastive::Targets;

constexpr int64_t kLogitsAlignment = 4;  // rows of logits begin at multiples of this number, for any C

// The batch in the type it is computed in: float64 for float64 features, else float32.
struct Batch {
  at::Tensor rows;    // [B, D], normalised if requested
  at::Tensor memory;  // [C, D]
  Targets targets;
  at::Tensor labels;  // [B]; undefined if there are targets
  at::Tensor facts;   // float64: the weight of a row's loss, and the norms of the features [B] if normalised

  Batch(const at::Tensor& features, const at::Tensor& centroids, const at::Tensor& labels_or_targets,
        const Extras& extras, const Options& options, void* stream)
      : memory(centroids.to(contrastive::compute_type(features)).contiguous()),
        targets(labels_or_targets, extras, memory.scalar_type()) {
    if (!targets.targets.defined()) labels = labels_or_targets.contiguous();
    facts = at::empty({1 + (options.normalize ? features.size(0) : 0)}, memory.options().dtype(at::kDouble));
    const contrastive::LabelsToCount to_count{label_pointer(), labels.defined() ? labels.size(0) : 0,
                                              memory.size(0),  options.ignore_index,
                                              options.mean,    weight()};
    if (options.normalize) {
      rows = at::empty(features.sizes(), memory.options());
      normalize(features.contiguous(), to_count, stream);
    } else {
      rows = features.to(memory.scalar_type()).contiguous();
      contrastive::normalize_rows_cuda<float, float>(nullptr, 0, 0, nullptr, nullptr, to_count, stream);
    }
    if (targets.targets.defined() && options.mean)
      facts.select(0, 0).copy_(targets.targets.ne(0).any(1).sum().clamp_min(1).to(at::kDouble).reciprocal());
  }

  const int64_t* label_pointer() const { return labels.defined() ? labels.const_data_ptr<int64_t>() : nullptr; }

  double* weight() const { return facts.mutable_data_ptr<double>(); }
  double* norms() const { return weight() + 1; }

 private:
  void normalize(const at::Tensor& features, const contrastive::LabelsToCount& to_count, void* stream) const {
    const auto run = [&](const auto* x, auto* out) {
      contrastive::normalize_rows_cuda(x, rows.size(0), rows.size(1), out, norms(), to_count, stream);
    };
    switch (features.scalar_type()) {
      case at::kHalf:
        return run(static_cast<const contrastive::HalfBits*>(features.const_data_ptr()),
                   rows.mutable_data_ptr<float>());
      case at::kBFloat16:
        return run(static_cast<const contrastive::BFloat16Bits*>(features.const_data_ptr()),
                   rows.mutable_data_ptr<float>());
      case at::kDouble:
        return run(features.const_data_ptr<double>(), rows.mutable_data_ptr<double>());
      default:
        return run(features.const_data_ptr<float>(), rows.mutable_data_ptr<float>());
    }
  }
};

// Factors of the rows' gradients on the device: [B], or one for all (stride 0).
struct Weights {
  const double* first;
  int64_t stride;
};

// Runs the softmax over blocks of rows; consume(first, rows, block) gets each block's gradient by the products.
template <class Consume>
at::Tensor for_each_block(const Batch& batch, const Options& options, const Weights& weights, bool with_gradient,
                          void* stream, const Consume& consume) {
  const int64_t rows = batch.rows.size(0), classes = batch.memory.size(0), step = contrastive::rows_at_a_time(classes);
  const int64_t stride = (classes + kLogitsAlignment - 1) / kLogitsAlignment * kLogitsAlignment;
  const at::Tensor losses = at::empty({rows}, batch.rows.options());
  const at::Tensor store = at::empty({std::min(step, rows), stride}, batch.rows.options());
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    at::Tensor logits = store.narrow(0, 0, count).narrow(1, 0, classes);
    at::mm_out(logits, batch.rows.narrow(0, first, count), batch.memory.t());
    AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "centroid_contrastive_loss", [&] {
      const contrastive::SoftmaxParams<scalar_t> params{
          logits.mutable_data_ptr<scalar_t>(),
          stride,
          batch.labels.defined() ? batch.label_pointer() + first : nullptr,
          weights.first + first * weights.stride,
          weights.stride,
          count,
          classes,
          options.temperature,
          options.label_smoothing,
          options.ignore_index,
          with_gradient,
          losses.mutable_data_ptr<scalar_t>() + first};
      batch.targets.any()
          ? contrastive::softmax_cross_entropy_cuda(params, batch.targets.params<scalar_t>(first, classes), stream)
          : contrastive::softmax_cross_entropy_cuda(params, stream);
    });
    consume(first, count, logits);
  }
  return losses;
}

// Turns, in place, the gradient by the normalised rows into that by the features, and the losses [B] into the one that
// is returned.
at::Tensor finish(const Batch& batch, const Options& options, const at::Tensor& gradient, const at::Tensor& losses,
                  bool reduced, void* stream) {
  const int64_t rows = options.normalize ? gradient.size(0) : 0;
  const at::Tensor loss = reduced ? at::empty({}, losses.options()) : losses;
  AT_DISPATCH_FLOATING_TYPES(losses.scalar_type(), "centroid_contrastive_loss", [&] {
    contrastive::normalize_rows_backward_cuda<scalar_t>(
        gradient.mutable_data_ptr<scalar_t>(), batch.rows.const_data_ptr<scalar_t>(), batch.norms(), rows,
        batch.rows.size(1),
        {losses.const_data_ptr<scalar_t>(), losses.size(0), batch.weight(),
         reduced ? loss.mutable_data_ptr<scalar_t>() : nullptr},
        stream);
  });
  return loss;
}

std::tuple<at::Tensor, at::Tensor> centroid_contrastive_loss_cuda(
    const at::Tensor& features, const at::Tensor& memory, const at::Tensor& labels, double temperature, bool normalize,
    const std::string& reduction, double label_smoothing, int64_t ignore_index, bool with_gradient,
    const std::optional<at::Tensor>& temperatures, const std::optional<at::Tensor>& mask,
    const std::optional<at::Tensor>& weights) {
  const Extras extras{temperatures, mask, weights};
  contrastive::check_arguments(features, memory, labels, extras);
  const Options options =
      contrastive::checked_options(temperature, normalize, reduction, label_smoothing, ignore_index);
  const DeviceScope device(features);
  const Batch batch(features, memory, labels, extras, options, device.stream());
  const at::Tensor gradient =
      at::empty({with_gradient ? batch.rows.size(0) : 0, batch.rows.size(1)}, batch.rows.options());
  const at::Tensor losses = for_each_block(batch, options, {batch.weight(), 0}, with_gradient, device.stream(),
                                           [&](int64_t first, int64_t count, const at::Tensor& by_logits) {
                                             if (!with_gradient) return;
                                             at::Tensor block = gradient.narrow(0, first, count);
                                             at::mm_out(block, by_logits, batch.memory);
                                           });
  return {finish(batch, options, gradient, losses, reduction != "none", device.stream()), gradient};
}

// The gradient with respect to the memory is rarely needed, so the softmax is computed again. upstream: [] or [B].
at::Tensor centroid_contrastive_loss_memory_grad_cuda(const at::Tensor& upstream, const at::Tensor& features,
                                                      const at::Tensor& memory, const at::Tensor& labels,
                                                      double temperature, bool normalize, const std::string& reduction,
                                                      double label_smoothing, int64_t ignore_index,
                                                      const std::optional<at::Tensor>& temperatures,
                                                      const std::optional<at::Tensor>& mask,
                                                      const std::optional<at::Tensor>& weights) {
  const Extras extras{temperatures, mask, weights};
  contrastive::check_arguments(features, memory, labels, extras);
  const Options options =
      contrastive::checked_options(temperature, normalize, reduction, label_smoothing, ignore_index);
  const DeviceScope device(features);
  const Batch batch(features, memory, labels, extras, options, device.stream());
  const at::Tensor factors = (upstream.to(at::kDouble) * batch.facts[0]).expand({batch.rows.size(0)}).contiguous();
  at::Tensor gradient = at::zeros_like(batch.memory);
  for_each_block(batch, options, {factors.const_data_ptr<double>(), 1}, true, device.stream(),
                 [&](int64_t first, int64_t count, const at::Tensor& by_logits) {
                   gradient.addmm_(by_logits.t(), batch.rows.narrow(0, first, count));
                 });
  return gradient.to(memory.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) {
  m.impl("centroid_contrastive_loss", centroid_contrastive_loss_cuda);
  m.impl("centroid_contrastive_loss_memory_grad", centroid_contrastive_loss_memory_grad_cuda);
}

}  // namespace ccfast
