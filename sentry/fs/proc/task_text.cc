// status, stat, statm, limits and cgroup of /proc/PID.
#include <sys/resource.h>

#include "sentry/fs/proc/internal.h"
#include "sentry/kernel/proc_info.h"
#include "sentry/kernel/thread_group.h"

namespace caisson::proc {
namespace {

const UserNamespace& ReaderUserNs(Task& task) {
  Task* reader = Task::Current();
  return reader ? *reader->creds().user_ns : *task.kernel().initial_user_ns();
}

const char* StateName(char letter) {
  switch (letter) {
    case 'R':
      return "R (running)";
    case 'T':
      return "T (stopped)";
    case 't':
      return "t (tracing stop)";
    case 'Z':
      return "Z (zombie)";
    case 'X':
      return "X (dead)";
    default:
      return "S (sleeping)";
  }
}

// As Linux escapes comm in status.
std::string EscapedComm(const std::string& comm) {
  std::string out;
  for (char c : comm) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\\') {
      out += "\\\\";
    } else {
      out += c;
    }
  }
  return out;
}

int64_t Ticks(int64_t ns) { return ns / 10'000'000; }

std::string CpuList(int cpus) { return cpus <= 1 ? "0" : Format("0-%d", cpus - 1); }

std::string CpuMask(int cpus) {
  std::string out;
  for (int first = (cpus - 1) / 32 * 32; first >= 0; first -= 32) {
    const int here = std::min(32, cpus - first);
    const uint32_t mask = here == 32 ? ~0u : (1u << here) - 1;
    out += out.empty() ? Format("%x", mask) : Format(",%08x", mask);
  }
  return out;
}

Result<std::string> StatLine(ProcFilesystem& fs, Task& task, bool whole_process) {
  ThreadGroup& process = task.thread_group();
  const TaskStatus status = GetTaskStatus(task, fs.pid_ns());
  const ProcessSummary summary = SummarizeProcess(process, fs.pid_ns());
  const CpuTimes own = whole_process ? ProcessCpuTimes(process) : TaskCpuTimes(task);
  const CpuTimes children = ChildrenCpuTimes(process);
  MemoryStats memory{};
  MemoryManager::Layout layout;
  if (RefPtr<MemoryManager> mm = task.GetMm()) {
    memory = mm->Stats();
    Task* reader = Task::Current();
    if (reader && (reader == &task || MayPtrace(reader->creds(), task))) layout = mm->layout();
  }
  int tty_number = 0;
  int foreground = -1;
  if (summary.tty.rfind("pts/", 0) == 0) {
    const int index = std::atoi(summary.tty.c_str() + 4);
    tty_number = (136 << 8) | (index & 0xff) | ((index & ~0xff) << 12);
    if (RefPtr<ProcessGroup> group = ForegroundGroup(process)) foreground = group->IdIn(fs.pid_ns());
  }
  std::string out = Format("%d (%s) %c %d %d %d %d %d %u", status.tid, task.comm().c_str(), status.state, status.ppid,
                           summary.pgid, summary.sid, tty_number, foreground, 0u);
  out += Format(" %lu 0 %lu 0", static_cast<unsigned long>(status.minor_faults), static_cast<unsigned long>(status.major_faults));
  out += Format(" %ld %ld %ld %ld %d %d %d 0 %ld", static_cast<long>(Ticks(own.user_ns)), static_cast<long>(Ticks(own.system_ns)),
                static_cast<long>(Ticks(children.user_ns)), static_cast<long>(Ticks(children.system_ns)), status.priority,
                status.nice, summary.threads, static_cast<long>(Ticks(status.start_boot_ns)));
  out += Format(" %lu %lu %lu", static_cast<unsigned long>(memory.virtual_size),
                static_cast<unsigned long>(memory.resident / abi::kPageSize),
                static_cast<unsigned long>(process.GetLimit(RLIMIT_RSS).rlim_cur));
  out += Format(" %lu %lu %lu 0 0", static_cast<unsigned long>(layout.start_code), static_cast<unsigned long>(layout.end_code),
                static_cast<unsigned long>(layout.start_stack));
  out += Format(" %lu %lu %lu %lu", static_cast<unsigned long>(status.pending & 0x7fffffff),
                static_cast<unsigned long>(status.blocked & 0x7fffffff), static_cast<unsigned long>(status.ignored & 0x7fffffff),
                static_cast<unsigned long>(status.caught & 0x7fffffff));
  out += Format(" 0 0 0 %d 0 0 %d 0 0 0", status.exit_signal, status.policy);
  out += Format(" %lu %lu %lu %lu %lu %lu %lu %d\n", static_cast<unsigned long>(layout.start_data),
                static_cast<unsigned long>(layout.end_data), static_cast<unsigned long>(layout.start_brk),
                static_cast<unsigned long>(layout.arg_start), static_cast<unsigned long>(layout.arg_end),
                static_cast<unsigned long>(layout.env_start), static_cast<unsigned long>(layout.env_end),
                process.exited() ? process.wait_status() : 0);
  return out;
}

}  // namespace

