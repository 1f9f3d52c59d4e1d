// System V IPC (sysvipc(7)): the tables of an IPC namespace.
//
// Lock order: a table's mutex is a leaf but for a segment's, a task's wake word and the credentials. No table lock is held
// across a call of the memory manager, which tells segments of mappings with its own lock held.
#ifndef CAISSON_SENTRY_KERNEL_SYSV_IPC_H_
#define CAISSON_SENTRY_KERNEL_SYSV_IPC_H_

#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/wait_queue.h"

namespace caisson {

// struct kern_ipc_perm: who owns an object and what others may do. Guarded by its table's mutex but for `id`.
struct IpcPermissions {
  int id = -1;
  int32_t key = 0;
  uid_t uid = 0, cuid = 0;  // Kernel ids.
  gid_t gid = 0, cgid = 0;
  uint32_t mode = 0;
  uint16_t sequence = 0;

  void Own(const Credentials& creds);
  // EACCES: `wanted` has bits (any of user, group, other) that `creds` is not given.
  Result<void> Check(const Credentials& creds, const UserNamespace& owner, uint32_t wanted) const;
  // IPC_SET, IPC_RMID. EPERM.
  Result<void> CheckOwner(const Credentials& creds, const UserNamespace& owner) const;
  // IPC_SET. EINVAL: an id that the caller's namespace does not know.
  Result<void> Change(const Credentials& creds, uint32_t uid, uint32_t gid, uint32_t mode);
  ::ipc_perm Show(const UserNamespace& viewer) const;
};

// Numbers and keys of one kind of object. The owner's mutex guards it. Linux's ipc_ids: an id is a sequence number and an
// index, the lowest that is free.
template <typename T>
class IpcIds {
 public:
  static constexpr int kMax = 32768;

  T* Find(int id) {
    if (id < 0) return nullptr;
    T* object = At(id % kMax);
    return object && object->permissions.id == id ? object : nullptr;
  }
  T* At(int index) {
    auto it = objects_.find(index);
    return it == objects_.end() ? nullptr : it->second.get();
  }
  T* FindKey(int32_t key) {
    for (auto& [index, object] : objects_) {
      if (object->permissions.key == key) return object.get();
    }
    return nullptr;
  }
  int Add(RefPtr<T> object) {
    int index = 0;
    for (auto& [used, unused] : objects_) {
      if (used != index) break;
      ++index;
    }
    if (index <= last_index_) sequence_ = (sequence_ + 1) % 65536 & 0xffff;
    last_index_ = index;
    object->permissions.sequence = static_cast<uint16_t>(sequence_);
    object->permissions.id = sequence_ * kMax + index;
    const int id = object->permissions.id;
    objects_.emplace(index, std::move(object));
    return id;
  }
  void Remove(T& object) { objects_.erase(object.permissions.id % kMax); }
  size_t size() const { return objects_.size(); }
  int highest_index() const { return objects_.empty() ? 0 : objects_.rbegin()->first; }
  const std::map<int, RefPtr<T>>& all() const { return objects_; }

 private:
  std::map<int, RefPtr<T>> objects_;  // By index.
  int sequence_ = 0;
  int last_index_ = -1;
};

class ShmSegment;
// Referred to by its segments too, which mappings may keep beyond the namespace.
class ShmTable : public RefCounted {
 public:
  explicit ShmTable(RefPtr<UserNamespace> owner);
  ~ShmTable() override;
  // The namespace is gone.
  void Clear();
  Result<int> Get(Task& task, int32_t key, uint64_t size, int flags);
  Result<uint64_t> Attach(Task& task, int id, uint64_t address, int flags);
  static Result<void> Detach(Task& task, uint64_t address);

  struct Info {
    ::shm_info info{};
    int highest = 0;
  };
  Info GetInfo();
  // IPC_STAT (by id), SHM_STAT (by index), SHM_STAT_ANY (by index, unchecked). `*id` is the object's.
  Result<::shmid_ds> Stat(Task& task, int which, bool by_index, bool check, int* id);
  Result<void> Set(Task& task, int id, const ::shmid_ds& wanted);
  Result<void> Remove(Task& task, int id);
  Result<void> Lock(Task& task, int id, bool lock);
  std::string Text(const UserNamespace& viewer, const PidNamespace& pids);  // /proc/sysvipc/shm

  std::atomic<uint64_t> max_bytes{~uint64_t{0} - (1ull << 24)};
  std::atomic<uint64_t> max_pages{~uint64_t{0} - (1ull << 24)};
  std::atomic<int64_t> max_segments{4096};

