// A light test header for programs that run natively and inside a sandbox. Static, no threads or files of its own, one
// write(2) per line, so that it works on a kernel of which little works yet.
//
//   GUEST_TEST(Pipe, ReadsWhatWasWritten) {
//     int fds[2];
//     ASSERT_OK(pipe(fds));
//     EXPECT_EQ(write(fds[1], "x", 1), 1);
//     EXPECT_ERRNO(write(fds[0], "x", 1), EBADF);
//     EXPECT_CHILD_OK([&] { EXPECT_OK(close(fds[0])); });
//   }
//
// Every .cc file in this folder is one program; tests/README.md says how they are run. ASSERT_… leaves the function
// that it stands in, which returns void. EXPECT_… may be used from any thread.
#ifndef CAISSON_TESTS_SYSCALLS_GUEST_TEST_H_
#define CAISSON_TESTS_SYSCALLS_GUEST_TEST_H_

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <type_traits>

namespace guest {

struct Registration {
  Registration(const char* group, const char* name, void (*body)());
};
// A program that a test executes with execve: SelfPath() with arguments {"--sub=name", …}.
struct SubProgram {
  SubProgram(const char* name, int (*body)(int argc, char** argv));
};

// Path of this program, for execve. argv[0] made absolute.
const char* SelfPath();
// True inside a Caisson sandbox, for what a test can only ask for there.
bool InSandbox();
// An empty directory of this test's own, made on first use and removed when the test ends.
const std::string& ScratchDir();
// An address that is never mapped (within the canonical user half), one in the kernel half, and a read-only page.
void* UnmappedAddress();
void* KernelAddress();
char* ReadOnlyPage();
// Milliseconds of CLOCK_MONOTONIC.
int64_t NowMs();
void SleepMs(int64_t ms);
// Reads all of a file; "" when it cannot be opened.
std::string ReadFile(const char* path);

// Marks the running test failed, with printf-like details.
void Fail(const char* file, int line, const char* format, ...) __attribute__((format(printf, 3, 4)));
int FailureCount();
void Skip(const char* reason);
// Prints a line that shows with a failure.
void Note(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Forks; the child runs `body`, then exits with 0, or 99 if an expectation failed in it. Returns the wait status.
template <typename Body>
int RunInChild(Body body) {
  int before = FailureCount();
  pid_t child = fork();
  if (child < 0) return -1;
  if (child == 0) {
    body();
    _exit(FailureCount() == before ? 0 : 99);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return status;
}

// A char* is an address here; arrays, literals and strings are text.
template <typename T>
inline constexpr bool kIsText = std::is_convertible_v<const T&, std::string_view> && !std::is_pointer_v<T>;
template <typename T>
inline constexpr bool kMayBeText = std::is_convertible_v<const T&, std::string_view> && !std::is_null_pointer_v<T>;

template <typename T>
std::string Show(const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_enum_v<T>) {
    return std::to_string(static_cast<long long>(value));
  } else if constexpr (std::is_integral_v<T> || std::is_floating_point_v<T>) {
    return std::to_string(value);
  } else if constexpr (std::is_null_pointer_v<T>) {
    return "nullptr";
  } else if constexpr (kIsText<T>) {
    return '"' + std::string(std::string_view(value)) + '"';
  } else if constexpr (std::is_pointer_v<T>) {
    char text[24] = "0x";
    uintptr_t bits = reinterpret_cast<uintptr_t>(value);
    for (int i = 0; i < 16; ++i) text[2 + i] = "0123456789abcdef"[(bits >> (60 - 4 * i)) & 15];
    return text;
  } else {
    return "(a value)";
  }
}

template <typename A, typename B>
bool Equal(const A& a, const B& b) {
  if constexpr (kMayBeText<A> && kMayBeText<B> && (kIsText<A> || kIsText<B>)) {
    return std::string_view(a) == std::string_view(b);
  } else {
    return a == b;
  }
}

std::string ErrnoName(int code);

}  // namespace guest

#pragma GCC diagnostic ignored "-Wsign-compare"

#define GUEST_TEST(group, name)                                                                                 \
  static void Test_##group##_##name();                                                                          \
  static const ::guest::Registration registration_##group##_##name(#group, #name, Test_##group##_##name);       \
  static void Test_##group##_##name()

#define GUEST_SUBPROGRAM(name)                                                   \
  static int Sub_##name(int argc, char** argv);                                  \
  static const ::guest::SubProgram subprogram_##name(#name, Sub_##name);         \
  static int Sub_##name([[maybe_unused]] int argc, [[maybe_unused]] char** argv)

#define GUEST_SKIP(reason) \
  do {                     \
    ::guest::Skip(reason); \
    return;                \
  } while (0)

#define GUEST_COMPARE_(a, b, condition, text, on_failure)                                                      \
  do {                                                                                                         \
    auto&& guest_a = (a);                                                                                      \
    auto&& guest_b = (b);                                                                                      \
    if (!(condition)) {                                                                                        \
      ::guest::Fail(__FILE__, __LINE__, "%s: %s and %s", text, ::guest::Show(guest_a).c_str(), \
                    ::guest::Show(guest_b).c_str());                                           \
      on_failure;                                                                                              \
    }                                                                                                          \
  } while (0)

#define EXPECT_EQ(a, b) GUEST_COMPARE_(a, b, ::guest::Equal(guest_a, guest_b), #a " == " #b, )
#define EXPECT_NE(a, b) GUEST_COMPARE_(a, b, !::guest::Equal(guest_a, guest_b), #a " != " #b, )
#define EXPECT_LT(a, b) GUEST_COMPARE_(a, b, guest_a < guest_b, #a " < " #b, )
#define EXPECT_LE(a, b) GUEST_COMPARE_(a, b, guest_a <= guest_b, #a " <= " #b, )
#define EXPECT_GT(a, b) GUEST_COMPARE_(a, b, guest_a > guest_b, #a " > " #b, )
#define EXPECT_GE(a, b) GUEST_COMPARE_(a, b, guest_a >= guest_b, #a " >= " #b, )
#define ASSERT_EQ(a, b) GUEST_COMPARE_(a, b, ::guest::Equal(guest_a, guest_b), #a " == " #b, return)
#define ASSERT_NE(a, b) GUEST_COMPARE_(a, b, !::guest::Equal(guest_a, guest_b), #a " != " #b, return)
#define ASSERT_LT(a, b) GUEST_COMPARE_(a, b, guest_a < guest_b, #a " < " #b, return)
#define ASSERT_LE(a, b) GUEST_COMPARE_(a, b, guest_a <= guest_b, #a " <= " #b, return)
#define ASSERT_GT(a, b) GUEST_COMPARE_(a, b, guest_a > guest_b, #a " > " #b, return)
#define ASSERT_GE(a, b) GUEST_COMPARE_(a, b, guest_a >= guest_b, #a " >= " #b, return)

#define GUEST_CHECK_(condition, wanted, text, on_failure)                        \
  do {                                                                           \
    if (static_cast<bool>(condition) != wanted) {                                \
      ::guest::Fail(__FILE__, __LINE__, "%s: is %s", text, wanted ? "false" : "true"); \
      on_failure;                                                                \
    }                                                                            \
  } while (0)
#define EXPECT_TRUE(condition) GUEST_CHECK_(condition, true, #condition, )
#define EXPECT_FALSE(condition) GUEST_CHECK_(condition, false, #condition, )
#define ASSERT_TRUE(condition) GUEST_CHECK_(condition, true, #condition, return)
#define ASSERT_FALSE(condition) GUEST_CHECK_(condition, false, #condition, return)

// The call does not return -1 (nor MAP_FAILED).
#define GUEST_OK_(call, on_failure)                                                                       \
  do {                                                                                                    \
    errno = 0;                                                                                            \
    if ((intptr_t)(call) == -1) {                                                                         \
      ::guest::Fail(__FILE__, __LINE__, "%s: failed with %s", #call, ::guest::ErrnoName(errno).c_str()); \
      on_failure;                                                                                         \
    }                                                                                                     \
  } while (0)
#define EXPECT_OK(call) GUEST_OK_(call, )
#define ASSERT_OK(call) GUEST_OK_(call, return)

// The call returns -1 with this errno.
#define GUEST_ERRNO_(call, code, on_failure)                                                                         \
  do {                                                                                                               \
    errno = 0;                                                                                                       \
    intptr_t guest_result = (intptr_t)(call);                                                                        \
    int guest_errno = errno;                                                                                         \
    if (guest_result != -1) {                                                                                        \
      ::guest::Fail(__FILE__, __LINE__, "%s: returned %lld, not %s", #call, static_cast<long long>(guest_result),   \
                    ::guest::ErrnoName(code).c_str());                                                              \
      on_failure;                                                                                                    \
    } else if (guest_errno != (code)) {                                                                              \
      ::guest::Fail(__FILE__, __LINE__, "%s: failed with %s, not %s", #call, ::guest::ErrnoName(guest_errno).c_str(), \
                    ::guest::ErrnoName(code).c_str());                                                              \
      on_failure;                                                                                                    \
    }                                                                                                                \
  } while (0)
#define EXPECT_ERRNO(call, code) GUEST_ERRNO_(call, code, )
#define ASSERT_ERRNO(call, code) GUEST_ERRNO_(call, code, return)

// The body, run in a forked child, fails no expectation and lives to its end.
#define EXPECT_CHILD_OK(...)                                                                                \
  do {                                                                                                      \
    int guest_status = ::guest::RunInChild(__VA_ARGS__);                                                    \
    if (guest_status != 0) ::guest::Fail(__FILE__, __LINE__, "child's wait status is 0x%x", guest_status); \
  } while (0)

#endif  // CAISSON_TESTS_SYSCALLS_GUEST_TEST_H_