Result<std::string> Stat(ProcFilesystem& fs, Task& task) { return StatLine(fs, task, true); }
Result<std::string> ThreadStat(ProcFilesystem& fs, Task& task) { return StatLine(fs, task, false); }

Result<std::string> Status(ProcFilesystem& fs, Task& task) {
  const TaskStatus status = GetTaskStatus(task, fs.pid_ns());
  ThreadGroup& process = task.thread_group();
  const RefPtr<const Credentials> creds = task.GetCreds();
  const UserNamespace& ns = ReaderUserNs(task);
  auto uid = [&](uid_t id) { return ns.UidFromKernelOrOverflow(id); };
  auto gid = [&](gid_t id) { return ns.GidFromKernelOrOverflow(id); };
  RefPtr<FsContext> fs_context = task.GetFs();
  RefPtr<FdTable> fds = task.GetFdTable();
  std::string out = Format("Name:\t%s\n", EscapedComm(task.comm()).c_str());
  if (fs_context) out += Format("Umask:\t%04o\n", fs_context->umask());
  out += Format("State:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t%d\n", StateName(status.state), status.tgid,
                status.tid, status.ppid, status.tracer);
  out += Format("Uid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\n", uid(creds->uid), uid(creds->euid), uid(creds->suid),
                uid(creds->fsuid), gid(creds->gid), gid(creds->egid), gid(creds->sgid), gid(creds->fsgid));
  out += Format("FDSize:\t%d\nGroups:\t", fds ? std::max(64, fds->highest() + 1) : 0);
  for (gid_t group : creds->groups) out += Format("%u ", gid(group));
  const ProcessSummary summary = SummarizeProcess(process, fs.pid_ns());
  out += Format("\nNStgid:\t%d\nNSpid:\t%d\nNSpgid:\t%d\nNSsid:\t%d\n", status.tgid, status.tid, summary.pgid, summary.sid);
  if (RefPtr<MemoryManager> mm = task.GetMm()) {
    const MemoryStats m = mm->Stats();
    auto kib = [](uint64_t bytes) { return static_cast<unsigned long>(bytes >> 10); };
    out += Format("VmPeak:\t%8lu kB\nVmSize:\t%8lu kB\nVmLck:\t%8lu kB\nVmPin:\t       0 kB\nVmHWM:\t%8lu kB\nVmRSS:\t%8lu kB\n",
                  kib(m.peak_virtual), kib(m.virtual_size), kib(m.locked), kib(m.peak_resident), kib(m.resident));
    out += Format("RssAnon:\t%8lu kB\nRssFile:\t%8lu kB\nRssShmem:\t%8lu kB\n", kib(m.resident_anonymous), kib(m.resident_file),
                  kib(m.resident_shared));
    out += Format("VmData:\t%8lu kB\nVmStk:\t%8lu kB\nVmExe:\t%8lu kB\nVmLib:\t%8lu kB\nVmPTE:\t%8lu kB\nVmSwap:\t       0 kB\n",
                  kib(m.data), kib(m.stack), kib(m.text), 0ul, kib(m.virtual_size / 512));
    out += "HugetlbPages:\t       0 kB\nCoreDumping:\t0\nTHP_enabled:\t1\n";
  }
  out += Format("Threads:\t%d\nSigQ:\t0/%lu\n", summary.threads,
                static_cast<unsigned long>(process.GetLimit(RLIMIT_SIGPENDING).rlim_cur));
  out += Format("SigPnd:\t%016lx\nShdPnd:\t%016lx\nSigBlk:\t%016lx\nSigIgn:\t%016lx\nSigCgt:\t%016lx\n", status.pending,
                status.shared_pending, status.blocked, status.ignored, status.caught);
  out += Format("CapInh:\t%016lx\nCapPrm:\t%016lx\nCapEff:\t%016lx\nCapBnd:\t%016lx\nCapAmb:\t%016lx\n", creds->inheritable,
                creds->permitted, creds->effective, creds->bounding, creds->ambient);
  out += Format("NoNewPrivs:\t%d\nSeccomp:\t%d\nSeccomp_filters:\t%d\n", status.no_new_privs || creds->no_new_privs ? 1 : 0,
                status.seccomp_mode, status.seccomp_filters);
  out += "Speculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\tunknown\n";
  const int cpus = task.kernel().options().cpu_count;
  out += Format("Cpus_allowed:\t%s\nCpus_allowed_list:\t%s\nMems_allowed:\t1\nMems_allowed_list:\t0\n", CpuMask(cpus).c_str(),
                CpuList(cpus).c_str());
  out += Format("voluntary_ctxt_switches:\t%lu\nnonvoluntary_ctxt_switches:\t%lu\n",
                static_cast<unsigned long>(status.voluntary_switches), static_cast<unsigned long>(status.involuntary_switches));
  return out;
}

