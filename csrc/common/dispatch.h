// Calls from one op's glue to another op: through the dispatcher, which finds the kernel of the device.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace ccfast {

// Op: a type that <op>/<op>_op.h declares, with the op's name and the C++ signature of its schema.
template <class Op>
auto find_op() {
  return c10::Dispatcher::singleton().findSchemaOrThrow(Op::kName, "").template typed<typename Op::Signature>();
}

}  // namespace ccfast
