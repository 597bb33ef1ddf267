// Reports the memory of torch's CPU tensors to the executor while it is installed. A separate library: the only part
// that needs torch's headers.
#include <c10/core/CPUAllocator.h>

#include <cstdint>

namespace {

using Add = void (*)(uint64_t begin, uint64_t bytes);
using Remove = void (*)(uint64_t begin);

Add add = nullptr;
Remove remove_ = nullptr;
c10::Allocator* torchs_own = nullptr;

void release(void* memory) {
  remove_(reinterpret_cast<uint64_t>(memory));
  torchs_own->raw_deallocate(memory);
}

// The memory is its own context, as with torch's allocator: oneDNN requests memory without a DataPtr.
struct Watched final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = torchs_own->raw_allocate(bytes);
    if (memory) add(reinterpret_cast<uint64_t>(memory), bytes);
    return {memory, memory, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

Watched watched;

}  // namespace

extern "C" void ptx_watch_torch(Add chosen_add, Remove chosen_remove) {
  if (torchs_own) return;
  add = chosen_add;
  remove_ = chosen_remove;
  torchs_own = c10::GetCPUAllocator();
  c10::SetCPUAllocator(&watched, 255);
}
