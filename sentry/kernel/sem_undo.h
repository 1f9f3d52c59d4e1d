// What a process gives back to System V semaphores when it ends (semop(2), SEM_UNDO).
#ifndef CAISSON_SENTRY_KERNEL_SEM_UNDO_H_
#define CAISSON_SENTRY_KERNEL_SEM_UNDO_H_

#include <atomic>
#include <map>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/kernel/namespaces.h"

namespace caisson {

class SemSet;

// Shared by tasks that were made with CLONE_SYSVSEM. LeaveSemUndo() of the last of them carries the adjustments out.
class SemUndoList : public RefCounted {
 public:
  explicit SemUndoList(RefPtr<IpcNamespace> ns);
  // What is to be added to each semaphore of a set. Under the mutex of the namespace's SemTable.
  std::vector<int>* Find(SemSet& set);
  std::vector<int>& FindOrAdd(SemSet& set);
  // SETVAL and SETALL take adjustments back; so does the removal of a set.
  static void Forget(SemSet& set, int number);

  std::atomic<int> users{1};
  const RefPtr<IpcNamespace> ns;
  std::map<SemSet*, std::vector<int>> entries;  // Under the SemTable's mutex; the set knows its lists.

 private:
  ~SemUndoList() override;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_SEM_UNDO_H_
