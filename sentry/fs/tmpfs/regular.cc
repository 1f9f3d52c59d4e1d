#include <sys/mman.h>

#include "sentry/fs/tmpfs/tmpfs_fs.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/permission.h"

namespace caisson {
namespace {

class TmpfsFile final : public File {
 public:
  // Through an overlay `path` leads to another inode than `inode`.
  TmpfsFile(const VfsPath& path, int flags, RefPtr<TmpfsRegular> inode) : File(path, flags), inode_(std::move(inode)) {}

  bool seekable() const override { return true; }

  Result<size_t> Pread(Task&, IoBuffer& destination, int64_t offset, int) override {
    size_t n = TRY(data().Read(destination, static_cast<uint64_t>(offset)));
    inode_->TouchAccessed(*this);
    return n;
  }
  Result<size_t> Pwrite(Task& task, IoBuffer& source, int64_t offset, int flags) override {
    uint64_t end;
    return DoWrite(task, source, static_cast<uint64_t>(offset), flags & RWF_APPEND, &end);
  }
  Result<size_t> Append(Task& task, IoBuffer& source, int64_t* end_offset, int) override {
    uint64_t end = 0;
    size_t n = TRY(DoWrite(task, source, 0, true, &end));
    *end_offset = static_cast<int64_t>(end);
    return n;
  }

  Result<int64_t> Seek(Task& task, int64_t offset, int whence) override {
    if (whence != SEEK_DATA && whence != SEEK_HOLE) return File::Seek(task, offset, whence);
    if (offset < 0) return Errno(ENXIO);
    int64_t found = static_cast<int64_t>(TRY(data().SeekExtent(static_cast<uint64_t>(offset), whence == SEEK_DATA)));
    set_position(found);
    return found;
  }

  Result<void> PrepareMmap(MmapRequest& request) override {
    if ((request.flags & MAP_SHARED) && (data().seals() & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))) {
      if (request.prot & PROT_WRITE) return Errno(EPERM);
      request.max_prot &= ~PROT_WRITE;
    }
    request.mappable = inode_->data_ref();
    inode_->TouchAccessed(*this);
    return {};
  }
  Result<void> Fsync(Task&, bool) override { return {}; }
  Result<void> Fallocate(Task& task, int mode, int64_t offset, int64_t length) override {
    TRY(data().Fallocate(mode, static_cast<uint64_t>(offset), static_cast<uint64_t>(length)));
    TRY(RemovePrivileges(task));
    inode_->TouchModified();
    return {};
  }

  TmpfsData& data() const { return inode_->data(); }

 private:
  ~TmpfsFile() override {
    if (writable()) data().ReleaseReserve();
  }

  Result<size_t> DoWrite(Task& task, IoBuffer& source, uint64_t offset, bool append, uint64_t* end) {
    size_t n = TRY(data().Write(source, offset, append, end));
    if (n == 0) return n;
    if (inode_->mode() & (S_ISUID | S_ISGID)) TRY(RemovePrivileges(task));
    inode_->TouchModified();
    return n;
  }

  // file_remove_privs(): a program that somebody else writes to is not privileged any more.
  Result<void> RemovePrivileges(Task& task) {
    if (!(inode_->mode() & (S_ISUID | S_ISGID))) return {};
    inode_->set_mode(ModeWithoutPrivileges(task.creds(), TRY(inode_->GetAttr()), false));
    return {};
  }

  const RefPtr<TmpfsRegular> inode_;
};

}  // namespace

TmpfsRegular::TmpfsRegular(TmpfsFilesystem& fs, const NewInodeAttr& attr)
    : TmpfsInode(fs, attr), data_(MakeRef<TmpfsData>(fs.memory_file(), fs.account())) {}

Result<void> TmpfsRegular::SetAttr(const SetAttrRequest& request) {
  SetAttrRequest rest = request;
  if (request.mask & SetAttrRequest::kSize) {
    TRY(data_->Truncate(request.size));
    TouchModified();
    rest.mask &= ~SetAttrRequest::kSize;
  }
  return TmpfsInode::SetAttr(rest);
}

Result<RefPtr<File>> TmpfsRegular::Open(const VfsPath& path, int flags) {
  return RefPtr<File>(MakeRef<TmpfsFile>(path, flags, RefPtr<TmpfsRegular>(this)));
}

}  // namespace caisson
