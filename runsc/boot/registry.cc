#include "runsc/boot/registry.h"

#include "sentry/fs/dev/mem_devices.h"
#include "sentry/fs/dev/pty.h"
#include "sentry/fs/pipe/pipe_file.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/fs/sys/sysfs.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {

void RegisterFilesystemsAndDevices() {
  RegisterFilesystemType({"sysfs", &NewSysfs, true, false});
  RegisterFilesystemType({"tmpfs", &NewTmpfs, true, false});
  RegisterFilesystemType({"ramfs", &NewTmpfs, true, false});
  RegisterFilesystemType({"proc", &NewProcfs, true, false});
  RegisterFilesystemType({"cgroup", &NewCgroupfs, true, false});
  RegisterFilesystemType({"cgroup2", &NewCgroup2fs, true, false});
  RegisterFilesystemType({"devpts", &NewDevpts, true, false});
  // A message-queue file system is a directory of queues; mq_open(3) is not there, so it is an empty tmpfs.
  RegisterFilesystemType({"mqueue", &NewTmpfs, true, false});
  RegisterFilesystemType({"overlay", nullptr, true, false});
  RegisterMemoryDevices();
  RegisterTerminalDevices();
  RegisterFifoOpener([](Kernel&, Inode& inode, const VfsPath& path, int flags) { return OpenFifo(inode, path, flags); });
}

}  // namespace caisson
