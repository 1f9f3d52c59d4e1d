#include "platform/stub/stub_process.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "platform/stub/filters.h"
#include "platform/stub/placement.h"
#include "sentry/base/log.h"

namespace caisson::stub {
namespace {

constexpr uint32_t kMaxOps = sizeof(RequestPage::ops) / sizeof(RequestOp);
constexpr size_t kMaxFds = 16;

Result<void> CheckRange(const MapOp& op) {
  if (op.length == 0 || (op.address | op.length) & 4095) return Errno(EINVAL);
  if (op.address < kGuestStart || op.address >= kGuestEnd || op.length > kGuestEnd - op.address) return Errno(EFAULT);
  return {};
}

}  // namespace

Result<RefPtr<StubProcess>> StubProcess::Create(ZygoteProcess& zygote) {
  uint32_t slot = TRY(zygote.control().AllocateRequestPage());
  Result<ZygoteProcess::Spawned> spawned = zygote.Spawn(slot);
  if (!spawned.ok()) {
    zygote.control().FreeRequestPage(slot);
    return spawned.error();
  }
  return RefPtr<StubProcess>::Adopt(new StubProcess(zygote, slot, std::move(*spawned)));
}

Result<void> StubProcess::Execute(uint32_t count, std::span<const int> fds) {
  if (dead()) return Errno(ESRCH);
  if (!fds.empty()) TRY(SendFds(fds));
  page_->count = count;
  page_->fds = !fds.empty();
  // The write that follows orders these stores before the service thread's loads.
  page_->seq = ++seq_;

  // The caller sleeps while the service thread works: on one CPU that is a switch, on two it is a wake-up each way.
  if (const int cpu = sched_getcpu(); cpu != service_cpu_) {
    ConfineToCpu(pid_, cpu);
    service_cpu_ = cpu;
  }
  // An eventfd and a pipe are the cheapest pair on one CPU: 2.8 us there and back, where two packets on a unix socket
  // take 4.0 us.
  const uint64_t one = 1;
  CHECK(write(requests_.get(), &one, sizeof one) == sizeof one);
  // No guest thread can write to the pipe, so this is the service thread's word. Its end shows that the stub is gone.
  uint8_t answer;
  ssize_t size;
  do {
    size = read(answers_.get(), &answer, 1);
  } while (size < 0 && errno == EINTR);
  if (size != 1) {
    MarkDead();
    return Errno(ESRCH);
  }
  if (answer != 0) return Errno(answer);
  return {};
}

Result<void> StubProcess::SendFds(std::span<const int> fds) {
  char byte = 0;
  iovec iov = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(fds.size_bytes());
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size_bytes());
  memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  ssize_t size;
  do {
    size = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
  } while (size < 0 && errno == EINTR);
  if (size >= 0) return {};
  const int error = errno;
  // EBADF and its like are the caller's descriptor's, and the service thread has not heard of it.
  if (error != EPIPE && error != ECONNRESET) return Errno(error);
  MarkDead();
  return Errno(ESRCH);
}

Result<void> StubProcess::Apply(std::span<const MapOp> ops, int memory_fd) {
  absl::MutexLock lock(&mu_);
  uint32_t count = 0;
  int fds[kMaxFds];
  size_t fd_count = 0;

  auto flush = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) -> Result<void> {
    if (count == 0) return {};
    for (size_t i = 0; i < fd_count; ++i) page_->ops[count++] = {SYS_close, {STUB_FD_RECEIVED + i}};
    Result<void> result = Execute(count, {fds, fd_count});
    count = 0;
    fd_count = 0;
    return result;
  };

  for (const MapOp& op : ops) {
    if (Result<void> valid = CheckRange(op); !valid.ok()) {
      TRY(flush());
      return valid;
    }
    const uint64_t prot = op.prot & (PROT_READ | PROT_WRITE | PROT_EXEC);
    if (count + fd_count + 2 > kMaxOps || fd_count == kMaxFds) TRY(flush());
    RequestOp& call = page_->ops[count];
    switch (op.kind) {
      case MapOp::Kind::kMap: {
        uint64_t fd = STUB_FD_MEMORY;
        if (op.fd != memory_fd) {
          size_t i = std::find(fds, fds + fd_count, op.fd) - fds;
          if (i == fd_count) fds[fd_count++] = op.fd;
          fd = STUB_FD_RECEIVED + i;
        }
        const uint64_t flags = MAP_SHARED | MAP_FIXED | (op.populate ? MAP_POPULATE : 0);
        call = {SYS_mmap, {op.address, op.length, prot, flags, fd, op.offset}};
        break;
      }
      case MapOp::Kind::kUnmap:
        call = {SYS_munmap, {op.address, op.length}};
        break;
      case MapOp::Kind::kProtect:
        call = {SYS_mprotect, {op.address, op.length, prot}};
        break;
    }
    ++count;
  }
  return flush();
}

