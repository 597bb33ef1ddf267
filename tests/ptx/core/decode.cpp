// Decodes an instruction from its name. Instructions of one lane are in arithmetic.cpp, bits.cpp, comparisons.cpp and
// conversions.cpp; those that use memory, other lanes or the order of execution in accesses.cpp, collectives.cpp and
// launch.cpp.
#include "operations.h"

namespace ptx {
namespace {

bool decode_compute(Instruction& in) {
  static const Operations* const tables[] = {&arithmetic_operations(), &bit_operations(), &comparison_operations(),
                                             &conversion_operations()};
  if ((in.parts[0] == "set" || in.parts[0] == "setp") && !find_comparison(in)) return false;
  for (const Operations* table : tables) {
    const auto found = table->find(in.parts[0]);
    if (found == table->end()) continue;
    in.kind = Kind::kCompute;
    in.compute = found->second.find(in);
    in.counted_as = found->second.counted_as(in);
    return in.compute != nullptr;
  }
  return false;
}

Space space_of(const Instruction& in) {
  if (in.has(Word::kGlobal)) return Space::kGlobal;
  if (in.has(Word::kShared)) return Space::kShared;
  if (in.has(Word::kLocal)) return Space::kLocal;
  if (in.has(Word::kParam)) return Space::kParam;
  return Space::kGeneric;
}

bool decode_access(Instruction& in) {
  const std::string& name = in.parts[0];
  in.space = space_of(in);
  in.strong = in.has(Word::kVolatile) || in.has(Word::kRelaxed) || in.has(Word::kAcquire) || in.has(Word::kRelease) ||
              in.has(Word::kAcqRel);
  in.acquire = in.has(Word::kAcquire) || in.has(Word::kAcqRel);
  in.release = in.has(Word::kRelease) || in.has(Word::kAcqRel);
  in.kind = name == "ld" ? Kind::kLoad : name == "st" ? Kind::kStore : Kind::kAtomic;
  in.counted_as = in.space == Space::kParam    ? Class::kMove
                  : in.kind == Kind::kAtomic   ? Class::kAtomic
                  : in.space == Space::kShared ? Class::kShared
                                               : Class::kGlobal;
  if (in.kind == Kind::kAtomic) in.strong = true;
  return true;
}

}  // namespace

int size_of(Type type) {
  static const int sizes[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 0};
  return sizes[static_cast<int>(type)];
}
bool is_signed(Type type) { return type >= Type::kSigned8 && type <= Type::kSigned64; }
bool is_float(Type type) { return type >= Type::kHalf && type <= Type::kDouble; }

const char* name_of(Class kind) {
  static const char* const names[] = {"float32", "float64", "integer", "compare",  "convert", "move",   "special",
                                      "global",  "shared",  "atomic",  "exchange", "branch",  "barrier"};
  return names[static_cast<int>(kind)];
}

bool decode(Instruction& in) {
  const auto set = [&in](Kind kind, Class counted_as) {
    in.kind = kind;
    in.counted_as = counted_as;
    return true;
  };
  const std::string& name = in.parts[0];
  if (name == "bra") return set(Kind::kBranch, Class::kBranch);
  if (name == "ret" || name == "exit") return set(Kind::kExit, Class::kBranch);
  if (name == "bar" && in.has(Word::kWarp)) return set(Kind::kWarpBarrier, Class::kExchange);
  if (name == "bar" || name == "barrier") return in.has(Word::kSync) && set(Kind::kBlockBarrier, Class::kBarrier);
  if (name == "shfl") return set(Kind::kShuffle, Class::kExchange);
  if (name == "vote") return set(Kind::kVote, Class::kExchange);
  if (name == "match") return set(Kind::kMatch, Class::kExchange);
  if (name == "membar" || name == "fence") return set(Kind::kFence, Class::kBarrier);
  if (name == "nanosleep") return set(Kind::kNothing, Class::kBranch);
  if (name == "trap") return set(Kind::kTrap, Class::kBranch);
  if (name == "ld" || name == "st" || name == "atom" || name == "red") return decode_access(in);
  if (name == "cvta") {
    in.space = space_of(in);
    in.compute = change_window;
    return set(Kind::kCompute, Class::kMove);
  }
  return decode_compute(in);
}

}  // namespace ptx
