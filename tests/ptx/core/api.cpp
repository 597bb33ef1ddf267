// Called from Python. Functions that can fail return null or a message.
#include <exception>
#include <sstream>

#include "launch.h"

namespace ptx {
namespace {

struct Bound {
  Module* module;
  std::string kernel;
};

struct Record {
  const Kernel* kernel;
  const Module* module;
  uint64_t launches = 0, blocks = 0, warps = 0;
  std::vector<Counts> counts;
};

struct State {
  Allocations allocations;
  Options options;
  std::vector<std::unique_ptr<Module>> modules;
  std::map<const void*, Bound> bound;     // by the address of the host's function
  std::map<std::string, Record> records;  // by the launch's name and the kernel's
  std::string text;                       // the last returned text
};

State& state() {
  static State instance;
  return instance;
}

template <class Function>
const char* guarded(const Function& function) {
  try {
    function();
    return nullptr;
  } catch (const std::exception& error) {
    state().text = error.what();
    return state().text.c_str();
  }
}

void launch(const std::string& name, Module& module, const std::string& kernel_name, const Shape& shape,
            const void* const* arguments) {
  const Kernel& kernel = module.kernel(kernel_name);
  std::vector<uint8_t> parameters(static_cast<size_t>(kernel.parameter_bytes));
  for (size_t n = 0; n < kernel.parameters.size(); ++n)
    std::memcpy(&parameters[static_cast<size_t>(kernel.parameters[n].offset)], arguments[n],
                static_cast<size_t>(kernel.parameters[n].bytes));
  Record& record = state().records[name + "\n" + kernel_name];
  record.kernel = &kernel;
  record.module = &module;
  record.counts.resize(kernel.code.size());
  ++record.launches;
  record.blocks += static_cast<uint64_t>(shape.grid);
  record.warps += static_cast<uint64_t>(shape.grid * ((shape.threads + kLanes - 1) / kLanes));
  Launch(kernel, module, shape, state().options, state().allocations, std::move(parameters), record.counts).run();
}

// One line per kernel, each followed by one line per executed instruction. Fields are separated by tabs.
void write_record(std::ostream& out, const std::string& key, const Record& record) {
  const size_t split = key.find('\n');
  out << "kernel\t" << key.substr(0, split) << '\t' << key.substr(split + 1) << '\t' << record.launches << '\t'
      << record.blocks << '\t' << record.warps << '\n';
  for (size_t at = 0; at < record.counts.size(); ++at) {
    const Instruction& in = record.kernel->code[at];
    const Counts& counts = record.counts[at];
    if (!counts.executed) continue;
    out << name_of(in.counted_as) << '\t' << counts.executed << '\t' << counts.lanes << '\t' << counts.diverged << '\t'
        << counts.requests << '\t' << counts.sectors << '\t' << counts.wavefronts << '\t'
        << record.module->file(in.file) << '\t' << in.line << '\t' << in.text << '\n';
  }
}

}  // namespace
}  // namespace ptx

extern "C" {

using namespace ptx;

// Number of the module; if negative, ptx_message has the reason.
int ptx_load(const char* path) {
  const char* error = guarded([&] { state().modules.push_back(std::make_unique<Module>(path)); });
  return error ? -1 : static_cast<int>(state().modules.size()) - 1;
}

const char* ptx_message() { return state().text.c_str(); }

// Names of a module's kernels, one per line.
const char* ptx_kernels(int module) {
  state().text.clear();
  for (const std::string& name : state().modules.at(static_cast<size_t>(module))->kernels())
    state().text += name + "\n";
  return state().text.c_str();
}

// Launches of the host function at this address run this kernel.
void ptx_bind(const void* host_kernel, int module, const char* kernel) {
  state().bound[host_kernel] = {state().modules.at(static_cast<size_t>(module)).get(), kernel};
}

void ptx_configure(int64_t seed, int resident_blocks, int races) {
  state().options.seed = seed;
  state().options.resident_blocks = resident_blocks;
  state().options.races = races != 0;
}

void ptx_add_allocation(uint64_t begin, uint64_t bytes) { state().allocations.add(begin, bytes); }
void ptx_remove_allocation(uint64_t begin) { state().allocations.remove(begin); }

// As emulation::Launcher.
const char* ptx_launch(const char* name, const void* host_kernel, int64_t grid, int block, size_t shared_bytes,
                       const void* const* arguments) {
  return guarded([&] {
    const auto found = state().bound.find(host_kernel);
    if (found == state().bound.end()) throw LaunchError("nvcc's PTX has no such kernel");
    launch(name, *found->second.module, found->second.kernel, {grid, block, shared_bytes}, arguments);
  });
}

const char* ptx_run(int module, const char* kernel, int64_t grid, int block, size_t shared_bytes,
                    const void* const* arguments) {
  return guarded([&] {
    launch(kernel, *state().modules.at(static_cast<size_t>(module)), kernel, {grid, block, shared_bytes}, arguments);
  });
}

const char* ptx_counts() {
  std::ostringstream out;
  for (const auto& [key, record] : state().records) write_record(out, key, record);
  state().text = out.str();
  return state().text.c_str();
}

void ptx_clear_counts() { state().records.clear(); }
}