Result<std::string> Statm(ProcFilesystem&, Task& task) {
  MemoryStats m{};
  if (RefPtr<MemoryManager> mm = task.GetMm()) m = mm->Stats();
  auto pages = [](uint64_t bytes) { return static_cast<unsigned long>(bytes / abi::kPageSize); };
  return Format("%lu %lu %lu %lu 0 %lu 0\n", pages(m.virtual_size), pages(m.resident), pages(m.resident_file + m.resident_shared),
                pages(m.text), pages(m.data + m.stack));
}

Result<std::string> Limits(ProcFilesystem&, Task& task) {
  struct Row {
    int resource;
    const char* name;
    const char* unit;
  };
  static constexpr Row kRows[] = {
      {RLIMIT_CPU, "Max cpu time", "seconds"},         {RLIMIT_FSIZE, "Max file size", "bytes"},
      {RLIMIT_DATA, "Max data size", "bytes"},         {RLIMIT_STACK, "Max stack size", "bytes"},
      {RLIMIT_CORE, "Max core file size", "bytes"},    {RLIMIT_RSS, "Max resident set", "bytes"},
      {RLIMIT_NPROC, "Max processes", "processes"},    {RLIMIT_NOFILE, "Max open files", "files"},
      {RLIMIT_MEMLOCK, "Max locked memory", "bytes"},  {RLIMIT_AS, "Max address space", "bytes"},
      {RLIMIT_LOCKS, "Max file locks", "locks"},       {RLIMIT_SIGPENDING, "Max pending signals", "signals"},
      {RLIMIT_MSGQUEUE, "Max msgqueue size", "bytes"}, {RLIMIT_NICE, "Max nice priority", ""},
      {RLIMIT_RTPRIO, "Max realtime priority", ""},    {RLIMIT_RTTIME, "Max realtime timeout", "us"},
  };
  auto value = [](uint64_t v) { return v == RLIM_INFINITY ? std::string("unlimited") : std::to_string(v); };
  std::string out = "Limit                     Soft Limit           Hard Limit           Units     \n";
  for (const Row& row : kRows) {
    const abi::Rlimit limit = task.thread_group().GetLimit(row.resource);
    out += Format("%-25s %-20s %-20s %-10s\n", row.name, value(limit.rlim_cur).c_str(), value(limit.rlim_max).c_str(), row.unit);
  }
  return out;
}

Result<std::string> Cgroup(ProcFilesystem&, Task&) { return std::string("0::/\n"); }

}  // namespace caisson::proc
