// Link, unlink, rmdir, rename.
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gofer/server/server.h"

namespace caisson::gofer {

Result<void> Server::Link(Reader& request, Answer& answer) {
  LinkRequest link = TRY(ReadBody<LinkRequest>(request));
  HostName name;
  TRY(name.Read(request));
  NodeRef node = TRY(GetWritable(link.node));
  NodeRef directory = TRY(GetWritableDirectory(link.directory));
  if (node->type() == S_IFDIR) return Errno(EPERM);
  if (&node->mount() != &directory->mount()) return Errno(EXDEV);
  // Follows the link in /proc, which leads to the pinned inode itself; never a symlink of the guest's.
  if (linkat(proc_fd_, FdName(node->fd()).c_str(), directory->fd(), name.c_str(), AT_SYMLINK_FOLLOW) < 0) {
    return Errno(errno);
  }
  answer.body.Put(TRY(StatInode(node->fd())));
  return {};
}

Result<void> Server::Remove(Reader& request, int at_flags) {
  RemoveRequest remove = TRY(ReadBody<RemoveRequest>(request));
  HostName name;
  TRY(name.Read(request));
  NodeRef directory = TRY(GetWritableDirectory(remove.directory));
  if (unlinkat(directory->fd(), name.c_str(), at_flags) < 0) return Errno(errno);
  return {};
}

Result<void> Server::Rename(Reader& request) {
  RenameRequest rename = TRY(ReadBody<RenameRequest>(request));
  HostName old_name, new_name;
  TRY(old_name.Read(request));
  TRY(new_name.Read(request));
  if (rename.flags != 0 && rename.flags != RENAME_NOREPLACE && rename.flags != RENAME_EXCHANGE) return Errno(EINVAL);
  NodeRef old_directory = TRY(GetWritableDirectory(rename.old_directory));
  NodeRef new_directory = TRY(GetWritableDirectory(rename.new_directory));
  if (&old_directory->mount() != &new_directory->mount()) return Errno(EXDEV);
  if (renameat2(old_directory->fd(), old_name.c_str(), new_directory->fd(), new_name.c_str(), rename.flags) < 0) {
    return Errno(errno);
  }
  return {};
}

}  // namespace caisson::gofer
