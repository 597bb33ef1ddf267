// Arguments of ccfast::evaluate_ranking that every device shares.
#pragma once

#include <ATen/ATen.h>

#include <optional>

#include "../common/checks.h"
#include "retrieval.h"

namespace ccfast::retrieval {

inline void check_integers(const char* name, const at::Tensor& value, int64_t length) {
  TORCH_CHECK_VALUE(value.dim() == 1 && value.size(0) == length, name, ": expected shape [", length, "], got ",
                    value.sizes());
  TORCH_CHECK_TYPE(value.scalar_type() == at::kLong, name, ": expected dtype int64, got ", value.scalar_type());
}

// The checked arguments, contiguous, and the results.
struct Ranking {
  at::Tensor query_ids, gallery_ids;
  std::optional<at::Tensor> query_cams, gallery_cams;
  std::optional<int64_t> junk_id;
  at::Tensor average_precision, first_match, inverse_penalty;  // [Q] each

  Ranking(const at::Tensor& distances, const at::Tensor& query_id, const at::Tensor& gallery_id,
          const std::optional<at::Tensor>& query_cam, const std::optional<at::Tensor>& gallery_cam,
          std::optional<int64_t> junk_id)
      : junk_id(junk_id) {
    CCFAST_CHECK_DIM(distances, 2);
    const int64_t queries = distances.size(0), gallery = distances.size(1);
    check_integers("query_ids", query_id, queries);
    check_integers("gallery_ids", gallery_id, gallery);
    TORCH_CHECK_VALUE(query_cam.has_value() == gallery_cam.has_value(),
                      "query_cams, gallery_cams: expected both or none");
    query_ids = query_id.contiguous();
    gallery_ids = gallery_id.contiguous();
    if (query_cam) {
      check_integers("query_cams", *query_cam, queries);
      check_integers("gallery_cams", *gallery_cam, gallery);
      query_cams = query_cam->contiguous();
      gallery_cams = gallery_cam->contiguous();
    }
    average_precision = at::empty({queries}, distances.options().dtype(at::kDouble));
    first_match = at::empty({queries}, distances.options().dtype(at::kLong));
    inverse_penalty = at::empty({queries}, distances.options().dtype(at::kDouble));
  }

  // Params of a kernel that reads these distances [Q, G].
  template <class T>
  RankingParams<T> params(const at::Tensor& distances) const {
    const auto data = [](const std::optional<at::Tensor>& value) {
      return value ? value->const_data_ptr<int64_t>() : nullptr;
    };
    return {distances.const_data_ptr<T>(),
            query_ids.const_data_ptr<int64_t>(),
            gallery_ids.const_data_ptr<int64_t>(),
            data(query_cams),
            data(gallery_cams),
            distances.size(0),
            distances.size(1),
            average_precision.mutable_data_ptr<double>(),
            first_match.mutable_data_ptr<int64_t>(),
            inverse_penalty.mutable_data_ptr<double>(),
            junk_id.has_value(),
            junk_id.value_or(0)};
  }
};

}  // namespace ccfast::retrieval
