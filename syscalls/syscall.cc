#include "syscalls/syscall.h"

#include <fcntl.h>
#include <stdio.h>

namespace caisson {
namespace {

std::string Printf(const char* format, uint64_t value) {
  char text[32];
  snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

std::string FormatFlags(uint64_t value, std::span<const FlagName> names) {
  std::string out;
  for (const FlagName& flag : names) {
    if (flag.value == 0 || (value & flag.value) != flag.value) continue;
    if (!out.empty()) out += '|';
    out += flag.name;
    value &= ~flag.value;
  }
  if (value != 0 || out.empty()) {
    if (!out.empty()) out += '|';
    out += Printf("%#lx", value);
  }
  return out;
}

std::string Hex::Format() const { return Printf("%#lx", value); }
std::string Mode::Format() const { return Printf("0%lo", value); }

std::string OpenFlags::Format() const {
  static constexpr FlagName kNames[] = {
      {O_WRONLY, "O_WRONLY"},       {O_RDWR, "O_RDWR"},         {O_CREAT, "O_CREAT"},         {O_EXCL, "O_EXCL"},
      {O_NOCTTY, "O_NOCTTY"},       {O_TRUNC, "O_TRUNC"},       {O_APPEND, "O_APPEND"},       {O_NONBLOCK, "O_NONBLOCK"},
      {O_TMPFILE, "O_TMPFILE"},     {O_DIRECTORY, "O_DIRECTORY"}, {O_NOFOLLOW, "O_NOFOLLOW"}, {O_CLOEXEC, "O_CLOEXEC"},
      {O_PATH, "O_PATH"},           {O_SYNC, "O_SYNC"},         {O_DSYNC, "O_DSYNC"},         {O_DIRECT, "O_DIRECT"},
      {O_NOATIME, "O_NOATIME"},     {O_ASYNC, "O_ASYNC"},
  };
  if ((value & O_ACCMODE) == O_RDONLY && value == 0) return "O_RDONLY";
  std::string rest = FormatFlags(static_cast<unsigned>(value), kNames);
  return (value & O_ACCMODE) == O_RDONLY ? "O_RDONLY|" + rest : rest;
}

namespace internal {

std::string FormatInteger(int64_t value) { return std::to_string(value); }
std::string FormatUnsigned(uint64_t value) { return std::to_string(value); }
std::string FormatAddress(uint64_t value) { return value ? Printf("%#lx", value) : "NULL"; }
std::string FormatFd(int fd) { return fd == AT_FDCWD ? "AT_FDCWD" : std::to_string(fd); }

std::string FormatString(Task& task, UserString text) {
  if (text.null()) return "NULL";
  constexpr size_t kShown = 256;
  Result<std::string> copied = task.CopyInString(text, abi::kPathMax);
  if (!copied.ok()) return Printf("%#lx", text.address);
  std::string out = "\"";
  for (unsigned char c : copied->substr(0, kShown)) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20 || c >= 0x7f) {
      out += Printf("\\x%02lx", c);
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + (copied->size() > kShown ? "\"..." : "\"");
}

}  // namespace internal
}  // namespace caisson
