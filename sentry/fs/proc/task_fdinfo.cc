// What /proc/PID/fdinfo/N shows beyond what every open file has (proc(5)).
#include <sys/sysmacros.h>

#include "sentry/fs/anon/epoll.h"
#include "sentry/fs/anon/eventfd.h"
#include "sentry/fs/anon/signalfd.h"
#include "sentry/fs/anon/timerfd.h"
#include "sentry/fs/proc/internal.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/vfs/inotify.h"

namespace caisson::proc {
namespace {

using ulong64 = unsigned long long;

// A device as Linux's own dev_t has it, which these files show.
unsigned KernelDevice(uint64_t device) { return major(device) << 20 | minor(device); }

std::string EpollLines(Epoll& epoll) {
  std::string out;
  for (const Epoll::Watch& watch : epoll.Watches()) {
    out += Format("tfd: %8d events: %8x data: %16llx  pos:%lld ino:%llx sdev:%x\n", watch.fd, watch.events,
                  static_cast<ulong64>(watch.data), static_cast<long long>(watch.position), static_cast<ulong64>(watch.ino),
                  KernelDevice(watch.device));
  }
  return out;
}

std::string InotifyLines(InotifyFile& inotify) {
  std::string out;
  for (const InotifyFile::WatchInfo& watch : inotify.Watches()) {
    out += Format("inotify wd:%x ino:%llx sdev:%x mask:%x ignored_mask:0 \n", watch.wd, static_cast<ulong64>(watch.ino),
                  KernelDevice(watch.device), watch.mask);
  }
  return out;
}

std::string TimerLines(TimerFd& timer) {
  const TimerFd::Status status = timer.GetStatus();
  return Format("clockid: %d\nticks: %llu\nsettime flags: 0%o\nit_value: (%lld, %lld)\nit_interval: (%lld, %lld)\n", status.clock,
                static_cast<ulong64>(status.ticks), status.settime_flags, static_cast<long long>(status.value.it_value.tv_sec),
                static_cast<long long>(status.value.it_value.tv_nsec), static_cast<long long>(status.value.it_interval.tv_sec),
                static_cast<long long>(status.value.it_interval.tv_nsec));
}

}  // namespace

std::string ExtraFdInfo(ProcFilesystem& fs, File& file) {
  if (auto* epoll = dynamic_cast<Epoll*>(&file)) return EpollLines(*epoll);
  if (auto* inotify = dynamic_cast<InotifyFile*>(&file)) return InotifyLines(*inotify);
  if (auto* timer = dynamic_cast<TimerFd*>(&file)) return TimerLines(*timer);
  if (auto* event = dynamic_cast<EventFd*>(&file)) return Format("eventfd-count: %16llx\n", static_cast<ulong64>(event->count()));
  if (auto* signals = dynamic_cast<SignalFd*>(&file)) return Format("sigmask:\t%016llx\n", static_cast<ulong64>(signals->mask()));
  if (RefPtr<ThreadGroup> process = ProcessOfPidfd(file)) {
    const pid_t pid = process->TgidIn(fs.pid_ns());
    if (pid == 0) return process->exited() ? "Pid:\t-1\nNSpid:\t-1\n" : "Pid:\t0\nNSpid:\t0\n";
    return Format("Pid:\t%d\nNSpid:\t%d\n", pid, pid);
  }
  return "";
}

}  // namespace caisson::proc
