#include "sentry/kernel/proc_info.h"

#include <algorithm>

#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/rusage.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/tracing.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/ticks.h"

namespace caisson {
namespace {

struct TickBase {
  uint64_t ticks = ReadTicks();
  int64_t nanos = MonotonicNow();
};

abi::Timeval ToTimeval(int64_t nanos) { return {nanos / 1'000'000'000, nanos % 1'000'000'000 / 1000}; }

void AddTimes(abi::Rusage* usage, int64_t user_ns, int64_t system_ns) {
  usage->ru_utime = ToTimeval(user_ns);
  usage->ru_stime = ToTimeval(system_ns);
}

}  // namespace

int64_t TicksToNanos(uint64_t ticks) {
  static const TickBase base;
  static std::atomic<double> rate{0};  // Nanoseconds per tick; 0: not known yet.
  static std::atomic<uint64_t> measured_at{0};
  double factor = rate.load(std::memory_order_relaxed);
  const uint64_t span = ReadTicks() - base.ticks;
  // The longer the base, the better the rate: measured anew whenever it has doubled.
  if (factor == 0 || span > 2 * measured_at.load(std::memory_order_relaxed)) {
    int64_t nanos = MonotonicNow() - base.nanos;
    if (nanos < 100'000) {
      factor = factor == 0 ? 0.4 : factor;  // 2.5 GHz, until it is known better.
    } else {
      factor = static_cast<double>(nanos) / static_cast<double>(ReadTicks() - base.ticks);
      rate.store(factor, std::memory_order_relaxed);
      measured_at.store(span, std::memory_order_relaxed);
    }
  }
  return static_cast<int64_t>(static_cast<double>(ticks) * factor);
}

CpuTimes TaskCpuTimes(Task& task) {
  const Task::State& state = task.state();
  uint64_t user = state.user_ticks.load(std::memory_order_relaxed);
  uint64_t system = state.system_ticks.load(std::memory_order_relaxed);
  // The stretch under way.
  const bool runs = state.phase.load(std::memory_order_acquire) == Task::State::Phase::kRunning &&
                    !state.asleep.load(std::memory_order_relaxed);
  const uint64_t from = state.last_tick.load(std::memory_order_relaxed);
  const uint64_t now = ReadTicks();
  if (runs && from != 0 && now > from) {
    (state.in_guest.load(std::memory_order_relaxed) ? user : system) += now - from;
  }
  return {TicksToNanos(user), TicksToNanos(system)};
}

CpuTimes ProcessCpuTimesLocked(const ThreadGroup::State& process) {
  CpuTimes sum{process.dead_user_ns.load(), process.dead_system_ns.load()};
  for (const RefPtr<Task>& task : process.tasks) {
    if (task->state().accounted) continue;
    CpuTimes times = TaskCpuTimes(*task);
    sum.user_ns += times.user_ns;
    sum.system_ns += times.system_ns;
  }
  return sum;
}

CpuTimes ProcessCpuTimes(ThreadGroup& process) {
  absl::ReaderMutexLock lock(&process.kernel().state().task_set);
  return ProcessCpuTimesLocked(process.state());
}

CpuTimes ChildrenCpuTimes(ThreadGroup& process) {
  return {process.state().children_user_ns.load(), process.state().children_system_ns.load()};
}

int64_t TotalCpuTime(Kernel& kernel) {
  int64_t total = kernel.state().dead_cpu_ns.load();
  for (const RefPtr<Task>& task : kernel.Tasks()) {
    CpuTimes times = TaskCpuTimes(*task);
    total += times.user_ns + times.system_ns;
  }
  return total;
}

// --- getrusage(2)

abi::Rusage RusageLocked(const ThreadGroup::State& process, RusageOf which) {
  abi::Rusage usage{};
  int64_t user = 0, system = 0;
  if (which != RusageOf::kChildren) {
    CpuTimes times = ProcessCpuTimesLocked(process);
    user += times.user_ns;
    system += times.system_ns;
    usage.ru_minflt += static_cast<long>(process.minor_faults.load());
    usage.ru_nvcsw += static_cast<long>(process.voluntary_switches.load());
    int64_t peak = process.peak_resident.load();
    for (const RefPtr<Task>& task : process.tasks) {
      if (task->state().accounted) continue;
      usage.ru_minflt += static_cast<long>(task->state().minor_faults.load());
      usage.ru_nvcsw += static_cast<long>(task->state().voluntary_switches.load());
    }
    if (process.leader) {
      RefPtr<MemoryManager> mm = process.leader->GetMm();
      if (mm) peak = std::max(peak, static_cast<int64_t>(mm->Stats().peak_resident));
    }
    usage.ru_maxrss = peak / 1024;
  }
  if (which != RusageOf::kSelf) {
    user += process.children_user_ns.load();
    system += process.children_system_ns.load();
    usage.ru_minflt += static_cast<long>(process.children_minor_faults.load());
    usage.ru_maxrss = std::max<long>(usage.ru_maxrss, process.children_peak_resident.load() / 1024);
  }
  AddTimes(&usage, user, system);
  return usage;
}

abi::Rusage ProcessRusage(ThreadGroup& process, RusageOf which) {
  absl::ReaderMutexLock lock(&process.kernel().state().task_set);
  return RusageLocked(process.state(), which);
}

abi::Rusage TaskRusage(Task& task) {
  abi::Rusage usage{};
  CpuTimes times = TaskCpuTimes(task);
  AddTimes(&usage, times.user_ns, times.system_ns);
  usage.ru_minflt = static_cast<long>(task.state().minor_faults.load());
  usage.ru_nvcsw = static_cast<long>(task.state().voluntary_switches.load());
  if (RefPtr<MemoryManager> mm = task.GetMm()) usage.ru_maxrss = static_cast<long>(mm->Stats().peak_resident / 1024);
  return usage;
}

void ChargeChildLocked(ThreadGroup::State& parent, const ThreadGroup::State& child) {
  CpuTimes times = ProcessCpuTimesLocked(child);
  parent.children_user_ns.fetch_add(times.user_ns + child.children_user_ns.load());
  parent.children_system_ns.fetch_add(times.system_ns + child.children_system_ns.load());
  parent.children_minor_faults.fetch_add(child.minor_faults.load() + child.children_minor_faults.load());
  const int64_t peak = std::max(child.peak_resident.load(), child.children_peak_resident.load());
  parent.children_peak_resident.store(std::max(parent.children_peak_resident.load(), peak));
}

// --- What /proc and `runsc ps` show

char TaskStateLetter(Task& task) {
  const Task::State& state = task.state();
  switch (state.phase.load(std::memory_order_acquire)) {
    case Task::State::Phase::kZombie:
      return 'Z';
    case Task::State::Phase::kDead:
      return 'X';
    default:
      break;
  }
  if (char letter = state.stop_letter.load(std::memory_order_relaxed)) return letter;
  return state.asleep.load(std::memory_order_relaxed) ? 'S' : 'R';
}

ProcessSummary SummarizeProcess(ThreadGroup& process, const PidNamespace& ns) {
  ProcessSummary summary;
  ThreadGroup::State& state = process.state();
  RefPtr<Task> leader;
  {
    absl::ReaderMutexLock lock(&state.kernel.state().task_set);
    leader = state.leader;
    summary.pid = state.pid->In(ns);
    if (state.parent) summary.ppid = state.parent->state().pid->In(ns);
    if (state.process_group) {
      summary.pgid = state.process_group->IdIn(ns);
      summary.sid = state.process_group->session().IdIn(ns);
    }
    summary.threads = static_cast<int>(state.tasks.size());
    CpuTimes times = ProcessCpuTimesLocked(state);
    summary.cpu_time_ns = times.user_ns + times.system_ns;
  }
  summary.start_realtime_ns = state.start_realtime_ns;
  summary.start_boot_ns = state.start_monotonic_ns - state.kernel.boot_monotonic_ns();
  summary.tty = TerminalName(process);
  if (!leader) return summary;
  if (RefPtr<const Credentials> creds = leader->GetCreds()) summary.uid = creds->euid;
  summary.comm = leader->comm();
  if (RefPtr<MemoryManager> mm = leader->GetMm()) {
    const MemoryManager::Layout layout = mm->layout();
    const uint64_t length = std::min<uint64_t>(layout.arg_end - layout.arg_start, 64 << 10);
    if (layout.arg_end > layout.arg_start) {
      summary.command_line.resize(length);
      Result<size_t> copied = mm->ForceCopyIn(layout.arg_start, summary.command_line.data(), length);
      summary.command_line.resize(copied.ok() ? *copied : 0);
      while (!summary.command_line.empty() && summary.command_line.back() == 0) summary.command_line.pop_back();
      std::replace(summary.command_line.begin(), summary.command_line.end(), '\0', ' ');
    }
  }
  return summary;
}

TaskStatus GetTaskStatus(Task& task, const PidNamespace& ns) {
  TaskStatus status;
  Task::State& state = task.state();
  ThreadGroup::State& process = state.group->state();
  status.tid = ns.TidOf(task);
  status.tgid = process.pid->In(ns);
  status.state = TaskStateLetter(task);
  {
    absl::ReaderMutexLock lock(&process.kernel.state().task_set);
    if (process.parent) status.ppid = process.parent->state().pid->In(ns);
    if (Task* tracer = state.tracing->tracer) status.tracer = ns.TidOf(*tracer);
    status.exit_signal = process.leader.get() == &task ? process.exit_signal : -1;
  }
  {
    absl::MutexLock lock(&state.sched_mutex);
    status.nice = state.sched.nice;
    status.policy = state.sched.policy;
    status.priority = state.sched.priority > 0 ? -1 - state.sched.priority : 20 + state.sched.nice;
  }
  status.oom_score_adj = process.oom_score_adj.load();
  {
    absl::MutexLock lock(&process.signal_mutex);
    status.pending = state.pending.set();
    status.shared_pending = process.shared_pending.set();
    status.blocked = state.mask.load(std::memory_order_relaxed);
    status.seccomp_mode = state.seccomp_mode;
    status.seccomp_filters = state.seccomp_hold ? state.seccomp_hold->count() : 0;
    status.no_new_privs = state.gets_no_new_privs.load();
    for (int signo = 1; signo <= abi::kMaxSignal; ++signo) {
      const uint64_t handler = process.handlers->Get(signo).handler;
      if (handler == abi::kSigIgn) status.ignored |= abi::SignalBit(signo);
      if (handler != abi::kSigIgn && handler != abi::kSigDfl) status.caught |= abi::SignalBit(signo);
    }
  }
  status.start_boot_ns = static_cast<int64_t>(state.start_monotonic_ns) - process.kernel.boot_monotonic_ns();
  status.voluntary_switches = state.voluntary_switches.load();
  status.minor_faults = state.minor_faults.load();
  return status;
}

Result<void> SetOomScoreAdj(ThreadGroup& process, int value, bool privileged) {
  ThreadGroup::State& state = process.state();
  if (value < state.oom_score_adj_min.load() && !privileged) return Errno(EACCES);
  state.oom_score_adj.store(value);
  if (privileged) state.oom_score_adj_min.store(value);
  return {};
}

}  // namespace caisson
