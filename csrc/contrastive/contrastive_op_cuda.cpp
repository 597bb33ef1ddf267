// Glue of ccfast::centroid_contrastive_loss for CUDA tensors: products with the memory by ATen, in blocks of rows. No
// step waits for the device, and no shape depends on data, so that a training step can be captured in a CUDA graph.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include "../common/checks.h"
#include "../common/device.h"
#include "arguments.h"
#include "contrastive.h"

namespace ccfast {
namespace {

using contrastive::Options;

// Features divided by their norms, in the type that the loss is computed in.
void normalize(const at::Tensor& features, const at::Tensor& out, const at::Tensor& norms, void* stream) {
  const int64_t rows = features.size(0), dim = features.size(1);
  double* norm = norms.mutable_data_ptr<double>();
  switch (features.scalar_type()) {
    case at::kHalf:
      return contrastive::normalize_rows_cuda(static_cast<const contrastive::HalfBits*>(features.const_data_ptr()),
                                              rows, dim, out.mutable_data_ptr<float>(), norm, stream);
    case at::kBFloat16:
      return contrastive::normalize_rows_cuda(static_cast<const contrastive::BFloat16Bits*>(features.const_data_ptr()),
                                              rows, dim, out.mutable_data_ptr<float>(), norm, stream);
    case at::kDouble:
      return contrastive::normalize_rows_cuda<double, double>(features.const_data_ptr<double>(), rows, dim,
                                                              out.mutable_data_ptr<double>(), norm, stream);
    default:
      return contrastive::normalize_rows_cuda<float, float>(features.const_data_ptr<float>(), rows, dim,
                                                            out.mutable_data_ptr<float>(), norm, stream);
  }
}

// The batch in the type it is computed in: float64 for float64 features, else float32.
struct Batch {
  at::Tensor rows;     // [B, D], normalised if asked for
  at::Tensor norms;    // [B] float64 of the features, where normalised
  at::Tensor memory;   // [C, D]
  at::Tensor labels;   // [B]
  at::Tensor counted;  // [] float64: rows that are not ignored, at least 1

  Batch(const at::Tensor& features, const at::Tensor& centroids, const at::Tensor& targets, const Options& options,
        void* stream)
      : memory(centroids.to(contrastive::compute_type(features)).contiguous()),
        labels(targets.contiguous()),
        counted((labels != options.ignore_index).sum(at::kDouble).clamp_min(1)) {
    if (!options.normalize) {
      rows = features.to(memory.scalar_type()).contiguous();
      return;
    }
    rows = at::empty(features.sizes(), memory.options());
    norms = at::empty({features.size(0)}, memory.options().dtype(at::kDouble));
    normalize(features.contiguous(), rows, norms, stream);
  }
};

// Runs the softmax over blocks of rows; consume(first, rows, block) gets each block's gradient by the products.
template <class Consume>
at::Tensor for_each_block(const Batch& batch, const Options& options, const at::Tensor& weights, bool with_gradient,
                          void* stream, const Consume& consume) {
  const int64_t rows = batch.rows.size(0), classes = batch.memory.size(0), step = contrastive::rows_at_a_time(classes);
  const at::Tensor losses = at::empty({rows}, batch.rows.options());
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    const at::Tensor logits = at::mm(batch.rows.narrow(0, first, count), batch.memory.t());
    AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "centroid_contrastive_loss", [&] {
      contrastive::softmax_cross_entropy_cuda<scalar_t>(
          {logits.mutable_data_ptr<scalar_t>(), batch.labels.const_data_ptr<int64_t>() + first,
           weights.const_data_ptr<double>() + first, count, classes, options.temperature, options.label_smoothing,
           options.ignore_index, with_gradient, losses.mutable_data_ptr<scalar_t>() + first},
          stream);
    });
    consume(first, count, logits);
  }
  return losses;
}

at::Tensor reduce(const at::Tensor& losses, const std::string& reduction, const at::Tensor& counted) {
  if (reduction == "none") return losses;
  const at::Tensor sum = losses.sum(at::kDouble);
  return (reduction == "sum" ? sum : sum / counted).to(losses.scalar_type());
}

std::tuple<at::Tensor, at::Tensor> centroid_contrastive_loss_cuda(const at::Tensor& features, const at::Tensor& memory,
                                                                  const at::Tensor& labels, double temperature,
                                                                  bool normalize, const std::string& reduction,
                                                                  double label_smoothing, int64_t ignore_index,
                                                                  bool with_gradient) {
  contrastive::check_arguments(features, memory, labels);
  const Options options =
      contrastive::checked_options(temperature, normalize, reduction, label_smoothing, ignore_index);
  const DeviceScope device(features);
  const Batch batch(features, memory, labels, options, device.stream());
  const at::Tensor one = at::ones({}, batch.counted.options());
  const at::Tensor weights =
      (options.mean ? batch.counted.reciprocal() : one).expand({batch.rows.size(0)}).contiguous();
  const at::Tensor gradient =
      at::empty({with_gradient ? batch.rows.size(0) : 0, batch.rows.size(1)}, batch.rows.options());
  const at::Tensor losses = for_each_block(batch, options, weights, with_gradient, device.stream(),
                                           [&](int64_t first, int64_t count, const at::Tensor& by_logits) {
                                             if (!with_gradient) return;
                                             at::Tensor block = gradient.narrow(0, first, count);
                                             at::mm_out(block, by_logits, batch.memory);
                                           });
  if (with_gradient && normalize) {
    AT_DISPATCH_FLOATING_TYPES(gradient.scalar_type(), "centroid_contrastive_loss", [&] {
      contrastive::normalize_rows_backward_cuda(
          gradient.mutable_data_ptr<scalar_t>(), batch.rows.const_data_ptr<scalar_t>(),
          batch.norms.const_data_ptr<double>(), gradient.size(0), gradient.size(1), device.stream());
    });
  }
  return {reduce(losses, reduction, batch.counted), gradient};
}

// Gradient by the memory, for the rare caller who learns it: the softmax is computed again. upstream: [] or [B].
at::Tensor centroid_contrastive_loss_memory_grad_cuda(const at::Tensor& upstream, const at::Tensor& features,
                                                      const at::Tensor& memory, const at::Tensor& labels,
                                                      double temperature, bool normalize, const std::string& reduction,
                                                      double label_smoothing, int64_t ignore_index) {
  contrastive::check_arguments(features, memory, labels);
  const Options options =
      contrastive::checked_options(temperature, normalize, reduction, label_smoothing, ignore_index);
  const DeviceScope device(features);
  const Batch batch(features, memory, labels, options, device.stream());
  const at::Tensor factors = upstream.to(at::kDouble).expand({batch.rows.size(0)});
  const at::Tensor weights = (options.mean ? factors / batch.counted : factors).contiguous();
  at::Tensor gradient = at::zeros_like(batch.memory);
  for_each_block(batch, options, weights, true, device.stream(),
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
