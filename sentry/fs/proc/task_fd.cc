// fd, fdinfo, cwd, root and exe of /proc/PID: magic links straight to what they name.
#include <dirent.h>

#include <charconv>
#include <utility>

#include "sentry/fs/proc/internal.h"

namespace caisson::proc {
namespace {

// Looking through another task's links is as good as ptracing it.
Result<void> CheckMayLook(Task& target) {
  Task* reader = Task::Current();
  if (reader == &target) return {};
  if (reader == nullptr) return Errno(EACCES);
  if (&reader->thread_group() == &target.thread_group() || MayPtrace(reader->creds(), target)) return {};
  return Errno(EACCES);
}

std::string NameForReader(Task& target, const VfsPath& path) {
  Task* reader = Task::Current();
  VfsPath root;
  if (reader) root = reader->fs().root();
  return target.vfs().PathName(path, root);
}

// /proc/PID/fd/N.
class FdLink : public SyntheticInode {
 public:
  FdLink(ProcFilesystem& fs, RefPtr<Task> task, int fd, const File* file)
      : SyntheticInode(fs, S_IFLNK | 0700), task_(std::move(task)), fd_(fd), file_(file) {}
  // Same description still? Compared only.
  const File* file() const { return file_; }
  Result<std::string> Readlink() override {
    TRY(CheckMayLook(*task_));
    RefPtr<File> file = TRY(Get());
    return NameForReader(*task_, file->path());
  }
  Result<VfsPath> FollowMagicLink() override {
    TRY(CheckMayLook(*task_));
    return TRY(Get())->path();
  }

 protected:
  void FillAttr(InodeAttr& attr) override {
    FillTaskOwner(*task_, attr);
    attr.size = 64;
    if (Result<RefPtr<File>> file = Get(); file.ok()) {
      attr.mode = S_IFLNK | 0100 | ((*file)->readable() ? 0400 : 0) | ((*file)->writable() ? 0200 : 0);
    }
  }

 private:
  Result<RefPtr<File>> Get() {
    RefPtr<FdTable> table = task_->GetFdTable();
    if (!table) return Errno(ENOENT);
    Result<RefPtr<File>> file = table->Get(fd_);
    if (!file.ok()) return Errno(ENOENT);
    return file;
  }
  const RefPtr<Task> task_;
  const int fd_;
  const File* const file_;
};

// /proc/PID/fdinfo/N.
class FdInfo : public TextInode {
 public:
  FdInfo(ProcFilesystem& fs, RefPtr<Task> task, int fd)
      : TextInode(fs, 0444), fs_(fs), task_(std::move(task)), fd_(fd) {}
  Result<std::string> Generate() override {
    TRY(CheckMayLook(*task_));
    RefPtr<FdTable> table = task_->GetFdTable();
    if (!table) return Errno(ENOENT);
    Result<RefPtr<File>> file = table->Get(fd_);
    if (!file.ok()) return Errno(ENOENT);
    Result<bool> close_on_exec = table->close_on_exec(fd_);
    const int flags = (*file)->flags() | (close_on_exec.ok() && *close_on_exec ? O_CLOEXEC : 0);
    uint64_t ino = 0;
    if (Result<InodeAttr> attr = (*file)->inode().GetAttr(); attr.ok()) ino = attr->ino;
    const VfsPath& path = (*file)->path();
    return Format("pos:\t%ld\nflags:\t0%o\nmnt_id:\t%d\nino:\t%lu\n", static_cast<long>((*file)->position()), flags,
                  path.mount ? path.mount->id() : 0, static_cast<unsigned long>(ino)) +
           ExtraFdInfo(fs_, **file);
  }

 protected:
  void FillAttr(InodeAttr& attr) override { FillTaskOwner(*task_, attr); }

