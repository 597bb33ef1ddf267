// How cuBLAS may add the products of float16 matrices: torch's settings, on which the error of a score depends.
#pragma once

#include <ATen/Context.h>

#include <mutex>
#include <type_traits>

namespace ccfast::knn {

// Whether the sums themselves may be in float16; then there is no useful bound on the error.
template <class Context>
auto sums_are_float16(const Context& context, int) -> decltype(context.allowFP16AccumulationCuBLAS()) {
  return context.allowFP16AccumulationCuBLAS();
}
template <class Context>
bool sums_are_float16(const Context&, long) {  // before torch 2.7
  return false;
}
inline bool sums_are_float16() { return sums_are_float16(at::globalContext(), 0); }

// While one exists, a product that is split into parts adds them in float32: by default torch lets cuBLAS round every
// part to float16, which no bound covers, as their number is not known. Meanwhile the products of other threads are
// more exact, and at worst slower.
class PartsInSingle {
 public:
  PartsInSingle() {
    const std::lock_guard<std::mutex> lock(state().mutex);
    if (state().living++ > 0) return;
    state().before = at::globalContext().allowFP16ReductionCuBLAS();
    at::globalContext().setAllowFP16ReductionCuBLAS(false);
  }
  ~PartsInSingle() {
    const std::lock_guard<std::mutex> lock(state().mutex);
    if (--state().living == 0) restore(at::globalContext(), state().before);
  }
  PartsInSingle(const PartsInSingle&) = delete;
  PartsInSingle& operator=(const PartsInSingle&) = delete;

 private:
  using Setting = decltype(std::declval<at::Context>().allowFP16ReductionCuBLAS());
  struct State {
    std::mutex mutex;
    int living = 0;
    Setting before;
  };
  static State& state() {
    static State shared;
    return shared;
  }
  // The setting is a bool, or since torch 2.9 one of: rounded parts, parts in float32, no parts.
  template <class Context, class Value>
  static void restore(Context& context, Value before) {
    if constexpr (std::is_same_v<Value, bool>) {
      context.setAllowFP16ReductionCuBLAS(before);
    } else {
      context.setAllowFP16ReductionCuBLAS(static_cast<int>(before) == 0, static_cast<int>(before) != 2);
    }
  }
};

}  // namespace ccfast::knn
