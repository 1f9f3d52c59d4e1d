// Structures and constants of the Linux x86-64 system-call interface, as guests see them. Where the C library's type is
// the kernel's, it is used under our name; where it is not (sigset, sigaction, siginfo, dirent …) it is declared here.
#ifndef CAISSON_SENTRY_ABI_LINUX_H_
#define CAISSON_SENTRY_ABI_LINUX_H_

#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>

namespace caisson::abi {

using Timespec = ::timespec;
using Timeval = ::timeval;
using Itimerspec = ::itimerspec;
using Itimerval = ::itimerval;
using Stat = struct ::stat;
using Statx = struct ::statx;
using Statfs = struct ::statfs;
using Iovec = ::iovec;
using Pollfd = ::pollfd;
using EpollEvent = ::epoll_event;
using Rusage = ::rusage;
using Rlimit = ::rlimit;
using Utsname = ::utsname;
using Flock = struct ::flock;
using OpenHow = ::open_how;
using CloneArgs = ::clone_args;
static_assert(sizeof(Stat) == 144 && sizeof(Statx) == 256 && sizeof(Statfs) == 120 && sizeof(EpollEvent) == 12);
static_assert(sizeof(Timespec) == 16 && sizeof(Rusage) == 144 && sizeof(Flock) == 32 && sizeof(Utsname) == 390);

// A kernel signal set: bit n-1 is signal n.
using Sigset = uint64_t;
inline constexpr int kMaxSignal = 64;
inline constexpr int kFirstRealtimeSignal = 32;
constexpr Sigset SignalBit(int signo) { return Sigset{1} << (signo - 1); }
constexpr bool IsValidSignal(int signo) { return signo >= 1 && signo <= kMaxSignal; }

// struct kernel_sigaction of x86-64.
struct Sigaction {
  uint64_t handler;
  uint64_t flags;
  uint64_t restorer;
  Sigset mask;
};
static_assert(sizeof(Sigaction) == 32);
inline constexpr uint64_t kSigDfl = 0;
inline constexpr uint64_t kSigIgn = 1;
inline constexpr uint64_t kSaRestorer = 0x04000000;

struct SigaltStack {
  uint64_t sp;
  int32_t flags;
  int32_t pad;
  uint64_t size;
};
static_assert(sizeof(SigaltStack) == 24);

// siginfo_t: 128 bytes. Fields beyond si_code share storage; the names are those of siginfo(2).
struct Siginfo {
  int32_t signo = 0;
  int32_t errnum = 0;
  int32_t code = 0;
  int32_t pad0 = 0;
  union {
    struct {
      int32_t pid;
      uint32_t uid;
      union {
        uint64_t value;   // SI_QUEUE, SI_MESGQ
        int32_t status;   // SIGCHLD
      };
      int64_t utime;  // SIGCHLD
      int64_t stime;
    } rt;
    struct {
      int32_t timer_id;
      int32_t overrun;
      uint64_t value;
    } timer;
    struct {
      uint64_t addr;
      int16_t addr_lsb;
    } fault;
    struct {
      int64_t band;
      int32_t fd;
    } poll;
    struct {
      uint64_t call_addr;
      int32_t syscall;
      uint32_t arch;
    } sys;
    uint8_t bytes[112];
  };
  Siginfo() : bytes{} {}
};
static_assert(sizeof(Siginfo) == 128 && offsetof(Siginfo, rt) == 16);

// Header of struct linux_dirent64; the name follows.
struct Dirent64 {
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
} __attribute__((packed));
static_assert(sizeof(Dirent64) == 19);

inline constexpr int64_t kNanosPerSecond = 1'000'000'000;
constexpr int64_t ToNanos(const Timespec& t) { return t.tv_sec * kNanosPerSecond + t.tv_nsec; }
constexpr Timespec ToTimespec(int64_t nanos) {
  int64_t seconds = nanos / kNanosPerSecond;
  int64_t rest = nanos % kNanosPerSecond;
  if (rest < 0) {
    rest += kNanosPerSecond;
    --seconds;
  }
  return {seconds, rest};
}

inline constexpr uint64_t kPageSize = 4096;
constexpr uint64_t PageRoundDown(uint64_t v) { return v & ~(kPageSize - 1); }
constexpr uint64_t PageRoundUp(uint64_t v) { return (v + kPageSize - 1) & ~(kPageSize - 1); }  // 0 on overflow.
constexpr bool IsPageAligned(uint64_t v) { return (v & (kPageSize - 1)) == 0; }

inline constexpr size_t kPathMax = 4096;
inline constexpr size_t kNameMax = 255;
inline constexpr size_t kMaxRwCount = 0x7ffff000;  // MAX_RW_COUNT: the most one read or write moves.
inline constexpr size_t kIovMax = 1024;

}  // namespace caisson::abi

#endif  // CAISSON_SENTRY_ABI_LINUX_H_
