// Parses the text of a .ptx file into decoded kernels.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>

#include "ptx.h"

namespace ptx {
namespace {

Type type_of(const std::string& part) {
  static const std::map<std::string, Type> types = {
      {"pred", Type::kPred},      {"b8", Type::kBits8},     {"b16", Type::kBits16},     {"b32", Type::kBits32},
      {"b64", Type::kBits64},     {"u8", Type::kUnsigned8}, {"u16", Type::kUnsigned16}, {"u32", Type::kUnsigned32},
      {"u64", Type::kUnsigned64}, {"s8", Type::kSigned8},   {"s16", Type::kSigned16},   {"s32", Type::kSigned32},
      {"s64", Type::kSigned64},   {"f16", Type::kHalf},     {"f32", Type::kFloat},      {"f64", Type::kDouble}};
  const auto found = types.find(part);
  return found == types.end() ? Type::kNone : found->second;
}

// The bit in Instruction::words for a part of an instruction's name, or 0.
uint64_t word_bit(const std::string& part) {
  static const std::map<std::string, Word> words = {
      {"acq_rel", Word::kAcqRel},  {"acquire", Word::kAcquire},
      {"add", Word::kAdd},         {"all", Word::kAll},
      {"and", Word::kAnd},         {"any", Word::kAny},
      {"approx", Word::kApprox},   {"ballot", Word::kBallot},
      {"bfly", Word::kBfly},       {"cas", Word::kCas},
      {"dec", Word::kDec},         {"down", Word::kDown},
      {"exch", Word::kExch},       {"ftz", Word::kFtz},
      {"global", Word::kGlobal},   {"hi", Word::kHi},
      {"inc", Word::kInc},         {"l", Word::kL},
      {"local", Word::kLocal},     {"max", Word::kMax},
      {"min", Word::kMin},         {"or", Word::kOr},
      {"param", Word::kParam},     {"relaxed", Word::kRelaxed},
      {"release", Word::kRelease}, {"rm", Word::kRm},
      {"rmi", Word::kRmi},         {"rn", Word::kRn},
      {"rni", Word::kRni},         {"rp", Word::kRp},
      {"rpi", Word::kRpi},         {"rz", Word::kRz},
      {"rzi", Word::kRzi},         {"sat", Word::kSat},
      {"shared", Word::kShared},   {"shiftamt", Word::kShiftamt},
      {"sync", Word::kSync},       {"to", Word::kTo},
      {"up", Word::kUp},           {"volatile", Word::kVolatile},
      {"warp", Word::kWarp},       {"wide", Word::kWide},
      {"wrap", Word::kWrap},       {"xor", Word::kXor},
  };
  const auto found = words.find(part);
  return found == words.end() ? 0 : uint64_t{1} << static_cast<int>(found->second);
}

std::string trim(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> pieces;
  std::stringstream stream(text);
  for (std::string piece; std::getline(stream, piece, separator);) pieces.push_back(trim(piece));
  return pieces;
}

// Splits "%r1, {%r2, %r3}, [%rd4+8]" at the commas outside brackets.
std::vector<std::string> operands_of(const std::string& text) {
  std::vector<std::string> operands;
  std::string current;
  int depth = 0;
  for (const char c : text) {
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    if (c == ',' && depth == 0) {
      operands.push_back(trim(current));
      current.clear();
    } else {
      current += c;
    }
  }
  if (!trim(current).empty()) operands.push_back(trim(current));
  return operands;
}

std::string with_single_spaces(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const bool space = std::isspace(static_cast<unsigned char>(c));
    if (!space || (!result.empty() && result.back() != ' ')) result += space ? ' ' : c;
  }
  return result;
}

std::string without_comments(const std::string& text) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    if (text.compare(at, 2, "//") == 0) {
      at = std::min(text.find('\n', at), text.size());
    } else if (text.compare(at, 2, "/*") == 0) {
      const size_t end = text.find("*/", at);
      at = end == std::string::npos ? text.size() : end + 2;
    } else {
      result += text[at++];
    }
  }
  return result;
}

bool is_special(const std::string& name) {
  static const char* const prefixes[] = {"%tid.", "%ntid.", "%ctaid.", "%nctaid.", "%laneid", "%warpid", "%lanemask_"};
  return std::any_of(std::begin(prefixes), std::end(prefixes),
                     [&](const char* prefix) { return name.compare(0, std::strlen(prefix), prefix) == 0; });
}

class KernelParser {
 public:
  KernelParser(const std::string& name, const std::set<std::string>& dynamic_shared)
      : kernel_(std::make_unique<Kernel>()), dynamic_shared_(dynamic_shared) {
    kernel_->name = name;
  }

  std::unique_ptr<Kernel> parse(const std::string& parameters, const std::string& body) {
    parse_parameters(parameters);
    size_t at = 0;
    while (next_statement(body, at)) {
    }
    for (auto& [index, label] : branches_) {
      const auto target = labels_.find(label);
      if (target == labels_.end()) fail("no label " + label, kernel_->code[index].text);
      kernel_->code[index].target = target->second;
    }
    // A label may be at the end.
    Instruction end;
    end.kind = Kind::kExit;
    end.text = "(end)";
    kernel_->code.push_back(end);
    return std::move(kernel_);
  }

