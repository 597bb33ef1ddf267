// nvcc's PTX in the executor: a kernel is a list of decoded instructions.
//
// A register is a row of 32 values of 64 bits, one per lane. Constants also have rows, so that every operand is the
// number of a row: 0 and up in the warp's registers, below 0 in the kernel's constants.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace ptx {

constexpr int kLanes = 32;
using Mask = uint32_t;
constexpr Mask kAllLanes = 0xffffffffu;
using Row = uint64_t[kLanes];

enum class Type : uint8_t {
  kPred,
  kBits8,
  kBits16,
  kBits32,
  kBits64,
  kUnsigned8,
  kUnsigned16,
  kUnsigned32,
  kUnsigned64,
  kSigned8,
  kSigned16,
  kSigned32,
  kSigned64,
  kHalf,
  kFloat,
  kDouble,
  kNone
};
int size_of(Type type);
bool is_signed(Type type);
bool is_float(Type type);

// The class in which a profiler would count an instruction.
enum class Class : uint8_t {
  kFloat,
  kDouble,
  kInteger,
  kCompare,
  kConvert,
  kMove,
  kSpecial,
  kGlobal,
  kShared,
  kAtomic,
  kExchange,
  kBranch,
  kBarrier,
  kCount
};
const char* name_of(Class kind);

enum class Kind : uint8_t {
  kCompute,
  kBranch,
  kExit,
  kBlockBarrier,
  kWarpBarrier,
  kShuffle,
  kVote,
  kMatch,
  kLoad,
  kStore,
  kAtomic,
  kFence,
  kNothing,
  kTrap
};
enum class Space : uint8_t { kGeneric, kGlobal, kShared, kLocal, kParam };

// Parts of instructions' names that modify their function.
enum class Word : uint8_t {
  kAcqRel,
  kAcquire,
  kAdd,
  kAll,
  kAnd,
  kAny,
  kApprox,
  kBallot,
  kBfly,
  kCas,
  kDec,
  kDown,
  kExch,
  kFtz,
  kGlobal,
  kHi,
  kInc,
  kL,
  kLocal,
  kMax,
  kMin,
  kOr,
  kParam,
  kRelaxed,
  kRelease,
  kRm,
  kRmi,
  kRn,
  kRni,
  kRp,
  kRpi,
  kRz,
  kRzi,
  kSat,
  kShared,
  kShiftamt,
  kSync,
  kTo,
  kUp,
  kVolatile,
  kWarp,
  kWide,
  kWrap,
  kXor,
};

struct Warp;
struct Instruction;
// Computes an instruction that only changes the warp's registers.
using Compute = void (*)(Warp& warp, const Instruction& instruction, Mask lanes);

struct Instruction {
  Kind kind = Kind::kNothing;
  Class counted_as = Class::kMove;
  Compute compute = nullptr;
  int guard = 0;  // the predicate's row
  bool guarded = false, guard_negated = false;
  std::vector<int> to, from;  // rows; kIgnored if the result is not used
  Type type = Type::kNone, from_type = Type::kNone;
  std::vector<std::string> parts;  // of the name
  uint64_t words = 0;              // the parts that are a Word, as bits
  // Of setp: its comparison, and its result for NaN.
  uint8_t comparison = 0;
  bool with_nan = false;
  int target = 0;  // of a branch
  // Memory: the row of `address` plus offset.
  Space space = Space::kGeneric;
  int address = 0;
  int64_t offset = 0;
  int values = 1;       // of a vector
  bool strong = false;  // volatile or relaxed: may be concurrent with accesses of other threads
  bool acquire = false, release = false;
  int line = 0;  // of the source, 0 if unknown
  int file = 0;
  std::string text;

  bool has(Word word) const { return words >> static_cast<int>(word) & 1; }
};

constexpr int kIgnored = INT32_MAX;

struct Parameter {
  int64_t offset, bytes;
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<std::array<uint64_t, kLanes>> constants;
  std::map<std::string, int> special;  // special registers in use, and their rows
  int registers = 0;
  std::vector<Parameter> parameters;
  int64_t parameter_bytes = 0;
  int64_t static_shared_bytes = 0, local_bytes = 0;
};

// One .ptx file. Kernels are decoded on first use.
class Module {
 public:
  explicit Module(const std::string& path);
  std::vector<std::string> kernels() const;
  const Kernel& kernel(const std::string& name);
  const std::string& file(int number) const;

 private:
  std::string text_;
  std::map<std::string, size_t> begin_;
  std::map<std::string, std::unique_ptr<Kernel>> decoded_;
  std::map<int, std::string> files_;
  std::set<std::string> dynamic_shared_;  // names of the arrays whose size the launch sets
};

// Sets kind, counted_as and compute from the instruction's name. False if the executor does not know it.
bool decode(Instruction& instruction);

}  // namespace ptx
