// Typed guest addresses, as system-call handlers receive them. Never dereferenced: copied through the task.
#ifndef CAISSON_SENTRY_KERNEL_USER_PTR_H_
#define CAISSON_SENTRY_KERNEL_USER_PTR_H_

#include <cstdint>

namespace caisson {

template <typename T>
struct UserPtr {
  uint64_t address = 0;
  bool null() const { return address == 0; }
  UserPtr operator+(uint64_t n) const { return {address + n * sizeof(T)}; }
};
// Untyped bytes (read(2)'s buffer).
template <>
struct UserPtr<void> {
  uint64_t address = 0;
  bool null() const { return address == 0; }
};
// A NUL-terminated path or other string.
struct UserString {
  uint64_t address = 0;
  bool null() const { return address == 0; }
};

// A descriptor number, or AT_FDCWD.
struct Fd {
  int number = -1;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_USER_PTR_H_