 private:
  [[noreturn]] void fail(const std::string& what, const std::string& text) const {
    throw std::runtime_error("PTX of " + kernel_->name + ": " + what + ": " + text);
  }

  void parse_parameters(const std::string& text) {
    static const std::regex form(R"(\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?)");
    int64_t offset = 0;
    for (std::sregex_iterator it(text.begin(), text.end(), form), end; it != end; ++it) {
      const std::smatch& match = *it;
      const int64_t size = size_of(type_of(match[2]));
      const int64_t align = match[1].matched ? std::stoll(match[1]) : size;
      const int64_t bytes = match[4].matched ? std::stoll(match[4]) * size : size;
      offset = (offset + align - 1) / align * align;
      symbols_[match[3]] = offset;
      kernel_->parameters.push_back({offset, bytes});
      offset += bytes;
    }
    kernel_->parameter_bytes = offset;
  }

  // A variable of the kernel: .shared .align 16 .b8 name[64]
  void parse_variable(const std::string& text) {
    static const std::regex form(R"(\.(shared|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?.*)");
    std::smatch match;
    if (!std::regex_match(text, match, form)) fail("not known to the executor", text);
    int64_t& used = match[1] == "shared" ? kernel_->static_shared_bytes : kernel_->local_bytes;
    const int64_t size = size_of(type_of(match[3])), align = match[2].matched ? std::stoll(match[2]) : size;
    used = (used + align - 1) / align * align;
    symbols_[match[4]] = used;
    used += size * (match[5].matched ? std::stoll(match[5]) : 1);
  }

  bool next_statement(const std::string& body, size_t& at) {
    while (at < body.size() && (std::strchr(" \t\r\n{};", body[at]))) ++at;
    if (at == body.size()) return false;
    const auto until = [&](const char* stop) {
      const size_t end = std::min(body.find_first_of(stop, at), body.size());
      std::string text = trim(body.substr(at, end - at));
      at = end;
      return text;
    };
    if (body.compare(at, 5, ".loc ") == 0 || body.compare(at, 5, ".loc\t") == 0) {
      std::sscanf(until("\n").c_str() + 5, "%d %d", &file_, &line_);
      return true;
    }
    if (body[at] == '.') {
      const std::string text = until(";");
      if (text.compare(0, 7, ".shared") == 0 || text.compare(0, 6, ".local") == 0)
        parse_variable(text);
      else if (text.compare(0, 4, ".reg") != 0 && text.compare(0, 7, ".pragma") != 0)
        fail("not known to the executor", text);
      return true;
    }
    size_t end = at;
    while (end < body.size() && (std::isalnum(static_cast<unsigned char>(body[end])) || std::strchr("$_%", body[end])))
      ++end;
    if (end < body.size() && body[end] == ':') {
      labels_[body.substr(at, end - at)] = static_cast<int>(kernel_->code.size());
      at = end + 1;
      return true;
    }
    std::string text = until(";");
    while (!text.empty() && text.back() == '}' &&
           std::count(text.begin(), text.end(), '{') < std::count(text.begin(), text.end(), '}'))
      text = trim(text.substr(0, text.size() - 1));
    parse_instruction(text);
    return true;
  }

  void parse_instruction(const std::string& text) {
    Instruction instruction;
    instruction.text = with_single_spaces(text);
    instruction.line = line_;
    instruction.file = file_;
    std::string rest = instruction.text;
    if (rest[0] == '@') {
      instruction.guarded = true;
      instruction.guard_negated = rest[1] == '!';
      const size_t space = rest.find(' ');
      instruction.guard =
          row(rest.substr(instruction.guard_negated ? 2 : 1, space - (instruction.guard_negated ? 2 : 1)));
      rest = trim(rest.substr(space));
    }
    const size_t space = std::min(rest.find(' '), rest.size());
    instruction.parts = split(rest.substr(0, space), '.');
    for (const std::string& part : instruction.parts) {
      instruction.words |= word_bit(part);
      const Type type = type_of(part);
      if (type == Type::kNone) continue;
      instruction.from_type = type;  // the last one
      if (instruction.type == Type::kNone) instruction.type = type;
    }
    if (!decode(instruction)) fail("not known to the executor", instruction.text);
    parse_operands(instruction, operands_of(rest.substr(space)));
    kernel_->code.push_back(std::move(instruction));
  }

