// Typed system-call handlers. A handler is a function of a Task and typed parameters that returns a Result; the adapter
// here decodes raw registers by parameter type and formats the arguments for strace from the same types.
//
//   Result<int> SysDup(Task& task, Fd old_fd);
//   … Full<SysDup>(32, "dup") in table.cc.
//
// Parameter types: integers and enums (truncated as the kernel's prototype would), Fd, UserPtr<T>, UserString, and types
// with `static T FromArgument(uint64_t)` (flag sets; see Flags below) and `std::string Format() const`.
#ifndef CAISSON_SYSCALLS_SYSCALL_H_
#define CAISSON_SYSCALLS_SYSCALL_H_

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "sentry/kernel/syscall_entry.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/user_ptr.h"

namespace caisson {

// One bit (or value) of a flag argument, for strace.
struct FlagName {
  uint64_t value;
  const char* name;
};
std::string FormatFlags(uint64_t value, std::span<const FlagName> names);

// A raw word whose strace form is hexadecimal.
struct Hex {
  uint64_t value = 0;
  operator uint64_t() const { return value; }  // NOLINT
  static Hex FromArgument(uint64_t raw) { return {raw}; }
  std::string Format() const;
};
// An octal mode.
struct Mode {
  uint32_t value = 0;
  static Mode FromArgument(uint64_t raw) { return {static_cast<uint32_t>(raw)}; }
  std::string Format() const;
};
// open(2)'s flags.
struct OpenFlags {
  int value = 0;
  static OpenFlags FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};

namespace internal {

template <typename T>
concept CustomArgument = requires(uint64_t raw, const T& t) {
  { T::FromArgument(raw) } -> std::same_as<T>;
  { t.Format() } -> std::convertible_to<std::string>;
};

template <typename T>
struct IsUserPtr : std::false_type {};
template <typename T>
struct IsUserPtr<UserPtr<T>> : std::true_type {};

template <typename T>
T DecodeArgument(uint64_t raw) {
  if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    return static_cast<T>(raw);
  } else if constexpr (std::is_same_v<T, Fd>) {
    return Fd{static_cast<int>(raw)};
  } else if constexpr (IsUserPtr<T>::value || std::is_same_v<T, UserString>) {
    return T{raw};
  } else {
    static_assert(CustomArgument<T>, "a handler's parameter type must be decodable");
    return T::FromArgument(raw);
  }
}

std::string FormatInteger(int64_t value);
std::string FormatUnsigned(uint64_t value);
std::string FormatAddress(uint64_t value);
std::string FormatFd(int fd);
std::string FormatString(Task& task, UserString text);

template <typename T>
std::string FormatArgument(Task& task, uint64_t raw) {
  if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
    return FormatInteger(static_cast<T>(raw));
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    return FormatUnsigned(static_cast<uint64_t>(static_cast<T>(raw)));
  } else if constexpr (std::is_same_v<T, Fd>) {
    return FormatFd(static_cast<int>(raw));
  } else if constexpr (std::is_same_v<T, UserString>) {
    return FormatString(task, UserString{raw});
  } else if constexpr (IsUserPtr<T>::value) {
    return FormatAddress(raw);
  } else {
    return T::FromArgument(raw).Format();
  }
}

inline int64_t ToReturnValue(Fd fd) { return fd.number; }
template <typename T>
  requires(std::is_integral_v<T>)
int64_t ToReturnValue(T value) {
  return static_cast<int64_t>(value);
}

template <auto Handler>
struct Adapter;

template <typename R, typename... Args, Result<R> (*Handler)(Task&, Args...)>
struct Adapter<Handler> {
  static_assert(sizeof...(Args) <= 6);
  static Result<int64_t> Call(Task& task, const SyscallArgs& args) {
    return CallWith(task, args, std::index_sequence_for<Args...>{});
  }
  static std::string Format(Task& task, const SyscallArgs& args) {
    return FormatWith(task, args, std::index_sequence_for<Args...>{});
  }

 private:
  template <size_t... I>
  static Result<int64_t> CallWith(Task& task, [[maybe_unused]] const SyscallArgs& args, std::index_sequence<I...>) {
    Result<R> result = Handler(task, DecodeArgument<std::remove_cvref_t<Args>>(args[I])...);
    if (!result.ok()) return result.error();
    if constexpr (std::is_void_v<R>) {
      return int64_t{0};
    } else {
      return ToReturnValue(result.value());
    }
  }
  template <size_t... I>
  static std::string FormatWith(Task& task, [[maybe_unused]] const SyscallArgs& args, std::index_sequence<I...>) {
    std::string out;
    ((out += (I ? ", " : "") + FormatArgument<std::remove_cvref_t<Args>>(task, args[I])), ...);
    return out;
  }
};

}  // namespace internal

template <auto Handler>
constexpr SyscallEntry Full(int number, const char* name) {
  return {number, name, &internal::Adapter<Handler>::Call, &internal::Adapter<Handler>::Format, SyscallSupport::kFull, 0, ""};
}
template <auto Handler>
constexpr SyscallEntry Partial(int number, const char* name, const char* note) {
  return {number, name, &internal::Adapter<Handler>::Call, &internal::Adapter<Handler>::Format, SyscallSupport::kPartial, 0, note};
}
// Answers `errnum`, and is logged once per sandbox.
constexpr SyscallEntry Unimplemented(int number, const char* name, int errnum = ENOSYS, const char* note = "") {
  return {number, name, nullptr, nullptr, SyscallSupport::kUnimplemented, errnum, note};
}

// The table, sorted by number (syscalls/table.cc).
SyscallTable LinuxSyscallTable();

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_SYSCALL_H_
