// Glue of ccfast::centroid_contrastive_loss for CPU tensors: products with the memory by ATen, in blocks of rows.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <vector>

#include "../common/autocast.h"
#include "../common/checks.h"
#include "arguments.h"
#include "contrastive.h"

namespace ccfast {
namespace {

using contrastive::Extras;
using contrastive::Options;
using contrastive::Targets;

// The rows of targets that are not all zero.
int64_t counted_targets(const at::Tensor& targets) { return targets.ne(0).any(1).sum().item<int64_t>(); }

// The batch in the type it is computed in: float64 for float64 features, else float32.
struct Batch {
  at::Tensor rows;    // [B, D], normalised if requested
  at::Tensor memory;  // [C, D]
  Targets targets;
  at::Tensor labels;          // [B]; undefined if there are targets
  std::vector<double> norms;  // [B] of the features
  int64_t counted;            // rows that are not ignored

  Batch(const at::Tensor& features, const at::Tensor& centroids, const at::Tensor& labels_or_targets,
        const Extras& extras, const Options& options)
      : rows(features.to(contrastive::compute_type(features)).contiguous()),
        memory(centroids.to(rows.scalar_type()).contiguous()),
        targets(labels_or_targets, extras, rows.scalar_type()),
        norms(rows.size(0)) {
    if (targets.targets.defined()) {
      check_finite_rows("labels", targets.targets);
      counted = counted_targets(targets.targets);
    } else {
      labels = labels_or_targets.contiguous();
      check_labels("labels", labels, memory.size(0), options.ignore_index);
      counted = rows.size(0) - (labels == options.ignore_index).sum().item<int64_t>();
    }
    check_extras(options.ignore_index);
    const at::Tensor normalized = at::empty_like(rows);
    AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "centroid_contrastive_loss", [&] {
      contrastive::normalize_rows(rows.const_data_ptr<scalar_t>(), rows.size(0), rows.size(1),
                                  normalized.mutable_data_ptr<scalar_t>(), norms.data());
    });
    for (const double norm : norms)
      if (!std::isfinite(norm)) check_finite_rows("features", rows);
    if (options.normalize) rows = normalized;
  }

 private:
  void check_extras(int64_t ignore_index) const {
    if (targets.row_weights.defined()) check_finite_rows("weights", targets.row_weights.unsqueeze(1));
    if (targets.sharpness.defined()) {
      const at::Tensor bad = (targets.sharpness > 0).logical_and(at::isfinite(targets.sharpness)).logical_not();
      TORCH_CHECK_VALUE(!bad.any().item<bool>(), "temperature: expected finite numbers above 0, got ",
                        targets.sharpness.masked_select(bad)[0].reciprocal().item<double>(), " for column ",
                        bad.to(at::kByte).argmax().item<int64_t>());
    }
    if (!targets.mask.defined()) return;
    const at::Tensor outside = targets.mask.logical_not();
    const at::Tensor bad = targets.targets.defined()
                               ? outside.logical_and(targets.targets != 0).any(1)
                               : outside.gather(1, labels.clamp(0, memory.size(0) - 1).unsqueeze(1))
                                     .squeeze(1)
                                     .logical_and(labels != ignore_index);
    if (!bad.any().item<bool>()) return;
    TORCH_CHECK_VALUE(false, "mask: expected True in the column of every label, got False in row ",
                      bad.to(at::kByte).argmax().item<int64_t>());
  }
};

// A non-finite value in the memory makes all products with its row non-finite; an overflow does the same.
void check_products(const at::Tensor& logits, const at::Tensor& memory) {
  if (at::isfinite(logits.select(0, 0)).all().item<bool>()) return;
  check_finite_rows("memory", memory);
}

// Runs the softmax over blocks of rows; consume(first, rows, block) gets each block's gradient by the products.
template <class Consume>
at::Tensor for_each_block(const Batch& batch, const Options& options, const std::vector<double>& weights,
                          bool with_gradient, const Consume& consume) {
  const int64_t rows = batch.rows.size(0), classes = batch.memory.size(0);
  const int64_t step = contrastive::rows_at_a_time(classes);
  const int64_t* labels = batch.labels.defined() ? batch.labels.const_data_ptr<int64_t>() : nullptr;
  const at::Tensor losses = at::empty({rows}, batch.rows.options());
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    const at::Tensor logits = at::mm(batch.rows.narrow(0, first, count), batch.memory.t());
    if (first == 0) check_products(logits, batch.memory);
    AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "centroid_contrastive_loss", [&] {
      const contrastive::SoftmaxParams<scalar_t> params{logits.mutable_data_ptr<scalar_t>(),
                                                        classes,
                                                        labels ? labels + first : nullptr,
                                                        weights.data() + first,
                                                        1,
                                                        count,
                                                        classes,
                                                        options.temperature,
                                                        options.label_smoothing,
                                                        options.ignore_index,
                                                        with_gradient,
                                                        losses.mutable_data_ptr<scalar_t>() + first};
      batch.targets.any() ? contrastive::softmax_cross_entropy(params, batch.targets.params<scalar_t>(first, classes))
                          : contrastive::softmax_cross_entropy(params);
    });
    consume(first, count, logits);
  }
  return losses;
}