 private:
  friend class ShmSegment;
  Result<RefPtr<ShmSegment>> FindLocked(int id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DestroyLocked(ShmSegment& segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The last mapping of a removed segment went.
  void Unused(ShmSegment& segment);

  const RefPtr<UserNamespace> owner_;
  absl::Mutex mutex_;
  IpcIds<ShmSegment> ids_ ABSL_GUARDED_BY(mutex_);
  uint64_t pages_ ABSL_GUARDED_BY(mutex_) = 0;
};

class SemSet;
struct SemWaiter;
class SemTable {
 public:
  explicit SemTable(IpcNamespace& ns);
  ~SemTable();
  Result<int> Get(Task& task, int32_t key, int count, int flags);
  // semop(2), semtimedop(2). `deadline_ns`: monotonic. EINTR is never restarted.
  Result<void> Operate(Task& task, int id, std::vector<::sembuf> operations, int64_t deadline_ns);

  ::seminfo GetInfo(bool usage, int* highest);
  Result<::semid_ds> Stat(Task& task, int which, bool by_index, bool check, int* id);
  Result<void> Set(Task& task, int id, const ::semid_ds& wanted);
  Result<void> Remove(Task& task, int id);
  Result<int> GetOne(Task& task, int id, int number, int command);  // GETVAL, GETPID, GETNCNT, GETZCNT
  Result<void> SetOne(Task& task, int id, int number, int value);
  Result<std::vector<uint16_t>> GetAll(Task& task, int id);
  // SETALL in two halves: how many values there are to be copied, then the change.
  Result<int> CountForSetAll(Task& task, int id);
  Result<void> SetAll(Task& task, int id, const std::vector<uint16_t>& values);
  std::string Text(const UserNamespace& viewer);

  // kernel.sem: SEMMSL, SEMMNS, SEMOPM, SEMMNI.
  std::atomic<int> max_per_set{32000}, max_total{1024000000}, max_operations{500}, max_sets{32000};

 private:
  friend class SemUndoEntries;
  Result<SemSet*> FindLocked(Task& task, int id, uint32_t wanted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // 0: done; EAGAIN: `*blocking` has to wait; else why it can never be.
  int TryLocked(SemSet& set, SemWaiter& waiter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Serves whoever waits and now can, in the order in which they came.
  void ServeWaitersLocked(SemSet& set) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  IpcNamespace& ns_;
  absl::Mutex mutex_;
  IpcIds<SemSet> ids_ ABSL_GUARDED_BY(mutex_);
  int used_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Gives `child` the adjustments list of `parent` (CLONE_SYSVSEM), making it if there is none.
void ShareSemUndo(Task& parent, Task& child);
// Carries out what is left if this task was the last user: exit, unshare(CLONE_SYSVSEM).
void LeaveSemUndo(Task& task);

class MessageQueue;
class MessageTable {
 public:
  explicit MessageTable(IpcNamespace& ns);
  ~MessageTable();
  Result<int> Get(Task& task, int32_t key, int flags);
  Result<void> Send(Task& task, int id, int64_t type, std::string text, int flags);
  struct Received {
    int64_t type = 0;
    std::string text;  // Not longer than asked for.
  };
  Result<Received> Receive(Task& task, int id, uint64_t size, int64_t type, int flags);

  ::msginfo GetInfo(bool usage, int* highest);
  Result<::msqid_ds> Stat(Task& task, int which, bool by_index, bool check, int* id);
  Result<void> Set(Task& task, int id, const ::msqid_ds& wanted);
  Result<void> Remove(Task& task, int id);
  std::string Text(const UserNamespace& viewer, const PidNamespace& pids);

  std::atomic<int> max_message{8192}, max_queue_bytes{16384}, max_queues{32000};

 private:
  Result<RefPtr<MessageQueue>> FindLocked(int id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  IpcNamespace& ns_;
  absl::Mutex mutex_;
  IpcIds<MessageQueue> ids_ ABSL_GUARDED_BY(mutex_);
};

struct MqTable;  // posix_mq.h

struct IpcNamespace::Tables {
  explicit Tables(IpcNamespace& ns);
  ~Tables();
  const RefPtr<ShmTable> shm_hold;
  ShmTable& shm;
  SemTable sem;
  MessageTable messages;
  std::unique_ptr<MqTable> mqueues;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_SYSV_IPC_H_
