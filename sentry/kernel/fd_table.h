// Descriptor tables (Linux's files_struct): numbers to open file descriptions.
#ifndef CAISSON_SENTRY_KERNEL_FD_TABLE_H_
#define CAISSON_SENTRY_KERNEL_FD_TABLE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/vfs/file.h"

namespace caisson {

class FdTable : public RefCounted {
 public:
  FdTable();
  // fork(2): the same descriptions under the same numbers.
  RefPtr<FdTable> Clone() const;
  // Each task that uses the table counts as a user; the last one to leave closes everything.
  void Enter();
  void Leave(Task& task);
  bool shared() const;  // More than one task uses it.

  // EBADF. Lock-free.
  Result<RefPtr<File>> Get(int fd) const;
  // The lowest free number >= `from` and below `limit` (RLIMIT_NOFILE). EMFILE; EINVAL when from >= limit.
  Result<int> Install(RefPtr<File> file, bool close_on_exec, uint64_t limit, int from = 0);
  // dup2/dup3: replaces what is there; the old description, if any, is returned for the caller to close. EBADF: beyond.
  Result<RefPtr<File>> InstallAt(int fd, RefPtr<File> file, bool close_on_exec, uint64_t limit);
  // Takes the description out; the caller calls OnClose and drops it. EBADF.
  Result<RefPtr<File>> Remove(int fd);
  Result<bool> close_on_exec(int fd) const;
  Result<void> SetCloseOnExec(int fd, bool close_on_exec);
  // close_range(2): [first, last]; either closes or marks.
  void CloseRange(Task& task, unsigned first, unsigned last, bool only_mark);
  void CloseOnExec(Task& task);
  // Open numbers, ascending: /proc/PID/fd.
  std::vector<int> Numbers() const;
  int highest() const;

 private:
  friend class FdReservation;
  ~FdTable() override;
  struct State;
  State* state_;
};

// Numbers held until all is known to succeed (pipe, socketpair, accept, recvmsg): freed unless committed.
//
//   FdReservation fds = TRY(FdReservation::Reserve(task, 2));
//   TRY(task.CopyOut(user, …fds[0]…));
//   fds.Commit(0, file, cloexec);
class FdReservation {
 public:
  static Result<FdReservation> Reserve(Task& task, int count);
  FdReservation(FdReservation&&) noexcept;
  ~FdReservation();
  int operator[](int i) const { return fds_[i]; }
  void Commit(int i, RefPtr<File> file, bool close_on_exec);

 private:
  FdReservation() = default;
  RefPtr<FdTable> table_;
  std::vector<int> fds_;  // -1 once committed.
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_FD_TABLE_H_
