// Numbers, groups and sessions; prctl(2), arch_prctl(2), personality(2).
#include <asm/prctl.h>
#include <linux/prctl.h>
#include <linux/securebits.h>
#include <sys/personality.h>
#include <sys/prctl.h>

#include "sentry/arch/xstate.h"
#include "sentry/kernel/kernel_state.h"
#include "sentry/kernel/task_state.h"
#include "syscalls/seccomp.h"
#include "syscalls/task.h"

namespace caisson {
namespace {

constexpr uint64_t kTaskSizeMax = 0x7ffffffff000;

}  // namespace

Result<int> SysGetpid(Task& task) { return task.tgid(); }
Result<int> SysGettid(Task& task) { return task.tid(); }

Result<int> SysGetppid(Task& task) {
  absl::ReaderMutexLock lock(&task.kernel().state().task_set);
  const ThreadGroup* parent = task.thread_group().state().parent;
  return parent ? parent->state().pid->In(task.pid_ns()) : 0;
}

Result<int> SysGetpgrp(Task& task) { return task.thread_group().process_group()->IdIn(task.pid_ns()); }

Result<int> SysGetpgid(Task& task, int pid) {
  if (pid == 0) return SysGetpgrp(task);
  RefPtr<ThreadGroup> process = task.pid_ns().FindThreadGroup(pid);
  RefPtr<ProcessGroup> group = process ? process->process_group() : nullptr;
  if (!group) return Errno(ESRCH);
  return group->IdIn(task.pid_ns());
}

Result<int> SysGetsid(Task& task, int pid) {
  RefPtr<ThreadGroup> process =
      pid == 0 ? RefPtr<ThreadGroup>(&task.thread_group()) : task.pid_ns().FindThreadGroup(pid);
  RefPtr<Session> session = process ? process->session() : nullptr;
  if (!session) return Errno(ESRCH);
  return session->IdIn(task.pid_ns());
}

Result<void> SysSetpgid(Task& task, int pid, int pgid) {
  ThreadGroup& caller = task.thread_group();
  if (pid == 0) pid = task.tgid();
  if (pgid == 0) pgid = pid;
  if (pgid < 0) return Errno(EINVAL);
  RefPtr<ThreadGroup> process = task.pid_ns().FindThreadGroup(pid);
  if (!process) return Errno(task.pid_ns().FindTask(pid) ? EINVAL : ESRCH);
  RefPtr<ProcessGroup> group = pgid == pid ? nullptr : task.pid_ns().FindProcessGroup(pgid);
  RefPtr<ProcessGroup> old;  // Goes after the lock.
  absl::MutexLock lock(&task.kernel().state().task_set);
  ThreadGroup::State& state = process->state();
  old = state.process_group;
  const RefPtr<ProcessGroup> own = caller.state().process_group;
  if (!old || !own) return Errno(ESRCH);
  Session& session = old->session();
  if (state.parent == &caller) {
    if (&session != &own->session()) return Errno(EPERM);
    if (state.did_exec) return Errno(EACCES);
  } else if (process.get() != &caller) {
    return Errno(ESRCH);
  }
  if (session.leader() == process.get()) return Errno(EPERM);
  if (pgid == pid) {
    if (old->state().pid == state.pid) return {};
    // A group of that number that still has members is joined as any other.
    RefPtr<ProcessGroup> existing;
    {
      absl::MutexLock pids_lock(&task.kernel().state().pids);
      ProcessGroup* found = state.pid->group;
      if (found && found->TryIncRef()) existing = RefPtr<ProcessGroup>::Adopt(found);
    }
    group = existing ? existing : ProcessGroup::State::NewGroup(state.pid, RefPtr<Session>(&session));
  }
  if (!group || &group->session() != &session) return Errno(EPERM);
  if (group->state().members.empty() && group->state().pid != state.pid) return Errno(EPERM);
  state.SetProcessGroup(group);
  return {};
}

Result<int> SysSetsid(Task& task) {
  ThreadGroup& process = task.thread_group();
  RefPtr<ProcessGroup> old;  // Goes after the lock.
  absl::MutexLock lock(&task.kernel().state().task_set);
  ThreadGroup::State& state = process.state();
  old = state.process_group;
  if (old->session().leader() == &process) return Errno(EPERM);
  {
    absl::MutexLock pids_lock(&task.kernel().state().pids);
    if (state.pid->group && state.pid->group->RefCount() > 0) return Errno(EPERM);
  }
  RefPtr<Session> session = Session::State::NewSession(state.pid, &process);
  state.SetProcessGroup(ProcessGroup::State::NewGroup(state.pid, session));
  return state.pid->In(task.pid_ns());
}

Result<int> SysSetTidAddress(Task& task, UserPtr<int32_t> address) {
  task.state().clear_child_tid = address.address;
  return task.tid();
}

namespace {

void ChangeCreds(Task& task, absl::FunctionRef<void(Credentials&)> change) {
  RefPtr<Credentials> creds = task.creds().Clone();
  change(*creds);
  task.SetCreds(std::move(creds));
}

Result<int64_t> CapAmbient(Task& task, uint64_t operation, uint64_t cap, uint64_t arg4, uint64_t arg5) {
  if (operation == PR_CAP_AMBIENT_CLEAR_ALL) {
    if (cap || arg4 || arg5) return Errno(EINVAL);
    ChangeCreds(task, [](Credentials& c) { c.ambient = 0; });
    return int64_t{0};
  }
  if (cap > CAP_LAST_CAP || arg4 || arg5) return Errno(EINVAL);
  const CapabilitySet bit = CapabilityBit(static_cast<int>(cap));
  const Credentials& creds = task.creds();
  switch (operation) {
    case PR_CAP_AMBIENT_IS_SET:
      return int64_t{(creds.ambient & bit) != 0};
    case PR_CAP_AMBIENT_RAISE:
      if (!(creds.permitted & creds.inheritable & bit) || (creds.securebits & (1u << SECURE_NO_CAP_AMBIENT_RAISE))) {
        return Errno(EPERM);
      }
      ChangeCreds(task, [bit](Credentials& c) { c.ambient |= bit; });
      return int64_t{0};
    case PR_CAP_AMBIENT_LOWER:
      ChangeCreds(task, [bit](Credentials& c) { c.ambient &= ~bit; });
      return int64_t{0};
    default:
      return Errno(EINVAL);
  }
}

// capabilities(7), "The securebits flags": locks cannot be undone, all else needs CAP_SETPCAP.
Result<int64_t> SetSecurebits(Task& task, uint64_t bits) {
  const Credentials& creds = task.creds();
  const uint32_t locks = creds.securebits & SECURE_ALL_LOCKS;
  const uint32_t locked_values = locks >> 1;
  if (bits & ~uint64_t{SECURE_ALL_LOCKS | SECURE_ALL_BITS}) return Errno(EPERM);
  if ((locked_values & (creds.securebits ^ bits)) || (locks & ~bits) || !creds.HasCapability(CAP_SETPCAP)) {
    return Errno(EPERM);
  }
  ChangeCreds(task, [bits](Credentials& c) {
    c.securebits = static_cast<uint32_t>(bits);
    c.keep_caps = bits & (1u << SECURE_KEEP_CAPS);
  });
  return int64_t{0};
}

// PR_SET_MM, as container runtimes and checkpointers use it.
Result<int64_t> SetMm(Task& task, uint64_t option, uint64_t address) {
  if (!task.creds().HasCapability(CAP_SYS_RESOURCE)) return Errno(EPERM);
  if (address >= kTaskSizeMax) return Errno(EINVAL);
  MemoryManager::Layout layout = task.mm().layout();
  switch (option) {
    case PR_SET_MM_START_CODE: layout.start_code = address; break;
    case PR_SET_MM_END_CODE: layout.end_code = address; break;
    case PR_SET_MM_START_DATA: layout.start_data = address; break;
    case PR_SET_MM_END_DATA: layout.end_data = address; break;
    case PR_SET_MM_START_STACK: layout.start_stack = address; break;
    case PR_SET_MM_ARG_START: layout.arg_start = address; break;
    case PR_SET_MM_ARG_END: layout.arg_end = address; break;
    case PR_SET_MM_ENV_START: layout.env_start = address; break;
    case PR_SET_MM_ENV_END: layout.env_end = address; break;
    default: return Errno(EINVAL);
  }
  task.mm().SetLayout(layout);
  return int64_t{0};
}

}  // namespace

Result<int64_t> SysPrctl(Task& task, int option, Hex arg2, Hex arg3, Hex arg4, Hex arg5) {
  constexpr size_t kCommLength = 16;
  Task::State& state = task.state();
  ThreadGroup::State& process = task.thread_group().state();
  absl::Mutex& task_set = task.kernel().state().task_set;
  switch (option) {
    case PR_SET_PDEATHSIG: {
      if (arg2 != 0 && !(arg2 <= abi::kMaxSignal)) return Errno(EINVAL);
      absl::MutexLock lock(&task_set);
      state.parent_death_signal = static_cast<int>(arg2.value);
      return int64_t{0};
    }
    case PR_GET_PDEATHSIG: {
      int signo;
      {
        absl::MutexLock lock(&task_set);
        signo = state.parent_death_signal;
      }
      TRY(task.CopyOut(UserPtr<int32_t>{arg2}, signo));
      return int64_t{0};
    }
    case PR_GET_DUMPABLE:
      return int64_t{task.mm().dumpable()};
    case PR_SET_DUMPABLE:
      if (arg2 > 1) return Errno(EINVAL);
      task.mm().SetDumpable(arg2 == 1);
      return int64_t{0};
    case PR_GET_KEEPCAPS:
      return int64_t{task.creds().keep_caps};
    case PR_SET_KEEPCAPS:
      if (arg2 > 1) return Errno(EINVAL);
      if (task.creds().securebits & (1u << SECURE_KEEP_CAPS_LOCKED)) return Errno(EPERM);
      ChangeCreds(task, [&](Credentials& c) {
        c.keep_caps = arg2 == 1;
        c.securebits = (c.securebits & ~(1u << SECURE_KEEP_CAPS)) | (arg2 == 1 ? 1u << SECURE_KEEP_CAPS : 0);
      });
      return int64_t{0};
    case PR_GET_SECUREBITS:
      return int64_t{task.creds().securebits};
    case PR_SET_SECUREBITS:
      return SetSecurebits(task, arg2);
    case PR_SET_NAME: {
      char name[kCommLength] = {};
      for (size_t i = 0; i < kCommLength - 1; ++i) {
        name[i] = TRY(task.CopyIn(UserPtr<char>{arg2 + i}));
        if (name[i] == 0) break;
      }
      task.SetComm(name);
      return int64_t{0};
    }
    case PR_GET_NAME: {
      char name[kCommLength] = {};
      const std::string comm = task.comm();
      memcpy(name, comm.data(), std::min(comm.size(), kCommLength - 1));
      TRY(task.CopyOutBytes(arg2, name, sizeof name));
      return int64_t{0};
    }
    case PR_CAPBSET_READ:
      if (arg2 > CAP_LAST_CAP) return Errno(EINVAL);
      return int64_t{(task.creds().bounding & CapabilityBit(static_cast<int>(arg2.value))) != 0};
    case PR_CAPBSET_DROP:
      if (!task.creds().HasCapability(CAP_SETPCAP)) return Errno(EPERM);
      if (arg2 > CAP_LAST_CAP) return Errno(EINVAL);
      ChangeCreds(task, [&](Credentials& c) { c.bounding &= ~CapabilityBit(static_cast<int>(arg2.value)); });
      return int64_t{0};
    case PR_CAP_AMBIENT:
      return CapAmbient(task, arg2, arg3, arg4, arg5);
    case PR_SET_NO_NEW_PRIVS:
      if (arg2 != 1 || arg3 || arg4 || arg5) return Errno(EINVAL);
      ChangeCreds(task, [](Credentials& c) { c.no_new_privs = true; });
      return int64_t{0};
    case PR_GET_NO_NEW_PRIVS:
      if (arg2 || arg3 || arg4 || arg5) return Errno(EINVAL);
      state.AdoptNoNewPrivs();
      return int64_t{task.creds().no_new_privs};
    case PR_SET_CHILD_SUBREAPER: {
      absl::MutexLock lock(&task_set);
      process.is_child_subreaper = arg2 != 0;
      if (arg2 == 0) return int64_t{0};
      // All that descend from it look for it from now on.
      std::vector<ThreadGroup*> below = {&task.thread_group()};
      while (!below.empty()) {
        ThreadGroup* next = below.back();
        below.pop_back();
        for (const RefPtr<ThreadGroup>& child : next->state().children) {
          child->state().has_child_subreaper = true;
          below.push_back(child.get());
        }
      }
      return int64_t{0};
    }
    case PR_GET_CHILD_SUBREAPER: {
      bool is;
      {
        absl::MutexLock lock(&task_set);
        is = process.is_child_subreaper;
      }
      TRY(task.CopyOut(UserPtr<int32_t>{arg2}, is));
      return int64_t{0};
    }
    case PR_SET_TIMERSLACK:
      state.timer_slack_ns = arg2 == 0 ? 50000 : arg2.value;
      return int64_t{0};
    case PR_GET_TIMERSLACK:
      return static_cast<int64_t>(state.timer_slack_ns);
    case PR_GET_TIMING:
      return int64_t{PR_TIMING_STATISTICAL};
    case PR_SET_TIMING:
      if (arg2 != PR_TIMING_STATISTICAL) return Errno(EINVAL);
      return int64_t{0};
    case PR_GET_TID_ADDRESS:
      TRY(task.CopyOut(UserPtr<uint64_t>{arg2}, state.clear_child_tid));
      return int64_t{0};
    case PR_SET_MM:
      if (arg4 || arg5) return Errno(EINVAL);
      return SetMm(task, arg2, arg3);
    case PR_SET_VMA:
      // Names of anonymous mappings: optional in Linux too (CONFIG_ANON_VMA_NAME).
      return Errno(EINVAL);
    case PR_GET_SECCOMP: {
      absl::MutexLock lock(&process.signal_mutex);
      return int64_t{state.seccomp_mode};
    }
    case PR_SET_SECCOMP:
      return PrctlSetSeccomp(task, arg2, arg3);
    case PR_SET_THP_DISABLE:
      if (arg3 || arg4 || arg5) return Errno(EINVAL);
      state.thp_disabled = arg2 != 0;
      return int64_t{0};
    case PR_GET_THP_DISABLE:
      if (arg2 || arg3 || arg4 || arg5) return Errno(EINVAL);
      return int64_t{state.thp_disabled};
    case PR_MCE_KILL_GET:
      if (arg2 || arg3 || arg4 || arg5) return Errno(EINVAL);
      return int64_t{PR_MCE_KILL_DEFAULT};
    case PR_SET_PTRACER:
      return int64_t{0};  // Yama is not there: anybody with the right may trace anyway.
    case PR_GET_TSC:
      TRY(task.CopyOut(UserPtr<int32_t>{arg2}, PR_TSC_ENABLE));
      return int64_t{0};
    case PR_SET_TSC:
      if (arg2 != PR_TSC_ENABLE) return Errno(EINVAL);
      return int64_t{0};
    default:
      return Errno(EINVAL);
  }
}

Result<int64_t> SysArchPrctl(Task& task, int code, Hex address) {
  constexpr int kGetXcompSupported = 0x1021, kGetXcompPerm = 0x1022, kReqXcompPerm = 0x1023;
  constexpr uint64_t kBaseXfeatures = 0x7;
  Registers& regs = task.regs();
  switch (code) {
    case ARCH_SET_FS:
      if (address >= kTaskSizeMax) return Errno(EPERM);
      regs.fs_base = address;
      return int64_t{0};
    case ARCH_SET_GS:
      if (address >= kTaskSizeMax) return Errno(EPERM);
      regs.gs_base = address;
      return int64_t{0};
    case ARCH_GET_FS:
      TRY(task.CopyOut(UserPtr<uint64_t>{address}, regs.fs_base));
      return int64_t{0};
    case ARCH_GET_GS:
      TRY(task.CopyOut(UserPtr<uint64_t>{address}, regs.gs_base));
      return int64_t{0};
    case ARCH_GET_CPUID:
      return int64_t{1};
    case ARCH_SET_CPUID:
      if (address != 0) return int64_t{0};
      return Errno(ENODEV);
    case kGetXcompSupported:
    case kGetXcompPerm:
      TRY(task.CopyOut(UserPtr<uint64_t>{address}, GuestXfeatures() | kBaseXfeatures));
      return int64_t{0};
    case kReqXcompPerm:
      // AMX is not for guests; what everybody has needs no asking.
      if (address >= 64) return Errno(EINVAL);
      if (GuestXfeatures() >> address & 1) return int64_t{0};
      return Errno(EOPNOTSUPP);
    default:
      return Errno(EINVAL);
  }
}

Result<unsigned> SysPersonality(Task& task, unsigned persona) {
  const unsigned before = task.state().personality;
  if (persona == 0xffffffff) return before;
  // Any is taken; of its bugs and features those that mean something here are honoured.
  task.state().personality = persona;
  return before;
}

}  // namespace caisson
