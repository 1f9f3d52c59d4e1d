#include "sentry/vfs/filesystem_type.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

#include "sentry/base/check.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"

namespace caisson {
namespace {

struct CharDevices {
  unsigned major, first_minor, count;
  DeviceOpener opener;
};

// Filled while the sandbox boots, by one thread.
struct Registry {
  std::vector<FilesystemType> types;
  std::vector<CharDevices> devices;
  FifoOpener fifo_opener = nullptr;
};

Registry& registry() {
  static Registry* r = new Registry;
  return *r;
}

}  // namespace

void RegisterFilesystemType(const FilesystemType& type) {
  for (FilesystemType& known : registry().types) {
    if (std::string_view(known.name) != type.name) continue;
    known = type;
    return;
  }
  registry().types.push_back(type);
}

const FilesystemType* FindFilesystemType(std::string_view name) {
  for (const FilesystemType& type : registry().types) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

std::vector<FilesystemType> FilesystemTypes() { return registry().types; }

void RegisterCharDevice(unsigned major, unsigned first_minor, unsigned count, DeviceOpener opener) {
  registry().devices.push_back({major, first_minor, count, opener});
}

void RegisterFifoOpener(FifoOpener opener) { registry().fifo_opener = opener; }

Result<RefPtr<File>> OpenSpecial(Kernel& kernel, Inode& inode, const VfsPath& path, int flags, uint64_t rdev) {
  if (inode.type() == S_IFIFO) {
    if (!registry().fifo_opener) return Errno(ENXIO);
    return registry().fifo_opener(kernel, inode, path, flags);
  }
  if (inode.type() != S_IFCHR) return Errno(ENXIO);
  const unsigned major_number = major(rdev), minor_number = minor(rdev);
  for (const CharDevices& d : registry().devices) {
    if (d.major == major_number && minor_number >= d.first_minor && minor_number - d.first_minor < d.count) {
      return d.opener(kernel, path, flags, rdev);
    }
  }
  return Errno(ENXIO);
}

}  // namespace caisson