  void parse_operands(Instruction& instruction, const std::vector<std::string>& operands) {
    if (instruction.kind == Kind::kBranch) {
      branches_.emplace_back(kernel_->code.size(), operands.at(0));
      return;
    }
    const std::string& name = instruction.parts[0];
    const bool no_result = name == "st" || name == "red" || name == "bar" || name == "barrier" ||
                           instruction.kind == Kind::kFence || instruction.kind == Kind::kTrap || name == "nanosleep";
    for (size_t n = 0; n < operands.size(); ++n) {
      const std::string& operand = operands[n];
      if (operand[0] == '[') {
        parse_address(instruction, operand.substr(1, operand.size() - 2));
        continue;
      }
      std::vector<int>& rows = n == 0 && !no_result ? instruction.to : instruction.from;
      if (operand[0] == '{') {
        for (const std::string& part : split(operand.substr(1, operand.size() - 2), ',')) rows.push_back(row(part));
        instruction.values = static_cast<int>(rows.size());
      } else {
        for (const std::string& part : split(operand, '|')) rows.push_back(row(part));
      }
    }
  }

  void parse_address(Instruction& instruction, const std::string& text) {
    const size_t plus = text.find('+');
    instruction.address = row(trim(text.substr(0, plus)));
    if (plus != std::string::npos) instruction.offset = std::stoll(text.substr(plus + 1));
  }

  int constant(uint64_t value) {
    const auto [place, added] = constants_.try_emplace(value, ~static_cast<int>(kernel_->constants.size()));
    if (added) {
      kernel_->constants.emplace_back();
      kernel_->constants.back().fill(value);
    }
    return place->second;
  }

  // The row of an operand: a register, a number, or the address of a variable.
  int row(std::string text) {
    if (text == "_") return kIgnored;
    const bool negated = text[0] == '!';
    if (negated) fail("a negated operand", text);
    if (text[0] == '%') {
      const auto [place, added] = registers_.try_emplace(text, kernel_->registers);
      if (added) {
        ++kernel_->registers;
        if (is_special(text)) kernel_->special[text] = place->second;
      }
      return place->second;
    }
    if (text.compare(0, 2, "0f") == 0 || text.compare(0, 2, "0F") == 0 || text.compare(0, 2, "0d") == 0 ||
        text.compare(0, 2, "0D") == 0)
      return constant(std::strtoull(text.c_str() + 2, nullptr, 16));
    const char* digits = text.c_str() + (text[0] == '-');
    if (std::isdigit(static_cast<unsigned char>(*digits))) {
      const uint64_t magnitude = std::strtoull(digits, nullptr, 0);
      return constant(text[0] == '-' ? 0 - magnitude : magnitude);
    }
    if (text == "true" || text == "false") return constant(text == "true");
    const auto symbol = symbols_.find(text);
    if (symbol != symbols_.end()) return constant(static_cast<uint64_t>(symbol->second));
    if (!dynamic_shared_.count(text)) fail("a variable that the executor does not know", text);
    return constant(static_cast<uint64_t>((kernel_->static_shared_bytes + 15) / 16 * 16));
  }

  std::unique_ptr<Kernel> kernel_;
  const std::set<std::string>& dynamic_shared_;
  std::map<std::string, int64_t> symbols_;
  std::map<std::string, int> registers_, labels_;
  std::map<uint64_t, int> constants_;
  std::vector<std::pair<size_t, std::string>> branches_;
  int file_ = 0, line_ = 0;
};

}  // namespace

Module::Module(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) throw std::runtime_error("cannot read " + path);
  std::stringstream all;
  all << stream.rdbuf();
  text_ = without_comments(all.str());
  const std::string entry = ".entry ";
  for (size_t at = text_.find(entry); at != std::string::npos; at = text_.find(entry, at + 1)) {
    const size_t name = at + entry.size(), end = text_.find_first_of("( \n", name);
    begin_[text_.substr(name, end - name)] = end;
  }
  static const std::regex name(R"(\.extern \.shared [^;\n]* ([\w$]+)\[\];)");
  const std::string head = text_.substr(0, text_.find(entry));  // where the variables of the file are declared
  for (std::sregex_iterator it(head.begin(), head.end(), name), end; it != end; ++it) dynamic_shared_.insert((*it)[1]);
  for (size_t at = text_.find(".file"); at != std::string::npos; at = text_.find(".file", at + 1)) {
    const size_t open = text_.find('"', at), close = text_.find('"', open + 1);
    files_[std::atoi(text_.c_str() + at + 5)] = text_.substr(open + 1, close - open - 1);
  }
}

std::vector<std::string> Module::kernels() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : begin_) names.push_back(name);
  return names;
}

const std::string& Module::file(int number) const {
  static const std::string unknown = "";
  const auto found = files_.find(number);
  return found == files_.end() ? unknown : found->second;
}

const Kernel& Module::kernel(const std::string& name) {
  std::unique_ptr<Kernel>& kernel = decoded_[name];
  if (kernel) return *kernel;
  const size_t open = text_.find('(', begin_.at(name)), close = text_.find(')', open), body = text_.find('{', close);
  size_t end = body;
  for (int depth = 0; end < text_.size(); ++end) {
    depth += (text_[end] == '{') - (text_[end] == '}');
    if (depth == 0) break;
  }
  kernel = KernelParser(name, dynamic_shared_)
               .parse(text_.substr(open, close - open), text_.substr(body + 1, end - body - 1));
  return *kernel;
}

}  // namespace ptx
