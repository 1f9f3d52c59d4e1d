#include "syscalls/fcntl.h"

#include "sentry/fs/pipe/pipe_file.h"
#include "sentry/fs/tmpfs/memfd.h"
#include "syscalls/async_owner.h"

namespace caisson {
namespace {

// What an O_PATH descriptor knows.
bool IsForPathOnly(int command) {
  return command == F_DUPFD || command == F_DUPFD_CLOEXEC || command == F_GETFD || command == F_SETFD ||
         command == F_GETFL;
}

Result<int64_t> SetFlags(Task& task, Fd fd, File& file, int flags) {
  if ((flags & O_NOATIME) && !(file.flags() & O_NOATIME)) {
    InodeAttr attr = TRY(file.inode().GetAttr());
    const Credentials& creds = task.creds();
    if (creds.fsuid != attr.uid && !creds.HasCapability(CAP_FOWNER)) return Errno(EPERM);
  }
  const bool was_async = file.flags() & O_ASYNC;
  file.SetFlags(flags);
  const bool is_async = flags & O_ASYNC;
  if (is_async != was_async) FileAsyncOwner::Of(file).SetEnabled(is_async, fd.number);
  return 0;
}

Result<int64_t> OwnerCommand(Task& task, File& file, int command, uint64_t argument) {
  switch (command) {
    case F_SETOWN: {
      const int who = static_cast<int>(argument);
      if (who == INT32_MIN) return Errno(EINVAL);
      TRY(FileAsyncOwner::Of(file).SetOwner(task, who < 0 ? OwnerEx{F_OWNER_PGRP, -who} : OwnerEx{F_OWNER_PID, who}));
      return 0;
    }
    case F_GETOWN: {
      FileAsyncOwner* owner = FileAsyncOwner::IfAny(file);
      if (!owner) return 0;
      OwnerEx who = owner->GetOwner(task);
      return who.type == F_OWNER_PGRP ? -who.pid : who.pid;
    }
    case F_SETOWN_EX:
      TRY(FileAsyncOwner::Of(file).SetOwner(task, TRY(task.CopyIn(UserPtr<OwnerEx>{argument}))));
      return 0;
    case F_GETOWN_EX: {
      FileAsyncOwner* owner = FileAsyncOwner::IfAny(file);
      TRY(task.CopyOut(UserPtr<OwnerEx>{argument}, owner ? owner->GetOwner(task) : OwnerEx{F_OWNER_PID, 0}));
      return 0;
    }
    case F_SETSIG:
      TRY(FileAsyncOwner::Of(file).SetSignal(static_cast<int>(argument)));
      return 0;
    default: {  // F_GETSIG
      FileAsyncOwner* owner = FileAsyncOwner::IfAny(file);
      return owner ? owner->GetSignal() : 0;
    }
  }
}

Result<int64_t> PipeCommand(Task& task, File& file, int command, uint64_t argument) {
  Pipe* pipe = PipeOf(file);
  if (!pipe) return Errno(EBADF);
  if (command == F_GETPIPE_SZ) return static_cast<int64_t>(pipe->capacity_bytes());
  return static_cast<int64_t>(
      TRY(pipe->Resize(static_cast<unsigned>(argument), task.creds().HasCapability(CAP_SYS_RESOURCE))));
}

Result<int64_t> Duplicate(Task& task, RefPtr<File> file, uint64_t from, bool close_on_exec) {
  const uint64_t limit = task.Limit(RLIMIT_NOFILE);
  const unsigned lowest = static_cast<unsigned>(from);
  if (lowest >= limit || lowest > INT32_MAX) return Errno(EINVAL);
  return TRY(task.fd_table().Install(std::move(file), close_on_exec, limit, static_cast<int>(lowest)));
}

}  // namespace

std::string FcntlCommand::Format() const {
  struct Name {
    int value;
    const char* name;
  };
  static constexpr Name kNames[] = {
      {F_DUPFD, "F_DUPFD"},           {F_GETFD, "F_GETFD"},       {F_SETFD, "F_SETFD"},
      {F_GETFL, "F_GETFL"},           {F_SETFL, "F_SETFL"},       {F_GETLK, "F_GETLK"},
      {F_SETLK, "F_SETLK"},           {F_SETLKW, "F_SETLKW"},     {F_SETOWN, "F_SETOWN"},
      {F_GETOWN, "F_GETOWN"},         {F_SETSIG, "F_SETSIG"},     {F_GETSIG, "F_GETSIG"},
      {F_SETOWN_EX, "F_SETOWN_EX"},   {F_GETOWN_EX, "F_GETOWN_EX"}, {F_OFD_GETLK, "F_OFD_GETLK"},
      {F_OFD_SETLK, "F_OFD_SETLK"},   {F_OFD_SETLKW, "F_OFD_SETLKW"}, {F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"},
      {F_SETPIPE_SZ, "F_SETPIPE_SZ"}, {F_GETPIPE_SZ, "F_GETPIPE_SZ"}, {F_ADD_SEALS, "F_ADD_SEALS"},
      {F_GET_SEALS, "F_GET_SEALS"},
  };
  for (const Name& n : kNames) {
    if (n.value == value) return n.name;
  }
  return std::to_string(value);
}

Result<int64_t> SysFcntl(Task& task, Fd fd, FcntlCommand command, Hex argument) {
  RefPtr<File> file = TRY(task.GetFile(fd));
  if (file->path_only() && !IsForPathOnly(command.value)) return Errno(EBADF);
  const UserPtr<abi::Flock> user_lock{argument.value};
  switch (command.value) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
      return Duplicate(task, std::move(file), argument, command.value == F_DUPFD_CLOEXEC);
    case F_GETFD:
      return TRY(task.fd_table().close_on_exec(fd.number)) ? FD_CLOEXEC : 0;
    case F_SETFD:
      TRY(task.fd_table().SetCloseOnExec(fd.number, argument & FD_CLOEXEC));
      return 0;
    case F_GETFL:
      return file->flags();
    case F_SETFL:
      return SetFlags(task, fd, *file, static_cast<int>(argument.value));
    case F_GETLK:
    case F_OFD_GETLK:
      TRY(GetRecordLock(task, *file, command.value == F_OFD_GETLK, user_lock));
      return 0;
    case F_SETLK:
    case F_SETLKW:
      TRY(SetRecordLock(task, *file, false, command.value == F_SETLKW, user_lock));
      return 0;
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
      TRY(SetRecordLock(task, *file, true, command.value == F_OFD_SETLKW, user_lock));
      return 0;
    case F_SETOWN:
    case F_GETOWN:
    case F_SETOWN_EX:
    case F_GETOWN_EX:
    case F_SETSIG:
    case F_GETSIG:
      return OwnerCommand(task, *file, command.value, argument);
    case F_SETPIPE_SZ:
    case F_GETPIPE_SZ:
      return PipeCommand(task, *file, command.value, argument);
    case F_ADD_SEALS:
      TRY(AddSeals(*file, static_cast<int>(argument.value)));
      return 0;
    case F_GET_SEALS:
      return TRY(GetSeals(*file));
    case F_GETLEASE:
      return F_UNLCK;  // Nobody ever gets one:
    case F_SETLEASE:
      return static_cast<int>(argument.value) == F_UNLCK ? Errno(EAGAIN) : Errno(EINVAL);
    default:
      return Errno(EINVAL);
  }
}

}  // namespace caisson