Result<ThreadArea*> StubProcess::NewArea() {
  // One whose last thread has ended. A guest can lie about that, and then runs two of its threads in one area.
  for (size_t i = 0; i < abandoned_.size(); ++i) {
    if (__atomic_load_n(&abandoned_[i]->header->tid, __ATOMIC_ACQUIRE) != 0) continue;
    ThreadArea* area = abandoned_[i];
    abandoned_.erase(abandoned_.begin() + i);
    return area;
  }
  if (areas_.size() == STUB_MAX_THREADS) return Errno(EAGAIN);
  auto area = std::make_unique<ThreadArea>();
  area->index = static_cast<uint32_t>(areas_.size());
  area->slot = TRY(zygote_.control().AllocateArea());
  area->memory = zygote_.control().area(area->slot);
  area->header = reinterpret_cast<ThreadHeader*>(area->memory + AREA_HEADER);
  page_->ops[0] = {SYS_mmap,
                   {area->stub_address(), kAreaSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, STUB_FD_CONTROL,
                    ControlMemory::AreaOffset(area->slot)}};
  if (Result<void> mapped = Execute(1, {}); !mapped.ok()) {
    // Not mapped, or mapped by a process that is gone.
    zygote_.control().FreeArea(area->slot);
    return mapped.error();
  }
  areas_.push_back(std::move(area));
  return areas_.back().get();
}

Result<ThreadArea*> StubProcess::StartThread(bool expose) {
  absl::MutexLock lock(&mu_);
  if (destroyed_) return Errno(ESRCH);
  ThreadArea* area = TRY(NewArea());
  ThreadHeader* header = area->header;
  memset(static_cast<void*>(header), 0, sizeof *header);
  header->stack.ss_sp = reinterpret_cast<void*>(area->stub_address() + AREA_STACK);
  header->stack.ss_size = kAreaSize - AREA_STACK;
  header->event_frame = kAreaSize - 64;
  header->state.store(STATE_PARKED);
  const uint64_t tid_address = area->stub_header() + HEADER_TID;
  uint32_t count = 0;
  if (expose) page_->ops[count++] = {SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0, 0}};
  page_->ops[count++] = {SYS_clone, {kThreadCloneFlags, area->stub_header(), tid_address, tid_address, 0}};
  Result<void> made = Execute(count, {});
  if (!made.ok()) {
    abandoned_.push_back(area);
    return made.error();
  }
  // A hostile sibling can have written this word. It can only have named another guest thread of its own process: the
  // process's pid is not used again before it is reaped, and the service thread's is refused.
  int tid = static_cast<int>(__atomic_load_n(&header->tid, __ATOMIC_ACQUIRE));
  if (tid <= 0 || tid == pid_ || syscall(SYS_tgkill, pid_, tid, 0) != 0) {
    Kill();
    return Errno(ESRCH);
  }
  area->tid = tid;
  area->cpu = service_cpu_;  // Inherited.
  return area;
}

Result<void> StubProcess::HideFromTracers() {
  absl::MutexLock lock(&mu_);
  if (destroyed_) return Errno(ESRCH);
  page_->ops[0] = {SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0}};
  return Execute(1, {});
}

void StubProcess::AbandonThread(ThreadArea* area) {
  absl::MutexLock lock(&mu_);
  if (!destroyed_) abandoned_.push_back(area);
}

void StubProcess::Kill() {
  MarkDead();
  syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
}

void StubProcess::Destroy(std::span<const int> traced_tids) {
  absl::MutexLock lock(&mu_);
  if (destroyed_) return;
  destroyed_ = true;
  Kill();
  // Threads that we trace are gone only when we have waited for them.
  for (int tid : traced_tids) {
    int status;
    for (;;) {
      int r = waitpid(tid, &status, __WALL);
      if (r == tid && (WIFEXITED(status) || WIFSIGNALED(status))) break;
      if (r < 0 && errno != EINTR) break;
    }
  }
  pollfd poll_fd = {pidfd_.get(), POLLIN, 0};
  while (poll(&poll_fd, 1, -1) != 1) {
  }
  zygote_.Reap(pid_);
  for (const auto& area : areas_) zygote_.control().FreeArea(area->slot);
  abandoned_.clear();
  zygote_.control().FreeRequestPage(slot_);
}

}  // namespace caisson::stub
