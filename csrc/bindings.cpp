// The schemas of all ops, and the Python module that registers them when it is imported.
#include <Python.h>
#include <torch/library.h>

#include <string>

#include "common/no_cuda.h"

TORCH_LIBRARY(ccfast, m) {
  // row_begin: the queries are the features row_begin .. row_begin + Q - 1, each of which comes first in its own list;
  // without queries, all of them are.
  m.def(
      "knn(Tensor features, Tensor? queries, int k, str precision, int? row_begin=None) "
      "-> (Tensor indices, Tensor distances)");
  // In float64, of queries[i] and features[indices[i, m]], with the bits by which knn orders its neighbours.
  m.def("pair_distances(Tensor queries, Tensor features, Tensor indices) -> Tensor");
  m.def("squared_norms(Tensor features) -> Tensor");  // of every row, in float64

  m.def("k_reciprocal_encoding(Tensor features, int k1, int k2) -> (Tensor crow, Tensor col, Tensor values)");
  m.def("jaccard_distance(Tensor features, int k1, int k2) -> Tensor");
  m.def(
      "jaccard_distance_sparse(Tensor features, int k1, int k2, float max_distance) "
      "-> (Tensor crow, Tensor col, Tensor values)");
  // Stages of the two above and of re-ranking; ranks and V are as in csrc/jaccard/jaccard.h. They answer for the rows
  // row_begin .. row_end - 1 (expand_queries: for the rows of rank), so that several processes can share the work.
  // encode_neighbours reads the features of row i at features[feature_rows[i]], if feature_rows is given: only of rows
  // that are encoded, and of members of their sets that are not among their neighbours.
  m.def(
      "encode_neighbours(Tensor features, Tensor rank, Tensor distances, int half, Tensor? row_scale, "
      "Tensor? column_shift, int row_begin=0, int? row_end=None, Tensor? feature_rows=None) "
      "-> (Tensor crow, Tensor col, Tensor values)");
  m.def(
      "expand_queries(Tensor crow, Tensor col, Tensor values, Tensor rank, int k2) "
      "-> (Tensor crow, Tensor col, Tensor values)");
  m.def(
      "sparse_jaccard(Tensor crow, Tensor col, Tensor values, float max_distance, int row_begin=0, int? row_end=None) "
      "-> (Tensor crow, Tensor col, Tensor values)");
  m.def(
      "dense_jaccard(Tensor crow, Tensor col, Tensor values, int row_begin, int row_end, int col_begin, int col_end) "
      "-> Tensor");

  m.def("dbscan(Tensor distances, float eps, int min_samples) -> Tensor");
  m.def("dbscan_sparse(Tensor crow, Tensor col, Tensor values, float eps, int min_samples) -> Tensor");

  m.def("cluster_centroids(Tensor features, Tensor labels) -> Tensor");
  // Not `mode`: torch.compile passes the arguments of ops that write on to a function with an argument of that name.
  m.def(
      "update_memory_(Tensor(a!) memory, Tensor features, Tensor labels, float momentum, str update_mode, "
      "bool normalize, Tensor? reference=None, Tensor? groups=None) -> ()");

  m.def(
      "centroid_contrastive_loss(Tensor features, Tensor memory, Tensor labels, float temperature, bool normalize, "
      "str reduction, float label_smoothing, int ignore_index, bool with_gradient, Tensor? temperatures=None, "
      "Tensor? mask=None, Tensor? weights=None) -> (Tensor loss, Tensor gradient)");
  m.def(
      "centroid_contrastive_loss_memory_grad(Tensor upstream, Tensor features, Tensor memory, Tensor labels, "
      "float temperature, bool normalize, str reduction, float label_smoothing, int ignore_index, "
      "Tensor? temperatures=None, Tensor? mask=None, Tensor? weights=None) -> Tensor");

  m.def("segment_mean(Tensor similarities, Tensor labels, int num_segments) -> (Tensor means, Tensor counts)");
  m.def("segment_mean_backward(Tensor upstream, Tensor labels, Tensor counts) -> Tensor");

  m.def(
      "set_contrastive_loss(Tensor logits, Tensor positives, Tensor? keep, Tensor? multiplicity) "
      "-> (Tensor losses, Tensor log_sums, Tensor counts)");
  m.def(
      "set_contrastive_loss_backward(Tensor upstream, Tensor logits, Tensor positives, Tensor? keep, "
      "Tensor? multiplicity, Tensor log_sums, Tensor counts) -> Tensor");

  m.def("enqueue_(Tensor(a!) queue, Tensor(b!)? pointer, Tensor rows) -> ()");

  // Stages of the normalisation: the column sums of several processes are added up between them.
  m.def("sinkhorn_exp(Tensor scores, float epsilon) -> (Tensor exponentials, Tensor sums)");
  m.def("sinkhorn_sums(Tensor exponentials, Tensor factors) -> Tensor");
  m.def("sinkhorn_assign(Tensor exponentials, Tensor factors) -> Tensor");

  m.def("k_reciprocal_rerank(Tensor query, Tensor gallery, int k1, int k2, float lambda_value) -> Tensor");
  // Its two steps: once for all rows, and for the queries row_begin .. row_end - 1.
  m.def(
      "rerank_encoding(Tensor query, Tensor gallery, int k1, int k2) "
      "-> (Tensor rows, Tensor norms, Tensor inverse_farthest, Tensor crow, Tensor col, Tensor values)");
  m.def(
      "reranked_distances(Tensor rows, Tensor norms, Tensor inverse_farthest, Tensor crow, Tensor col, Tensor values, "
      "int queries, float lambda_value, int row_begin, int row_end) -> Tensor");
  m.def(
      "evaluate_ranking(Tensor distances, Tensor query_ids, Tensor gallery_ids, Tensor? query_cams, Tensor? "
      "gallery_cams, int? junk_id=None) "
      "-> (Tensor average_precision, Tensor first_match, Tensor inverse_penalty)");
}

namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

// Only calls of Python's stable ABI: the extension is built for one torch, and works with every Python.
PyObject* build_info(PyObject*, PyObject*) {
#ifdef CCFAST_EMULATE
  PyObject* emulated = Py_True;
#else
  PyObject* emulated = Py_False;
#endif
  return Py_BuildValue("{s:s,s:l,s:O}", "compiler", compiler().c_str(), "cxx_standard", __cplusplus / 100 % 100,
                       "emulated", emulated);
}

PyMethodDef methods[] = {{"build_info", build_info, METH_NOARGS, "What the extension was compiled with."}, {}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "ccfast", nullptr, -1, methods};

}  // namespace

#define CCFAST_JOIN_TWICE(a, b) a##b
#define CCFAST_JOIN(a, b) CCFAST_JOIN_TWICE(a, b)

PyMODINIT_FUNC CCFAST_JOIN(PyInit_, TORCH_EXTENSION_NAME)() {
#ifndef CCFAST_WITH_CUDA
  ccfast::refuse_cuda_tensors();
#endif
  return PyModule_Create(&module);
}