void check_losses(const at::Tensor& losses) {
  if (at::isfinite(losses).all().item<bool>()) return;
  TORCH_CHECK_VALUE(false,
                    "features, memory: expected finite logits, got an overflow of <features, memory> / temperature");
}

// The reduced losses: the mean is over the rows that are not ignored, or 0 if there are none.
at::Tensor reduce(const at::Tensor& losses, const std::string& reduction, int64_t counted) {
  if (reduction == "none") return losses;
  const at::Tensor sum = losses.sum(at::kDouble);
  return (reduction == "sum" ? sum : sum / std::max<int64_t>(counted, 1)).to(losses.scalar_type());
}

std::tuple<at::Tensor, at::Tensor> centroid_contrastive_loss_cpu(
    const at::Tensor& features, const at::Tensor& memory, const at::Tensor& labels, double temperature, bool normalize,
    const std::string& reduction, double label_smoothing, int64_t ignore_index, bool with_gradient,
    const std::optional<at::Tensor>& temperatures, const std::optional<at::Tensor>& mask,
    const std::optional<at::Tensor>& weights) {
  const NoAutocast no_autocast;
  const Extras extras{temperatures, mask, weights};
  contrastive::check_arguments(features, memory, labels, extras);
  const Options options =
      contrastive::checked_options(temperature, normalize, reduction, label_smoothing, ignore_index);
  const Batch batch(features, memory, labels, extras, options);
  const double weight = options.mean ? 1.0 / std::max<int64_t>(batch.counted, 1) : 1.0;
  const std::vector<double> factors(batch.rows.size(0), weight);
  at::Tensor gradient =
      at::empty(with_gradient ? batch.rows.sizes() : at::IntArrayRef{0, batch.rows.size(1)}, batch.rows.options());
  const at::Tensor losses = for_each_block(batch, options, factors, with_gradient,
                                           [&](int64_t first, int64_t count, const at::Tensor& by_logits) {
                                             if (!with_gradient) return;
                                             at::Tensor block = gradient.narrow(0, first, count);
                                             at::mm_out(block, by_logits, batch.memory);
                                           });
  check_losses(losses);
  if (with_gradient && normalize) {
    AT_DISPATCH_FLOATING_TYPES(gradient.scalar_type(), "centroid_contrastive_loss", [&] {
      contrastive::normalize_rows_backward(gradient.mutable_data_ptr<scalar_t>(), batch.rows.const_data_ptr<scalar_t>(),
                                           batch.norms.data(), gradient.size(0), gradient.size(1));
    });
  }
  return {reduce(losses, reduction, batch.counted), gradient};
}

// The gradient with respect to the memory is rarely needed, so the softmax is computed again. upstream: [] or [B].
at::Tensor centroid_contrastive_loss_memory_grad_cpu(const at::Tensor& upstream, const at::Tensor& features,
                                                     const at::Tensor& memory, const at::Tensor& labels,
                                                     double temperature, bool normalize, const std::string& reduction,
                                                     double label_smoothing, int64_t ignore_index,
                                                     const std::optional<at::Tensor>& temperatures,
                                                     const std::optional<at::Tensor>& mask,
                                                     const std::optional<at::Tensor>& weights) {
  const NoAutocast no_autocast;
  const Extras extras{temperatures, mask, weights};
  contrastive::check_arguments(features, memory, labels, extras);
  const Options options =
      contrastive::checked_options(temperature, normalize, reduction, label_smoothing, ignore_index);
  const Batch batch(features, memory, labels, extras, options);
  const at::Tensor by_row = upstream.to(at::kDouble).expand({batch.rows.size(0)}).contiguous();
  std::vector<double> factors(by_row.const_data_ptr<double>(), by_row.const_data_ptr<double>() + by_row.numel());
  if (options.mean)
    for (double& factor : factors) factor /= static_cast<double>(std::max<int64_t>(batch.counted, 1));
  at::Tensor gradient = at::zeros_like(batch.memory);
  for_each_block(batch, options, factors, true, [&](int64_t first, int64_t count, const at::Tensor& by_logits) {
    gradient.addmm_(by_logits.t(), batch.rows.narrow(0, first, count));
  });
  return gradient.to(memory.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
  m.impl("centroid_contrastive_loss", centroid_contrastive_loss_cpu);
  m.impl("centroid_contrastive_loss_memory_grad", centroid_contrastive_loss_memory_grad_cpu);
}

}  // namespace ccfast
