// What a program learns of the machine and the kernel: uname(2), sysinfo(2), getrandom(2), syslog(2).
#include <sys/random.h>
#include <sys/sysinfo.h>

#include <algorithm>

#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "sentry/mm/io_buffer.h"
#include "syscalls/task.h"

namespace caisson {
namespace {

constexpr int kNameLength = 64;  // __NEW_UTS_LEN.

void Fill(char (&field)[65], const std::string& text) { memcpy(field, text.data(), std::min<size_t>(text.size(), 64)); }

Result<std::string> CopyInName(Task& task, UserString name, int length) {
  if (!task.creds().HasCapabilityIn(CAP_SYS_ADMIN, task.uts_ns().owner())) return Errno(EPERM);
  if (length < 0 || length > kNameLength) return Errno(EINVAL);
  std::string text(static_cast<size_t>(length), '\0');
  TRY(task.CopyInBytes(name.address, text.data(), text.size()));
  return text.substr(0, text.find('\0'));
}

}  // namespace

Result<void> SysUname(Task& task, UserPtr<abi::Utsname> user_name) {
  constexpr uint32_t kUname26 = 0x0020000;
  abi::Utsname name{};
  Fill(name.sysname, "Linux");
  Fill(name.nodename, task.uts_ns().hostname());
  Fill(name.release, task.state().personality & kUname26 ? "2.6.61-caisson" : kLinuxRelease);
  Fill(name.version, kLinuxVersion);
  Fill(name.machine, "x86_64");
  Fill(name.domainname, task.uts_ns().domainname());
  return task.CopyOut(user_name, name);
}

Result<void> SysSethostname(Task& task, UserString name, int length) {
  task.uts_ns().SetHostname(TRY(CopyInName(task, name, length)));
  return {};
}

Result<void> SysSetdomainname(Task& task, UserString name, int length) {
  task.uts_ns().SetDomainname(TRY(CopyInName(task, name, length)));
  return {};
}

Result<void> SysSysinfo(Task& task, UserPtr<struct ::sysinfo> user_info) {
  Kernel& kernel = task.kernel();
  struct ::sysinfo info {};
  const MemoryFile::Usage usage = kernel.memory_file()->usage();
  const uint64_t total = kernel.options().total_memory_bytes;
  info.uptime = (MonotonicNow() - kernel.boot_monotonic_ns()) / abi::kNanosPerSecond;
  info.totalram = total;
  info.freeram = total - std::min(total, usage.committed_bytes);
  info.procs = static_cast<unsigned short>(std::min(kernel.state().task_count.load(), 0xffff));
  info.mem_unit = 1;
  return task.CopyOut(user_info, info);
}

Result<size_t> SysGetrandom(Task& task, UserPtr<void> user_buffer, uint64_t length, unsigned flags) {
  if (flags & ~(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE)) return Errno(EINVAL);
  if ((flags & (GRND_RANDOM | GRND_INSECURE)) == (GRND_RANDOM | GRND_INSECURE)) return Errno(EINVAL);
  length = std::min<uint64_t>(length, abi::kMaxRwCount);
  IoBuffer buffer(task.mm(), user_buffer.address, length);
  size_t done = 0;
  uint8_t chunk[256];
  while (done < length) {
    // Up to 256 bytes are never cut short, nor interrupted.
    const size_t n = std::min(sizeof chunk, length - done);
    if (::getrandom(chunk, n, 0) != static_cast<ssize_t>(n)) return Errno(EIO);
    Result<size_t> copied = buffer.CopyOut(chunk, n);
    if (!copied.ok()) {
      if (done > 0) return done;
      return copied.error();
    }
    done += *copied;
    if (*copied < n) break;
    if (done < length && task.Interrupted()) break;
  }
  return done;
}

Result<int> SysSyslog(Task& task, int type, UserPtr<void> buffer, int length) {
  enum { kClose, kOpen, kRead, kReadAll, kReadClear, kClear, kConsoleOff, kConsoleOn, kConsoleLevel, kSizeUnread, kSizeBuffer };
  static constexpr char kMessage[] = "<6>[    0.000000] Linux version 6.1.0-caisson\n";
  constexpr int kMessageLength = sizeof kMessage - 1;
  if (type < kClose || type > kSizeBuffer) return Errno(EINVAL);
  const bool privileged = task.creds().HasCapability(CAP_SYSLOG) || task.creds().HasCapability(CAP_SYS_ADMIN);
  if (type != kReadAll && type != kSizeBuffer && !privileged) return Errno(EPERM);
  switch (type) {
    case kReadAll: {
      if (buffer.null() || length < 0) return Errno(EINVAL);
      const int n = std::min(length, kMessageLength);
      TRY(task.CopyOutBytes(buffer.address, kMessage, static_cast<size_t>(n)));
      return n;
    }
    case kSizeBuffer:
      return kMessageLength;
    case kClose:
    case kOpen:
    case kConsoleOff:
    case kConsoleOn:
    case kSizeUnread:
      return 0;
    case kConsoleLevel:
      if (length < 1 || length > 8) return Errno(EINVAL);
      return 0;
    default:
      return Errno(EPERM);  // The log is read-only, and reading it would block for ever.
  }
}

}  // namespace caisson
