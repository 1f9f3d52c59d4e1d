// System V semaphores (semget(2), semop(2), semctl(2)).
#include <time.h>

#include <algorithm>
#include <set>

#include "sentry/kernel/sem_undo.h"
#include "sentry/kernel/sysv_ipc.h"
#include "sentry/kernel/task_state.h"

namespace caisson {
namespace {
constexpr int kMaxValue = 32767;  // SEMVMX
}

// A task that sleeps in semop(2), on its own stack.
struct SemWaiter {
  Task* task;
  const std::vector<::sembuf>* operations;
  SemUndoList* undo;  // Null: no operation wants it.
  pid_t process;
  size_t blocking = 0;   // The operation that cannot be done yet.
  bool done = false;     // `error` tells how it ended.
  int error = 0;
};

class SemSet : public RefCounted {
 public:
  explicit SemSet(int count) : semaphores(count) {}
  struct Semaphore {
    int value = 0;
    pid_t last_process = 0;
  };
  // All under the table's mutex.
  IpcPermissions permissions;
  std::vector<Semaphore> semaphores;
  time_t operation_time = 0, change_time = time(nullptr);
  std::list<SemWaiter*> waiters;  // In order of arrival.
  std::set<SemUndoList*> undo_lists;
};

// --- Adjustments

SemUndoList::SemUndoList(RefPtr<IpcNamespace> n) : ns(std::move(n)) {}
SemUndoList::~SemUndoList() = default;

std::vector<int>* SemUndoList::Find(SemSet& set) {
  auto it = entries.find(&set);
  return it == entries.end() ? nullptr : &it->second;
}

std::vector<int>& SemUndoList::FindOrAdd(SemSet& set) {
  std::vector<int>& entry = entries[&set];
  if (entry.empty()) {
    entry.resize(set.semaphores.size());
    set.undo_lists.insert(this);
  }
  return entry;
}

void SemUndoList::Forget(SemSet& set, int number) {
  for (SemUndoList* list : set.undo_lists) {
    if (std::vector<int>* entry = list->Find(set)) (*entry)[number] = 0;
  }
}

void ShareSemUndo(Task& parent, Task& child) {
  Task::State& state = parent.state();
  if (!state.sem_undo) state.sem_undo = MakeRef<SemUndoList>(RefPtr<IpcNamespace>(&parent.ipc_ns()));
  state.sem_undo->users.fetch_add(1);
  child.state().sem_undo = state.sem_undo;
}

// The name that SemTable knows as a friend.
class SemUndoEntries {
 public:
  static void CarryOut(SemUndoList& list, pid_t process) {
    SemTable& table = list.ns->tables().sem;
    absl::MutexLock lock(&table.mutex_);
    for (auto& [set, adjustments] : list.entries) {
      bool changed = false;
      for (size_t i = 0; i < adjustments.size(); ++i) {
        if (adjustments[i] == 0) continue;
        SemSet::Semaphore& semaphore = set->semaphores[i];
        semaphore.value = std::clamp(semaphore.value + adjustments[i], 0, kMaxValue);
        semaphore.last_process = process;
        changed = true;
      }
      set->undo_lists.erase(&list);
      if (!changed) continue;
      set->operation_time = time(nullptr);
      table.ServeWaitersLocked(*set);
    }
    list.entries.clear();
  }
};

void LeaveSemUndo(Task& task) {
  RefPtr<SemUndoList> list = std::move(task.state().sem_undo);
  if (list && list->users.fetch_sub(1) == 1) SemUndoEntries::CarryOut(*list, task.tgid());
}

// --- The table

SemTable::SemTable(IpcNamespace& ns) : ns_(ns) {}
SemTable::~SemTable() = default;

Result<int> SemTable::Get(Task& task, int32_t key, int count, int flags) {
  if (count < 0 || count > max_per_set.load()) return Errno(EINVAL);
  absl::MutexLock lock(&mutex_);
  if (key != IPC_PRIVATE) {
    if (SemSet* found = ids_.FindKey(key)) {
      if ((flags & IPC_CREAT) && (flags & IPC_EXCL)) return Errno(EEXIST);
      if (static_cast<size_t>(count) > found->semaphores.size()) return Errno(EINVAL);
      TRY(found->permissions.Check(task.creds(), ns_.owner(), static_cast<uint32_t>(flags)));
      return found->permissions.id;
    }
    if (!(flags & IPC_CREAT)) return Errno(ENOENT);
  }
  if (count == 0) return Errno(EINVAL);
  if (used_ + count > max_total.load() || static_cast<int>(ids_.size()) >= max_sets.load()) return Errno(ENOSPC);
  RefPtr<SemSet> set = MakeRef<SemSet>(count);
  set->permissions.Own(task.creds());
  set->permissions.key = key;
  set->permissions.mode = flags & 0777;
  used_ += count;
  return ids_.Add(std::move(set));
}

Result<SemSet*> SemTable::FindLocked(Task& task, int id, uint32_t wanted) {
  SemSet* found = ids_.Find(id);
  if (!found) return Errno(EINVAL);
  if (wanted) TRY(found->permissions.Check(task.creds(), ns_.owner(), wanted));
  return found;
}

int SemTable::TryLocked(SemSet& set, SemWaiter& waiter) {
  const std::vector<::sembuf>& operations = *waiter.operations;
  // Tried on copies: nothing changes unless all can be done. The undo list is looked at, and changed at the end.
  std::vector<std::pair<int, int>> before;  // Semaphore and its value.
  before.reserve(operations.size());
  int error = 0;
  std::vector<int>* adjustments = waiter.undo ? waiter.undo->Find(set) : nullptr;
  size_t i = 0;
  for (; i < operations.size() && error == 0; ++i) {
    const ::sembuf& operation = operations[i];
    SemSet::Semaphore& semaphore = set.semaphores[operation.sem_num];
    if (operation.sem_op == 0 ? semaphore.value != 0 : semaphore.value + operation.sem_op < 0) {
      waiter.blocking = i;
      error = EAGAIN;
      break;
    }
    if (semaphore.value + operation.sem_op > kMaxValue) {
      error = ERANGE;
      break;
    }
    if (operation.sem_flg & SEM_UNDO) {
      int adjustment = (adjustments ? (*adjustments)[operation.sem_num] : 0) - operation.sem_op;
      for (size_t j = 0; j < i; ++j) {
        if (operations[j].sem_num == operation.sem_num && (operations[j].sem_flg & SEM_UNDO)) adjustment -= operations[j].sem_op;
      }
      if (adjustment < -kMaxValue - 1 || adjustment > kMaxValue) {
        error = ERANGE;
        break;
      }
    }
    before.emplace_back(operation.sem_num, semaphore.value);
    semaphore.value += operation.sem_op;
  }
  if (error != 0) {
    for (auto it = before.rbegin(); it != before.rend(); ++it) set.semaphores[it->first].value = it->second;
    return error;
  }
  for (const ::sembuf& operation : operations) {
    set.semaphores[operation.sem_num].last_process = waiter.process;
    if (operation.sem_flg & SEM_UNDO) waiter.undo->FindOrAdd(set)[operation.sem_num] -= operation.sem_op;
  }
  set.operation_time = time(nullptr);
  return 0;
}

void SemTable::ServeWaitersLocked(SemSet& set) {
  for (auto it = set.waiters.begin(); it != set.waiters.end();) {
    SemWaiter& waiter = **it;
    const int error = TryLocked(set, waiter);
    if (error == EAGAIN && !((*waiter.operations)[waiter.blocking].sem_flg & IPC_NOWAIT)) {
      ++it;
      continue;
    }
    set.waiters.erase(it);
    waiter.done = true;
    waiter.error = error;
    waiter.task->Wake();
    it = set.waiters.begin();  // What it changed may let an earlier one go on.
  }
}

Result<void> SemTable::Operate(Task& task, int id, std::vector<::sembuf> operations, int64_t deadline_ns) {
  bool undo = false, changes = false;
  int highest = 0;
  for (const ::sembuf& operation : operations) {
    undo |= (operation.sem_flg & SEM_UNDO) != 0;
    changes |= operation.sem_op != 0;
    highest = std::max<int>(highest, operation.sem_num);
  }
  Task::State& state = task.state();
  if (undo && state.sem_undo && state.sem_undo->ns.get() != &ns_) LeaveSemUndo(task);  // It moved to another namespace.
  if (undo && !state.sem_undo) state.sem_undo = MakeRef<SemUndoList>(RefPtr<IpcNamespace>(&ns_));
  SemWaiter waiter{&task, &operations, undo ? state.sem_undo.get() : nullptr, task.tgid()};
  RefPtr<SemSet> set;
  {
    absl::MutexLock lock(&mutex_);
    SemSet* found = ids_.Find(id);
    if (!found) return Errno(EINVAL);
    if (static_cast<size_t>(highest) >= found->semaphores.size()) return Errno(EFBIG);
    TRY(found->permissions.Check(task.creds(), ns_.owner(), changes ? 0222 : 0444));
    set = RefPtr<SemSet>(found);
    const int error = TryLocked(*set, waiter);
    if (error == 0) {
      if (changes) ServeWaitersLocked(*set);
      return {};
    }
    if (error != EAGAIN) return Errno(error);
    if (operations[waiter.blocking].sem_flg & IPC_NOWAIT) return Errno(EAGAIN);
    set->waiters.push_back(&waiter);
  }
  while (true) {
    Result<void> slept = task.Block(deadline_ns);
    absl::MutexLock lock(&mutex_);
    if (waiter.done) break;
    if (slept.ok()) continue;
    set->waiters.remove(&waiter);
    return Errno(slept.error() == ETIMEDOUT ? EAGAIN : EINTR);
  }
  if (waiter.error != 0) return Errno(waiter.error);
  return {};
}

::seminfo SemTable::GetInfo(bool usage, int* highest) {
  absl::MutexLock lock(&mutex_);
  ::seminfo info{};
  info.semmni = max_sets.load();
  info.semmns = max_total.load();
  info.semmsl = max_per_set.load();
  info.semopm = max_operations.load();
  info.semvmx = kMaxValue;
  info.semmnu = info.semmns;
  info.semmap = info.semmns;
  info.semume = info.semopm;
  info.semusz = usage ? static_cast<int>(ids_.size()) : 20;
  info.semaem = usage ? used_ : kMaxValue;
  *highest = ids_.highest_index();
  return info;
}

Result<::semid_ds> SemTable::Stat(Task& task, int which, bool by_index, bool check, int* id) {
  absl::MutexLock lock(&mutex_);
  SemSet* found = by_index ? ids_.At(which) : ids_.Find(which);
  if (!found) return Errno(EINVAL);
  if (check) TRY(found->permissions.Check(task.creds(), ns_.owner(), 0444));
  ::semid_ds shown{};
  shown.sem_perm = found->permissions.Show(*task.creds().user_ns);
  shown.sem_otime = found->operation_time;
  shown.sem_ctime = found->change_time;
  shown.sem_nsems = found->semaphores.size();
  *id = found->permissions.id;
  return shown;
}

Result<void> SemTable::Set(Task& task, int id, const ::semid_ds& wanted) {
  absl::MutexLock lock(&mutex_);
  SemSet* found = TRY(FindLocked(task, id, 0));
  TRY(found->permissions.CheckOwner(task.creds(), ns_.owner()));
  TRY(found->permissions.Change(task.creds(), wanted.sem_perm.uid, wanted.sem_perm.gid, wanted.sem_perm.mode));
  found->change_time = time(nullptr);
  return {};
}

Result<void> SemTable::Remove(Task& task, int id) {
  absl::MutexLock lock(&mutex_);
  RefPtr<SemSet> found(TRY(FindLocked(task, id, 0)));
  TRY(found->permissions.CheckOwner(task.creds(), ns_.owner()));
  for (SemWaiter* waiter : found->waiters) {
    waiter->done = true;
    waiter->error = EIDRM;
    waiter->task->Wake();
  }
  found->waiters.clear();
  for (SemUndoList* list : found->undo_lists) list->entries.erase(found.get());
  found->undo_lists.clear();
  used_ -= static_cast<int>(found->semaphores.size());
  ids_.Remove(*found);
  return {};
}

Result<int> SemTable::GetOne(Task& task, int id, int number, int command) {
  absl::MutexLock lock(&mutex_);
  SemSet* set = TRY(FindLocked(task, id, 0444));
  if (number < 0 || static_cast<size_t>(number) >= set->semaphores.size()) return Errno(EINVAL);
  const SemSet::Semaphore& semaphore = set->semaphores[number];
  switch (command) {
    case GETVAL:
      return semaphore.value;
    case GETPID:
      return static_cast<int>(semaphore.last_process);
    default: {
      int count = 0;
      for (const SemWaiter* waiter : set->waiters) {
        const ::sembuf& operation = (*waiter->operations)[waiter->blocking];
        if (operation.sem_num == number && (operation.sem_op == 0) == (command == GETZCNT)) ++count;
      }
      return count;
    }
  }
}

Result<void> SemTable::SetOne(Task& task, int id, int number, int value) {
  if (value < 0 || value > kMaxValue) return Errno(ERANGE);
  absl::MutexLock lock(&mutex_);
  SemSet* set = TRY(FindLocked(task, id, 0));
  if (number < 0 || static_cast<size_t>(number) >= set->semaphores.size()) return Errno(EINVAL);
  TRY(set->permissions.Check(task.creds(), ns_.owner(), 0222));
  SemUndoList::Forget(*set, number);
  set->semaphores[number] = {value, task.tgid()};
  set->change_time = time(nullptr);
  ServeWaitersLocked(*set);
  return {};
}

Result<std::vector<uint16_t>> SemTable::GetAll(Task& task, int id) {
  absl::MutexLock lock(&mutex_);
  SemSet* set = TRY(FindLocked(task, id, 0444));
  std::vector<uint16_t> values;
  for (const SemSet::Semaphore& semaphore : set->semaphores) values.push_back(static_cast<uint16_t>(semaphore.value));
  return values;
}

Result<int> SemTable::CountForSetAll(Task& task, int id) {
  absl::MutexLock lock(&mutex_);
  SemSet* set = TRY(FindLocked(task, id, 0222));
  return static_cast<int>(set->semaphores.size());
}

Result<void> SemTable::SetAll(Task& task, int id, const std::vector<uint16_t>& values) {
  absl::MutexLock lock(&mutex_);
  for (uint16_t value : values) {
    if (value > kMaxValue) return Errno(ERANGE);
  }
  SemSet* set = ids_.Find(id);
  if (!set || set->semaphores.size() != values.size()) return Errno(EIDRM);
  for (size_t i = 0; i < values.size(); ++i) {
    set->semaphores[i] = {values[i], task.tgid()};
    SemUndoList::Forget(*set, static_cast<int>(i));
  }
  set->change_time = time(nullptr);
  ServeWaitersLocked(*set);
  return {};
}

std::string SemTable::Text(const UserNamespace& viewer) {
  std::string out = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n";
  absl::MutexLock lock(&mutex_);
  for (auto& [index, set] : ids_.all()) {
    const ::ipc_perm p = set->permissions.Show(viewer);
    char line[200];
    snprintf(line, sizeof line, "%10d %10d  %4o %10lu %5u %5u %5u %5u %10lu %10lu\n", p.__key, set->permissions.id,
             static_cast<unsigned>(p.mode), static_cast<unsigned long>(set->semaphores.size()), p.uid, p.gid, p.cuid, p.cgid,
             static_cast<unsigned long>(set->operation_time), static_cast<unsigned long>(set->change_time));
    out += line;
  }
  return out;
}

}  // namespace caisson
