#include "sentry/fs/tmpfs/memfd.h"

#include "sentry/fs/tmpfs/tmpfs_fs.h"
#include "sentry/kernel/kernel.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/vfs.h"

namespace caisson {

Result<RefPtr<File>> NewMemfd(Kernel& kernel, const Credentials& creds, std::string_view name, bool allow_sealing,
                              bool executable) {
  RefPtr<Mount> mount = kernel.vfs().ShmMount(
      [&] { return RefPtr<Filesystem>(MakeRef<TmpfsFilesystem>(kernel, kernel.memory_file(), TmpfsOptions{})); });
  auto& fs = static_cast<TmpfsFilesystem&>(mount->fs());
  NewInodeAttr attr{.mode = S_IFREG | (executable ? 0777u : 0666u), .uid = creds.fsuid, .gid = creds.fsgid};
  fs.account()->ChargeInode();
  auto inode = MakeRef<TmpfsRegular>(fs, attr);
  inode->AddLinks(-1);
  if (allow_sealing) inode->data().set_initial_seals(0);
  VfsPath path(std::move(mount), fs.dentries().NewDetached(inode, "/memfd:" + std::string(name), true));
  return inode->Open(path, O_RDWR);
}

Result<int> GetSeals(File& file) {
  auto* inode = dynamic_cast<TmpfsRegular*>(&file.inode());
  if (!inode) return Errno(EINVAL);
  return inode->data().seals();
}

Result<void> AddSeals(File& file, int seals) {
  auto* inode = dynamic_cast<TmpfsRegular*>(&file.inode());
  if (!inode) return Errno(EINVAL);
  if (!file.writable()) return Errno(EPERM);
  return inode->data().AddSeals(seals);
}

}  // namespace caisson