 private:
  ProcFilesystem& fs_;
  const RefPtr<Task> task_;
  const int fd_;
};

class FdDirectory : public SyntheticDirectory {
 public:
  FdDirectory(ProcFilesystem& fs, RefPtr<Task> task, bool info)
      : SyntheticDirectory(fs, info ? 0555 : 0500), fs_(fs), task_(std::move(task)), info_(info) {}
  Result<void> CheckAccess(const Credentials& creds, int mask) override {
    Result<void> generic = SyntheticDirectory::CheckAccess(creds, mask);
    if (generic.ok()) return generic;
    // proc_fd_permission(): a task may always look at its own process's descriptors.
    Task* reader = Task::Current();
    if (reader && &reader->thread_group() == &task_->thread_group()) return {};
    return generic;
  }
  Result<RefPtr<Inode>> Lookup(std::string_view name) override {
    int fd = -1;
    auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), fd);
    if (error != std::errc() || end != name.data() + name.size() || fd < 0 || (name.size() > 1 && name[0] == '0')) {
      return Errno(ENOENT);
    }
    TRY(CheckMayLook(*task_));
    RefPtr<FdTable> table = task_->GetFdTable();
    if (!table) return Errno(ENOENT);
    Result<RefPtr<File>> file = table->Get(fd);
    if (!file.ok()) return Errno(ENOENT);
    if (info_) return RefPtr<Inode>(MakeRef<FdInfo>(fs_, task_, fd));
    return RefPtr<Inode>(MakeRef<FdLink>(fs_, task_, fd, file->get()));
  }
  bool RevalidateChild(std::string_view name, Inode& child) override {
    int fd = -1;
    std::from_chars(name.data(), name.data() + name.size(), fd);
    RefPtr<FdTable> table = task_->GetFdTable();
    if (!table) return false;
    Result<RefPtr<File>> file = table->Get(fd);
    if (!file.ok()) return false;
    FdLink* link = dynamic_cast<FdLink*>(&child);
    return link == nullptr || link->file() == file->get();
  }
  std::vector<SyntheticEntry> List() override {
    std::vector<SyntheticEntry> out;
    if (!CheckMayLook(*task_).ok()) return out;
    RefPtr<FdTable> table = task_->GetFdTable();
    if (!table) return out;
    for (int fd : table->Numbers()) {
      // Programs close what they find while they read on.
      out.push_back({std::to_string(fd), ino() * 65536 + fd, static_cast<uint8_t>(info_ ? DT_REG : DT_LNK), fd + 3});
    }
    return out;
  }

 protected:
  void FillAttr(InodeAttr& attr) override {
    attr.nlink = 2;
    FillTaskOwner(*task_, attr);
    // Since Linux 6.2 the number of descriptors; before, 0: what 6.1 shows.
  }

 private:
  ProcFilesystem& fs_;
  const RefPtr<Task> task_;
  const bool info_;
};

class TaskLinkInode : public SyntheticInode {
 public:
  TaskLinkInode(ProcFilesystem& fs, RefPtr<Task> task, TaskLink which)
      : SyntheticInode(fs, S_IFLNK | 0777), task_(std::move(task)), which_(which) {}
  Result<std::string> Readlink() override { return NameForReader(*task_, TRY(FollowMagicLink())); }
  Result<VfsPath> FollowMagicLink() override {
    TRY(CheckMayLook(*task_));
    if (which_ == TaskLink::kExe) {
      RefPtr<MemoryManager> mm = task_->GetMm();
      RefPtr<File> file = mm ? mm->executable() : nullptr;
      if (!file) return Errno(ENOENT);
      return file->path();
    }
    RefPtr<FsContext> fs_context = task_->GetFs();
    if (!fs_context) return Errno(ENOENT);
    return which_ == TaskLink::kCwd ? fs_context->cwd() : fs_context->root();
  }

 protected:
  void FillAttr(InodeAttr& attr) override { FillTaskOwner(*task_, attr); }

 private:
  const RefPtr<Task> task_;
  const TaskLink which_;
};

}  // namespace

RefPtr<Inode> NewFdDirectory(ProcFilesystem& fs, RefPtr<Task> task, bool info) {
  return MakeRef<FdDirectory>(fs, std::move(task), info);
}

RefPtr<Inode> NewTaskLink(ProcFilesystem& fs, RefPtr<Task> task, TaskLink which) {
  return MakeRef<TaskLinkInode>(fs, std::move(task), which);
}

}  // namespace caisson::proc
