// Result<T> and Errno: how failure travels wherever a guest can see it.
//
//   Result<int> Half(int n) {
//     if (n % 2) return Errno(EINVAL);
//     return n / 2;
//   }
//   Result<int> Quarter(int n) { return Half(TRY(Half(n))); }
#ifndef CAISSON_SENTRY_BASE_RESULT_H_
#define CAISSON_SENTRY_BASE_RESULT_H_

#include <errno.h>

#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

#include "sentry/base/check.h"

namespace caisson {

// Codes that never reach a guest: they tell signal delivery how an interrupted call goes on (Linux's
// include/linux/errno.h). The task's run loop turns them into EINTR or a restart.
inline constexpr int kErestartSys = 512;           // Restart if the handler has SA_RESTART or none runs.
inline constexpr int kErestartNoIntr = 513;        // Always restart.
inline constexpr int kErestartNoHand = 514;        // Restart only if no handler runs.
inline constexpr int kErestartRestartBlock = 516;  // As NoHand, through restart_syscall(2).

// An errno value (positive) and where it was made.
class [[nodiscard]] Errno {
 public:
  explicit constexpr Errno(int code, const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : file_(file), line_(line), code_(code) {}
  constexpr int code() const { return code_; }
  constexpr const char* file() const { return file_; }
  constexpr int line() const { return line_; }
  constexpr bool IsRestart() const { return code_ >= kErestartSys && code_ <= kErestartRestartBlock; }
  friend constexpr bool operator==(Errno a, Errno b) { return a.code_ == b.code_; }
  friend constexpr bool operator==(Errno a, int code) { return a.code_ == code; }

 private:
  const char* file_;
  int line_;
  int code_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : ok_(true) { new (&value_) T(std::move(value)); }  // NOLINT: implicit by design.
  template <typename U>
    requires(std::is_convertible_v<U &&, T> && !std::is_same_v<std::remove_cvref_t<U>, T> &&
             !std::is_same_v<std::remove_cvref_t<U>, Errno> && !std::is_same_v<std::remove_cvref_t<U>, Result>)
  Result(U&& value) : ok_(true) { new (&value_) T(std::forward<U>(value)); }  // NOLINT
  Result(Errno error) : error_(error), ok_(false) {}                          // NOLINT
  Result(Result&& other) noexcept : ok_(other.ok_) {
    if (ok_) {
      new (&value_) T(std::move(other.value_));
    } else {
      new (&error_) Errno(other.error_);
    }
  }
  Result(const Result& other)
    requires std::is_copy_constructible_v<T>
      : ok_(other.ok_) {
    if (ok_) {
      new (&value_) T(other.value_);
    } else {
      new (&error_) Errno(other.error_);
    }
  }
  Result& operator=(Result&& other) noexcept {
    if (this != &other) {
      this->~Result();
      new (this) Result(std::move(other));
    }
    return *this;
  }
  ~Result() {
    if (ok_) value_.~T();
  }

  bool ok() const { return ok_; }
  explicit operator bool() const = delete;  // A Result<bool> would be read wrongly.
  Errno error() const {
    CHECK(!ok_);
    return error_;
  }
  // 0 when ok.
  int error_code() const { return ok_ ? 0 : error_.code(); }
  T& value() & {
    CHECK(ok_);
    return value_;
  }
  const T& value() const& {
    CHECK(ok_);
    return value_;
  }
  T&& value() && {
    CHECK(ok_);
    return std::move(value_);
  }
  T value_or(T other) && { return ok_ ? std::move(value_) : std::move(other); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  union {
    T value_;
    Errno error_;
  };
  bool ok_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  Result() : error_(0) {}
  Result(Errno error) : error_(error) {}  // NOLINT
  bool ok() const { return error_.code() == 0; }
  explicit operator bool() const = delete;
  Errno error() const {
    CHECK(!ok());
    return error_;
  }
  int error_code() const { return error_.code(); }
  void value() const { CHECK(ok()); }

 private:
  Errno error_;
};

// The value of a Result, or return its error from the enclosing function (which returns a Result too).
#define TRY(expression)                                             \
  ({                                                                \
    auto try_result = (expression);                                 \
    if (!try_result.ok()) [[unlikely]] return try_result.error();   \
    ::caisson::internal::TakeValue(std::move(try_result));          \
  })

namespace internal {
template <typename T>
T TakeValue(Result<T>&& r) {
  return std::move(r).value();
}
inline void TakeValue(Result<void>&&) {}
}  // namespace internal

// The Result of a host call that returns -1 and sets errno.
inline Result<int64_t> HostResult(int64_t value) {
  if (value == -1) return Errno(errno);
  return value;
}

}  // namespace caisson

#endif  // CAISSON_SENTRY_BASE_RESULT_H_
