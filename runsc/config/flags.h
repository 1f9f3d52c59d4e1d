// Command-line flags from a table, in the dialect that callers of runc use: `--name value`, `--name=value`, the same with
// one dash, one-letter aliases, `--bool` and `--bool=false`. Flags end at the first argument that is none, or at `--`.
//
//   constexpr FlagSpec kFlags[] = {{"all", 'a', FlagKind::kBool, "", "send the signal to every process"}};
//   Flags flags = OK_OR_RETURN(Flags::Parse(arguments, kFlags));
//   if (flags.Bool("all")) … flags.arguments()[0] …
#ifndef CAISSON_RUNSC_CONFIG_FLAGS_H_
#define CAISSON_RUNSC_CONFIG_FLAGS_H_

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runsc/base/status.h"

namespace caisson {

enum class FlagKind {
  kBool,
  kString,
  kInt,
  kList,  // May be given more than once.
};

struct FlagSpec {
  const char* name;
  char short_name;  // 0: none.
  FlagKind kind;
  const char* default_value;  // "" for none.
  const char* help;           // Null: accepted, and not shown.
};

class Flags {
 public:
  // Fails with kInvalidArgument on a flag that is not in the table, a missing value or a malformed one. `--help` and `-h`
  // are always known.
  static absl::StatusOr<Flags> Parse(std::span<const std::string> arguments, std::span<const FlagSpec> table);

  bool Bool(const std::string& name) const;
  std::string String(const std::string& name) const;
  int64_t Int(const std::string& name) const;
  std::vector<std::string> List(const std::string& name) const;
  // Whether it was given.
  bool Has(const std::string& name) const { return values_.contains(name); }
  bool help() const { return help_; }
  const std::vector<std::string>& arguments() const { return arguments_; }

 private:
  const FlagSpec* Find(const std::string& name) const;

  std::span<const FlagSpec> table_;
  std::map<std::string, std::vector<std::string>> values_;
  std::vector<std::string> arguments_;
  bool help_ = false;
};

// "   --bundle value, -b value  path to …\n" for each flag, in two columns.
std::string FormatFlags(std::span<const FlagSpec> table);

}  // namespace caisson

#endif  // CAISSON_RUNSC_CONFIG_FLAGS_H_
