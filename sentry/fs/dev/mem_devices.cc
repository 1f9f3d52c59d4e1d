#include "sentry/fs/dev/mem_devices.h"

#include <linux/random.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "sentry/kernel/task.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {
namespace {

constexpr unsigned kMemMajor = 1;
enum Minor : unsigned { kNull = 3, kZero = 5, kFull = 7, kRandom = 8, kUrandom = 9 };

// All of them: lseek succeeds without effect and reports 0 (null_lseek).
class MemoryDevice : public File {
 public:
  using File::File;
  bool seekable() const override { return true; }
  Result<int64_t> Seek(Task&, int64_t, int) override { return int64_t{0}; }
  Result<size_t> Pread(Task& task, IoBuffer& destination, int64_t, int flags) override { return Read(task, destination, flags); }
  Result<size_t> Pwrite(Task& task, IoBuffer& source, int64_t, int flags) override { return Write(task, source, flags); }
  Result<size_t> Append(Task& task, IoBuffer& source, int64_t* end_offset, int flags) override {
    *end_offset = 0;
    return Write(task, source, flags);
  }
};

class NullFile : public MemoryDevice {
 public:
  using MemoryDevice::MemoryDevice;
  Result<size_t> Read(Task&, IoBuffer&, int) override { return size_t{0}; }
  Result<size_t> Write(Task&, IoBuffer& source, int) override { return source.remaining(); }
};

class ZeroFile : public MemoryDevice {
 public:
  using MemoryDevice::MemoryDevice;
  Result<size_t> Read(Task&, IoBuffer& destination, int) override { return destination.ZeroOut(destination.remaining()); }
  Result<size_t> Write(Task&, IoBuffer& source, int) override { return source.remaining(); }
  // Private mappings are anonymous memory, shared ones a shared anonymous object of their own.
  Result<void> PrepareMmap(MmapRequest& request) override {
    if ((request.flags & MAP_TYPE) != MAP_PRIVATE) {
      Task* task = Task::Current();
      if (task == nullptr) return Errno(ENODEV);
      request.mappable = NewSharedAnonymous(task->kernel().memory_file(), request.offset + request.length);
    }
    return {};
  }
};

class FullFile : public ZeroFile {
 public:
  using ZeroFile::ZeroFile;
  Result<size_t> Write(Task&, IoBuffer& source, int) override {
    if (source.remaining() == 0) return size_t{0};
    return Errno(ENOSPC);
  }
};

class RandomFile : public MemoryDevice {
 public:
  using MemoryDevice::MemoryDevice;
  Result<size_t> Read(Task&, IoBuffer& destination, int) override {
    size_t total = 0;
    while (destination.remaining() > 0) {
      uint8_t chunk[256];
      const size_t want = std::min(sizeof chunk, destination.remaining());
      if (getrandom(chunk, want, 0) != static_cast<ssize_t>(want)) return Errno(EIO);
      Result<size_t> copied = destination.CopyOut(chunk, want);
      if (!copied.ok()) {
        if (total > 0) return total;
        return copied;
      }
      total += *copied;
      if (*copied < want) break;
    }
    return total;
  }
  // The host's generator needs no entropy from guests: it is read, so that bad pointers fault, and dropped.
  Result<size_t> Write(Task&, IoBuffer& source, int) override {
    size_t total = 0;
    while (source.remaining() > 0) {
      uint8_t chunk[256];
      Result<size_t> copied = source.CopyIn(chunk, std::min(sizeof chunk, source.remaining()));
      if (!copied.ok()) {
        if (total > 0) return total;
        return copied;
      }
      total += *copied;
    }
    return total;
  }
  Result<int64_t> Ioctl(Task& task, unsigned command, uint64_t argument) override {
    switch (command) {
      case RNDGETENTCNT:
        TRY(task.CopyOut(UserPtr<int>{argument}, 256));
        return int64_t{0};
      case RNDADDTOENTCNT:
      case RNDADDENTROPY:
      case RNDZAPENTCNT:
      case RNDCLEARPOOL:
      case RNDRESEEDCRNG:
        if (!task.creds().HasCapability(CAP_SYS_ADMIN)) return Errno(EPERM);
        return int64_t{0};
      default:
        return Errno(ENOTTY);
    }
  }
};

Result<RefPtr<File>> OpenMemoryDevice(Kernel&, const VfsPath& path, int flags, uint64_t rdev) {
  switch (minor(rdev)) {
    case kNull:
      return RefPtr<File>(MakeRef<NullFile>(path, flags));
    case kZero:
      return RefPtr<File>(MakeRef<ZeroFile>(path, flags));
    case kFull:
      return RefPtr<File>(MakeRef<FullFile>(path, flags));
    case kRandom:
    case kUrandom:
      return RefPtr<File>(MakeRef<RandomFile>(path, flags));
    default:
      return Errno(ENXIO);
  }
}

}  // namespace

void RegisterMemoryDevices() {
  for (unsigned minor : {kNull, kZero, kFull, kRandom, kUrandom}) RegisterCharDevice(kMemMajor, minor, 1, &OpenMemoryDevice);
}

}  // namespace caisson
