// A task's view of the file tree (Linux's fs_struct): root, working directory, umask. Shared with CLONE_FS.
#ifndef CAISSON_SENTRY_KERNEL_FS_CONTEXT_H_
#define CAISSON_SENTRY_KERNEL_FS_CONTEXT_H_

#include "absl/synchronization/mutex.h"
#include "sentry/base/refs.h"
#include "sentry/vfs/path.h"

namespace caisson {

class FsContext : public RefCounted {
 public:
  FsContext(VfsPath root, VfsPath cwd, uint32_t umask) : root_(root), cwd_(cwd), umask_(umask) {}
  RefPtr<FsContext> Clone() const {
    absl::MutexLock lock(&mutex_);
    return MakeRef<FsContext>(root_, cwd_, umask_);
  }
  VfsPath root() const {
    absl::MutexLock lock(&mutex_);
    return root_;
  }
  VfsPath cwd() const {
    absl::MutexLock lock(&mutex_);
    return cwd_;
  }
  uint32_t umask() const {
    absl::MutexLock lock(&mutex_);
    return umask_;
  }
  void SetRoot(VfsPath root) {
    absl::MutexLock lock(&mutex_);
    std::swap(root_, root);
  }
  void SetCwd(VfsPath cwd) {
    absl::MutexLock lock(&mutex_);
    std::swap(cwd_, cwd);
  }
  uint32_t SwapUmask(uint32_t umask) {
    absl::MutexLock lock(&mutex_);
    return std::exchange(umask_, umask & 0777);
  }

 private:
  mutable absl::Mutex mutex_;
  VfsPath root_ ABSL_GUARDED_BY(mutex_);
  VfsPath cwd_ ABSL_GUARDED_BY(mutex_);
  uint32_t umask_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_FS_CONTEXT_H_
