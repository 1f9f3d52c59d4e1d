// Registries that connect file systems, devices and FIFOs to the VFS without the VFS depending on them: mount(2) finds a
// file system by name, opening a special inode finds its driver. Filled once at start (runsc/boot), read-only afterwards.
#ifndef CAISSON_SENTRY_VFS_FILESYSTEM_TYPE_H_
#define CAISSON_SENTRY_VFS_FILESYSTEM_TYPE_H_

#include <string>
#include <string_view>
#include <vector>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/vfs/path.h"

namespace caisson {

class Credentials;
class File;
class Filesystem;
class Inode;
class Kernel;
class Task;

struct MountData {
  std::string source;
  std::string data;            // Comma-separated options as mount(2) takes them.
  const Credentials& creds;
  Task* task = nullptr;        // Null while the sandbox boots.
};
// EINVAL for options that are unknown or malformed.
using FilesystemFactory = Result<RefPtr<Filesystem>> (*)(Kernel& kernel, const MountData& data);

struct FilesystemType {
  const char* name;
  FilesystemFactory factory;   // Null: listed in /proc/filesystems only.
  bool userns_mountable;       // FS_USERNS_MOUNT.
  bool needs_device;           // Without "nodev" in /proc/filesystems.
};
void RegisterFilesystemType(const FilesystemType& type);
// Null when there is none.
const FilesystemType* FindFilesystemType(std::string_view name);
std::vector<FilesystemType> FilesystemTypes();

// Character devices by number (major, minor range). ENXIO where none is registered.
using DeviceOpener = Result<RefPtr<File>> (*)(Kernel& kernel, const VfsPath& path, int flags, uint64_t rdev);
void RegisterCharDevice(unsigned major, unsigned first_minor, unsigned count, DeviceOpener opener);
// FIFOs: keeps its pipe in Inode::Attachments::fifo. May block (fifo(7)).
using FifoOpener = Result<RefPtr<File>> (*)(Kernel& kernel, Inode& inode, const VfsPath& path, int flags);
void RegisterFifoOpener(FifoOpener opener);

// What Inode::Open of any file system calls for an inode that is S_IFCHR, S_IFBLK (ENXIO), S_IFIFO or S_IFSOCK (ENXIO).
// `rdev` is the inode's device number.
Result<RefPtr<File>> OpenSpecial(Kernel& kernel, Inode& inode, const VfsPath& path, int flags, uint64_t rdev);

}  // namespace caisson

#endif  // CAISSON_SENTRY_VFS_FILESYSTEM_TYPE_H_
