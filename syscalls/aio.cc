// io_setup(2), io_submit(2), io_getevents(2) and their relatives. A request is carried out when it is submitted, which is
// what Linux does for buffered files, pipes and sockets; its event waits to be collected.
#include "syscalls/aio.h"

#include <sys/mman.h>

#include <deque>
#include <map>

#include "sentry/fs/anon/eventfd.h"
#include "sentry/kernel/task_state.h"
#include "sentry/kernel/thread_group_state.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/time/timers.h"
#include "syscalls/file.h"
#include "syscalls/poll_set.h"
#include "syscalls/read_write.h"

namespace caisson {

// struct __aio_sigset.
struct AioSigset {
  uint64_t mask;
  uint64_t size;
};

namespace {

constexpr unsigned kMostRequests = 65536;  // fs.aio-max-nr
constexpr int64_t kMostEventsAtOnce = 1 << 16;

class AioContext : public RefCounted {
 public:
  explicit AioContext(unsigned count) : most(count) {}
  const unsigned most;
  WaitQueue queue;
  absl::Mutex mutex;
  std::deque<::io_event> events ABSL_GUARDED_BY(mutex);
  bool destroyed ABSL_GUARDED_BY(mutex) = false;
};

class AioContexts : public RefCounted {
 public:
  absl::Mutex mutex;
  std::map<uint64_t, RefPtr<AioContext>> all ABSL_GUARDED_BY(mutex);
  uint64_t requests ABSL_GUARDED_BY(mutex) = 0;
};

RefPtr<AioContexts> Contexts(Task& task, bool make) {
  ThreadGroup::State& process = task.thread_group().state();
  absl::MutexLock lock(&process.aio_mutex);
  if (!process.aio_contexts && make) process.aio_contexts = MakeRef<AioContexts>();
  return RefPtr<AioContexts>(static_cast<AioContexts*>(process.aio_contexts.get()));
}

Result<RefPtr<AioContext>> Find(Task& task, uint64_t id) {
  RefPtr<AioContexts> contexts = Contexts(task, false);
  if (!contexts) return Errno(EINVAL);
  absl::MutexLock lock(&contexts->mutex);
  auto found = contexts->all.find(id);
  if (found == contexts->all.end()) return Errno(EINVAL);
  return found->second;
}

Result<int64_t> CarryOut(Task& task, const ::iocb& request) {
  const Fd fd{static_cast<int>(request.aio_fildes)};
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (file->path_only()) return Errno(EBADF);
  const UserPtr<void> buffer{request.aio_buf};
  const UserPtr<abi::Iovec> iov{request.aio_buf};
  auto as_result = [](Result<size_t> n) -> Result<int64_t> {
    if (!n.ok()) return n.error();
    return static_cast<int64_t>(*n);
  };
  auto done = [](Result<void> r) -> Result<int64_t> {
    if (!r.ok()) return r.error();
    return int64_t{0};
  };
  const bool at_offset = file->seekable();
  switch (request.aio_lio_opcode) {
    case IOCB_CMD_PREAD:
      return as_result(at_offset ? SysPread64(task, fd, buffer, request.aio_nbytes, request.aio_offset)
                                 : SysRead(task, fd, buffer, request.aio_nbytes));
    case IOCB_CMD_PWRITE:
      return as_result(at_offset ? SysPwrite64(task, fd, buffer, request.aio_nbytes, request.aio_offset)
                                 : SysWrite(task, fd, buffer, request.aio_nbytes));
    case IOCB_CMD_PREADV:
      return as_result(at_offset ? SysPreadv(task, fd, iov, request.aio_nbytes, request.aio_offset)
                                 : SysReadv(task, fd, iov, request.aio_nbytes));
    case IOCB_CMD_PWRITEV:
      return as_result(at_offset ? SysPwritev(task, fd, iov, request.aio_nbytes, request.aio_offset)
                                 : SysWritev(task, fd, iov, request.aio_nbytes));
    case IOCB_CMD_FSYNC:
    case IOCB_CMD_FDSYNC:
      return done(file->Fsync(task, request.aio_lio_opcode == IOCB_CMD_FDSYNC));
    default:
      return Errno(EINVAL);
  }
}

// What is wrong with a request before it begins is the error of the call; later it is the event's.
Result<void> CheckRequest(Task& task, const ::iocb& request) {
  if (request.aio_reserved2 != 0) return Errno(EINVAL);
  if (static_cast<int64_t>(request.aio_nbytes) < 0) return Errno(EINVAL);
  RefPtr<File> file = TRY(task.GetFile(Fd{static_cast<int>(request.aio_fildes)}));
  if (file->path_only()) return Errno(EBADF);
  switch (request.aio_lio_opcode) {
    case IOCB_CMD_PREAD:
    case IOCB_CMD_PREADV:
      if (!file->readable()) return Errno(EBADF);
      break;
    case IOCB_CMD_PWRITE:
    case IOCB_CMD_PWRITEV:
      if (!file->writable()) return Errno(EBADF);
      break;
    case IOCB_CMD_FSYNC:
    case IOCB_CMD_FDSYNC:
      if (request.aio_buf || request.aio_offset || request.aio_nbytes || request.aio_rw_flags) return Errno(EINVAL);
      if (!file->inode().IsRegular() && !file->inode().IsDirectory()) return Errno(EINVAL);
      return {};
    default:
      return Errno(EINVAL);
  }
  if (file->seekable() && static_cast<int64_t>(request.aio_offset) < 0) return Errno(EINVAL);
  if (file->inode().IsDirectory()) return Errno(EINVAL);
  return {};
}

Result<void> SubmitOne(Task& task, AioContext& context, uint64_t address) {
  const ::iocb request = TRY(task.CopyIn(UserPtr<::iocb>{address}));
  RefPtr<File> told;
  TRY(CheckRequest(task, request));
  if (request.aio_flags & ~(IOCB_FLAG_RESFD | IOCB_FLAG_IOPRIO)) return Errno(EINVAL);
  if (request.aio_flags & IOCB_FLAG_RESFD) {
    told = TRY(task.GetFile(Fd{static_cast<int>(request.aio_resfd)}));
    if (!dynamic_cast<EventFd*>(told.get())) return Errno(EINVAL);
  }
  {
    absl::MutexLock lock(&context.mutex);
    if (context.events.size() >= context.most) return Errno(EAGAIN);
  }
  // KIOCB_KEY.
  TRY(task.CopyOut(UserPtr<uint32_t>{address + offsetof(::iocb, aio_key)}, 0));
  Result<int64_t> result = CarryOut(task, request);
  if (!result.ok() && result.error().IsRestart()) result = Errno(EINTR);
  ::io_event event{};
  event.data = request.aio_data;
  event.obj = address;
  event.res = result.ok() ? *result : -result.error().code();
  {
    absl::MutexLock lock(&context.mutex);
    context.events.push_back(event);
  }
  context.queue.Notify(kEventAny);
  if (told) static_cast<EventFd&>(*told).Signal(1);
  return {};
}

Result<int64_t> Collect(Task& task, uint64_t id, int64_t least, int64_t most, UserPtr<::io_event> user_events,
                        int64_t deadline_ns) {
  RefPtr<AioContext> context = TRY(Find(task, id));
  if (least < 0 || most < 0 || least > most) return Errno(EINVAL);
  int64_t collected = 0;
  bool fault = false;
  auto take = [&] {
    while (collected < std::min(most, kMostEventsAtOnce)) {
      ::io_event event;
      {
        absl::MutexLock lock(&context->mutex);
        if (context->events.empty()) return context->destroyed || collected >= least;
        event = context->events.front();
      }
      if (!task.CopyOut(user_events + static_cast<uint64_t>(collected), event).ok()) {
        fault = true;
        return true;
      }
      absl::MutexLock lock(&context->mutex);
      if (!context->events.empty()) context->events.pop_front();
      ++collected;
    }
    return true;
  };
  if (!take()) {
    Result<void> waited = task.BlockUntil(context->queue, kEventAny, deadline_ns, take);
    if (!waited.ok() && !(waited.error() == ETIMEDOUT) && collected == 0) return Errno(EINTR);
  }
  if (fault && collected == 0) return Errno(EFAULT);
  return collected;
}

Result<int64_t> Deadline(Task& task, UserPtr<abi::Timespec> timeout) {
  if (timeout.null()) return kNoDeadline;
  return DeadlineOf(TRY(task.CopyIn(timeout)));
}

}  // namespace

Result<void> SysIoSetup(Task& task, unsigned count, UserPtr<uint64_t> user_context) {
  const uint64_t before = TRY(task.CopyIn(user_context));
  if (before != 0 || count == 0) return Errno(EINVAL);
  if (count > 0x10000000 / sizeof(::io_event)) return Errno(EINVAL);
  RefPtr<AioContexts> contexts = Contexts(task, true);
  {
    absl::MutexLock lock(&contexts->mutex);
    if (contexts->requests + count > kMostRequests) return Errno(EAGAIN);
    contexts->requests += count;
  }
  // libaio looks for a ring of completions where the context's number points; one of zeros is none.
  MmapRequest page;
  page.length = abi::kPageSize;
  page.prot = PROT_READ | PROT_WRITE;
  page.flags = MAP_PRIVATE | MAP_ANONYMOUS;
  Result<uint64_t> id = task.mm().Mmap(page, task.memory_limits());
  if (id.ok()) {
    Result<void> copied = task.CopyOut(user_context, *id);
    if (copied.ok()) {
      absl::MutexLock lock(&contexts->mutex);
      contexts->all[*id] = MakeRef<AioContext>(count);
      return {};
    }
    (void)task.mm().Munmap(*id, abi::kPageSize);
    id = copied.error();
  }
  absl::MutexLock lock(&contexts->mutex);
  contexts->requests -= count;
  return id.error();
}

Result<void> SysIoDestroy(Task& task, Hex id) {
  RefPtr<AioContexts> contexts = Contexts(task, false);
  if (!contexts) return Errno(EINVAL);
  RefPtr<AioContext> context;
  {
    absl::MutexLock lock(&contexts->mutex);
    auto found = contexts->all.find(id);
    if (found == contexts->all.end()) return Errno(EINVAL);
    context = std::move(found->second);
    contexts->all.erase(found);
    contexts->requests -= context->most;
  }
  {
    absl::MutexLock lock(&context->mutex);
    context->destroyed = true;
  }
  context->queue.Notify(kEventAny);
  (void)task.mm().Munmap(id, abi::kPageSize);
  return {};
}

Result<int64_t> SysIoSubmit(Task& task, Hex id, int64_t count, UserPtr<uint64_t> requests) {
  if (count < 0) return Errno(EINVAL);
  RefPtr<AioContext> context = TRY(Find(task, id));
  count = std::min<int64_t>(count, context->most);
  for (int64_t i = 0; i < count; ++i) {
    Result<uint64_t> address = task.CopyIn(requests + static_cast<uint64_t>(i));
    Result<void> submitted = address.ok() ? SubmitOne(task, *context, *address) : Result<void>(address.error());
    if (submitted.ok()) continue;
    if (i == 0) return submitted.error();
    return i;
  }
  return count;
}

Result<int> SysIoCancel(Task& task, Hex id, UserPtr<::iocb> request, UserPtr<::io_event>) {
  const uint32_t key = TRY(task.CopyIn(UserPtr<uint32_t>{request.address + offsetof(::iocb, aio_key)}));
  if (key != 0) return Errno(EINVAL);
  TRY(Find(task, id));
  return Errno(EINVAL);  // What was submitted is done: there is nothing to cancel.
}

Result<int64_t> SysIoGetevents(Task& task, Hex id, int64_t least, int64_t most, UserPtr<::io_event> events,
                               UserPtr<abi::Timespec> timeout) {
  const int64_t deadline = TRY(Deadline(task, timeout));
  return Collect(task, id, least, most, events, deadline);
}

Result<int64_t> SysIoPgetevents(Task& task, Hex id, int64_t least, int64_t most, UserPtr<::io_event> events,
                                UserPtr<abi::Timespec> timeout, UserPtr<AioSigset> user_mask) {
  const int64_t deadline = TRY(Deadline(task, timeout));
  if (!user_mask.null()) {
    const AioSigset mask = TRY(task.CopyIn(user_mask));
    if (mask.mask != 0) {
      if (mask.size != sizeof(abi::Sigset)) return Errno(EINVAL);
      task.SetTemporarySignalMask(TRY(task.CopyIn(UserPtr<abi::Sigset>{mask.mask})));
    }
  }
  Result<int64_t> collected = Collect(task, id, least, most, events, deadline);
  if (!collected.ok() && collected.error() == EINTR) return Errno(kErestartNoHand);
  return collected;
}

}  // namespace caisson
