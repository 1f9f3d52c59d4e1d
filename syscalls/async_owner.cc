#include "syscalls/async_owner.h"

#include <signal.h>

#include <memory>

namespace caisson {

FileAsyncOwner* FileAsyncOwner::IfAny(File& file) {
  return static_cast<FileAsyncOwner*>(file.async_owner().load(std::memory_order_acquire));
}

FileAsyncOwner& FileAsyncOwner::Of(File& file) {
  if (FileAsyncOwner* owner = IfAny(file)) return *owner;
  auto fresh = std::make_unique<FileAsyncOwner>(file);
  File::AsyncOwner* expected = nullptr;
  if (file.async_owner().compare_exchange_strong(expected, fresh.get(), std::memory_order_acq_rel)) {
    return *fresh.release();
  }
  return static_cast<FileAsyncOwner&>(*expected);
}

FileAsyncOwner::~FileAsyncOwner() { SetEnabled(false, -1); }

Result<void> FileAsyncOwner::SetOwner(Task& task, OwnerEx owner) {
  RefPtr<Task> thread;
  RefPtr<ThreadGroup> process;
  RefPtr<ProcessGroup> group;
  if (owner.type != F_OWNER_TID && owner.type != F_OWNER_PID && owner.type != F_OWNER_PGRP) return Errno(EINVAL);
  if (owner.pid != 0) {
    PidNamespace& ns = task.pid_ns();
    if (owner.type == F_OWNER_TID) thread = ns.FindTask(owner.pid);
    if (owner.type == F_OWNER_PID) {
      process = ns.FindThreadGroup(owner.pid);
      // A number of a thread stands for its process.
      if (!process) {
        if (RefPtr<Task> any = ns.FindTask(owner.pid)) process = RefPtr<ThreadGroup>(&any->thread_group());
      }
    }
    if (owner.type == F_OWNER_PGRP) group = ns.FindProcessGroup(owner.pid);
    if (!thread && !process && !group) return Errno(ESRCH);
  }
  RefPtr<const Credentials> creds(&task.creds());
  absl::MutexLock lock(&mutex_);
  type_ = owner.type;
  // What was there goes after the lock, with the arguments.
  std::swap(task_, thread);
  std::swap(process_, process);
  std::swap(group_, group);
  std::swap(creds_, creds);
  return {};
}

OwnerEx FileAsyncOwner::GetOwner(Task& task) const {
  PidNamespace& ns = task.pid_ns();
  absl::MutexLock lock(&mutex_);
  OwnerEx owner{type_, 0};
  if (task_) owner.pid = ns.TidOf(*task_);
  if (process_) owner.pid = process_->TgidIn(ns);
  if (group_) owner.pid = group_->IdIn(ns);
  return owner;
}

Result<void> FileAsyncOwner::SetSignal(int signo) {
  if (signo != 0 && !abi::IsValidSignal(signo)) return Errno(EINVAL);
  absl::MutexLock lock(&mutex_);
  signo_ = signo;
  return {};
}

int FileAsyncOwner::GetSignal() const {
  absl::MutexLock lock(&mutex_);
  return signo_;
}

void FileAsyncOwner::SetEnabled(bool enabled, int fd) {
  WaitQueue* queue = file_.wait_queue();
  if (!queue) return;
  absl::MutexLock lock(&enable_mutex_);
  {
    absl::MutexLock inner(&mutex_);
    fd_ = fd;
  }
  if (enabled == registered_) return;
  registered_ = enabled;
  if (enabled) {
    queue->Add(this, kEventIn | kEventOut | EPOLLPRI | kEventHupErr);
  } else {
    queue->Remove(this);
  }
}

bool FileAsyncOwner::OnEvent(EventMask events) {
  absl::MutexLock lock(&mutex_);
  abi::Siginfo info;
  info.signo = signo_ ? signo_ : SIGIO;
  if (signo_ == 0) {
    info.code = SI_KERNEL;
  } else {  // send_sigio_to_task(): which descriptor, and what about it.
    info.code = events & EPOLLERR ? POLL_ERR : events & EPOLLHUP ? POLL_HUP : events & kEventIn ? POLL_IN : POLL_OUT;
    info.poll.band = static_cast<int64_t>(events);
    info.poll.fd = fd_;
  }
  auto may = [&](Task& target) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    RefPtr<const Credentials> theirs = target.GetCreds();
    return theirs && MaySignal(*creds_, *theirs);
  };
  if (task_) {
    if (may(*task_)) (void)task_->SendSignal(info);
  } else if (process_) {
    RefPtr<Task> leader = process_->leader();
    if (leader && may(*leader)) (void)process_->SendSignal(info);
  } else if (group_) {
    (void)group_->SendSignal(info);
  }
  return false;  // Others may be waiting for the same.
}

}  // namespace caisson
