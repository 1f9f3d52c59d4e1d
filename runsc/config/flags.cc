#include "runsc/config/flags.h"

#include <algorithm>

#include "runsc/base/files.h"
#include "sentry/base/check.h"

namespace caisson {
namespace {

std::optional<bool> ParseBool(const std::string& text) {
  if (text == "true" || text == "1" || text == "t" || text == "TRUE" || text == "True") return true;
  if (text == "false" || text == "0" || text == "f" || text == "FALSE" || text == "False") return false;
  return std::nullopt;
}

}  // namespace

const FlagSpec* Flags::Find(const std::string& name) const {
  for (const FlagSpec& flag : table_) {
    if (name == flag.name || (name.size() == 1 && name[0] == flag.short_name)) return &flag;
  }
  return nullptr;
}

absl::StatusOr<Flags> Flags::Parse(std::span<const std::string> arguments, std::span<const FlagSpec> table) {
  Flags flags;
  flags.table_ = table;
  size_t i = 0;
  for (; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument.size() < 2 || argument[0] != '-') break;
    if (argument == "--") {
      ++i;
      break;
    }
    std::string name = argument.substr(argument[1] == '-' ? 2 : 1);
    std::optional<std::string> value;
    if (size_t equals = name.find('='); equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    }
    if (name == "help" || name == "h") {
      flags.help_ = true;
      continue;
    }
    const FlagSpec* flag = flags.Find(name);
    if (flag == nullptr) return absl::InvalidArgumentError("flag provided but not defined: -" + name);
    if (flag->kind == FlagKind::kBool) {
      if (!value) value = "true";
      if (!ParseBool(*value)) {
        return absl::InvalidArgumentError("invalid boolean value \"" + *value + "\" for -" + name);
      }
    } else if (!value) {
      if (++i == arguments.size()) return absl::InvalidArgumentError("flag needs an argument: -" + name);
      value = arguments[i];
    }
    if (flag->kind == FlagKind::kInt && !ParseInt(*value)) {
      return absl::InvalidArgumentError("invalid value \"" + *value + "\" for flag -" + name + ": not a number");
    }
    std::vector<std::string>& values = flags.values_[flag->name];
    if (flag->kind != FlagKind::kList) values.clear();
    values.push_back(*value);
  }
  flags.arguments_.assign(arguments.begin() + std::min(i, arguments.size()), arguments.end());
  return flags;
}

std::string Flags::String(const std::string& name) const {
  const FlagSpec* flag = Find(name);
  CHECK(flag != nullptr);  // Code asks only for what its own table holds.
  auto found = values_.find(flag->name);
  return found == values_.end() ? flag->default_value : found->second.back();
}

bool Flags::Bool(const std::string& name) const { return ParseBool(String(name)).value_or(false); }
int64_t Flags::Int(const std::string& name) const { return ParseInt(String(name)).value_or(0); }

std::vector<std::string> Flags::List(const std::string& name) const {
  auto found = values_.find(name);
  return found == values_.end() ? std::vector<std::string>() : found->second;
}

std::string FormatFlags(std::span<const FlagSpec> table) {
  std::vector<std::pair<std::string, std::string>> rows;
  size_t width = 0;
  for (const FlagSpec& flag : table) {
    if (flag.help == nullptr) continue;
    std::string value = flag.kind == FlagKind::kBool ? "" : " value";
    std::string left = std::string("--") + flag.name + value;
    if (flag.short_name != 0) left += std::string(", -") + flag.short_name + value;
    std::string right = flag.help;
    if (flag.default_value[0] != 0) {
      bool quote = flag.kind == FlagKind::kString;
      right += std::string(" (default: ") + (quote ? "\"" : "") + flag.default_value + (quote ? "\"" : "") + ")";
    }
    width = std::max(width, left.size());
    rows.emplace_back(std::move(left), std::move(right));
  }
  std::string text;
  for (const auto& [left, right] : rows) {
    text += "   " + left + std::string(width - left.size() + 2, ' ') + right + "\n";
  }
  return text;
}

}  // namespace caisson
