// maps, smaps, mem, auxv, cmdline and environ of /proc/PID.
#include <sys/sysmacros.h>

#include <algorithm>
#include <utility>

#include "sentry/fs/proc/internal.h"

namespace caisson::proc {
namespace {

// Vmas with what their files say: name as the reader sees it, device and inode number.
std::vector<MemoryManager::VmaInfo> NamedVmas(Task& task, MemoryManager& mm, bool with_residency) {
  std::vector<MemoryManager::VmaInfo> vmas = mm.Vmas(with_residency);
  Task* reader = Task::Current();
  const VfsPath root = reader ? reader->fs().root() : VfsPath();
  for (MemoryManager::VmaInfo& vma : vmas) {
    if (!vma.file) continue;
    if (vma.name.empty()) vma.name = task.vfs().PathName(vma.file->path(), root);
    if (Result<InodeAttr> attr = vma.file->inode().GetAttr(); attr.ok()) {
      vma.device = attr->dev;
      vma.inode = attr->ino;
    }
  }
  return vmas;
}

std::string MapsLine(const MemoryManager::VmaInfo& vma) {
  std::string line = Format("%08lx-%08lx %c%c%c%c %08lx %02x:%02x %lu", vma.start, vma.end, vma.prot & 1 ? 'r' : '-',
                            vma.prot & 2 ? 'w' : '-', vma.prot & 4 ? 'x' : '-', vma.shared ? 's' : 'p', vma.offset,
                            major(vma.device), minor(vma.device), static_cast<unsigned long>(vma.inode));
  if (!vma.name.empty()) {
    // seq_pad: names start in column 74.
    constexpr size_t kNameColumn = 73;
    line.append(line.size() < kNameColumn ? kNameColumn - line.size() : 1, ' ');
    for (char c : vma.name) line += c == '\n' ? std::string("\\012") : std::string(1, c);
  }
  return line + "\n";
}

unsigned long Kib(uint64_t bytes) { return bytes >> 10; }

std::string SmapsBody(uint64_t size, uint64_t resident, uint64_t private_dirty, uint64_t shared_clean, uint64_t locked) {
  const uint64_t private_clean = resident > private_dirty + shared_clean ? resident - private_dirty - shared_clean : 0;
  std::string out;
  if (size) out += Format("Size:           %8lu kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n", Kib(size));
  out += Format("Rss:            %8lu kB\nPss:            %8lu kB\nShared_Clean:   %8lu kB\nShared_Dirty:          0 kB\n",
                Kib(resident), Kib(resident), Kib(shared_clean));
  out += Format("Private_Clean:  %8lu kB\nPrivate_Dirty:  %8lu kB\nReferenced:     %8lu kB\nAnonymous:      %8lu kB\n",
                Kib(private_clean), Kib(private_dirty), Kib(resident), Kib(private_dirty));
  out += "LazyFree:              0 kB\nAnonHugePages:         0 kB\nShmemPmdMapped:        0 kB\nFilePmdMapped:         0 kB\n";
  out += "Shared_Hugetlb:        0 kB\nPrivate_Hugetlb:       0 kB\nSwap:                  0 kB\nSwapPss:               0 kB\n";
  out += Format("Locked:         %8lu kB\n", Kib(locked));
  return out;
}

// A range of the task's own memory, as it stands there: arguments and environment may have been overwritten.
Result<std::string> ReadRange(MemoryManager& mm, uint64_t start, uint64_t end) {
  constexpr uint64_t kMax = 4 << 20;
  if (start >= end) return std::string();
  std::string out(std::min(end - start, kMax), 0);
  Result<size_t> copied = mm.ForceCopyIn(start, out.data(), out.size());
  if (!copied.ok()) return std::string();
  out.resize(*copied);
  return out;
}

// /proc/PID/mem.
class MemFile : public File {
 public:
  MemFile(const VfsPath& path, int flags, RefPtr<MemoryManager> mm) : File(path, flags), mm_(std::move(mm)) {}
  bool seekable() const override { return true; }
  Result<size_t> Pread(Task&, IoBuffer& destination, int64_t offset, int) override {
    size_t total = 0;
    while (destination.remaining() > 0) {
      uint8_t chunk[abi::kPageSize];
      const size_t want = std::min(destination.remaining(), sizeof chunk);
      Result<size_t> got = mm_->ForceCopyIn(offset + total, chunk, want);
      if (!got.ok()) return total > 0 ? Result<size_t>(total) : Errno(EIO);
      const size_t copied = TRY(destination.CopyOut(chunk, *got));
      total += copied;
      if (copied < want) break;
    }
    return total;
  }
  Result<size_t> Pwrite(Task&, IoBuffer& source, int64_t offset, int) override {
    size_t total = 0;
    while (source.remaining() > 0) {
      uint8_t chunk[abi::kPageSize];
      const size_t got = TRY(source.CopyIn(chunk, std::min(source.remaining(), sizeof chunk)));
      Result<size_t> put = mm_->ForceCopyOut(offset + total, chunk, got);
      if (!put.ok()) return total > 0 ? Result<size_t>(total) : Errno(EIO);
      total += *put;
      if (*put < got) break;
    }
    return total;
  }
  // Addresses go beyond INT64_MAX's half: any offset is fine.
  Result<int64_t> Seek(Task&, int64_t offset, int whence) override {
    if (whence == SEEK_CUR) offset += position();
    if (whence != SEEK_SET && whence != SEEK_CUR) return Errno(EINVAL);
    set_position(offset);
    return offset;
  }

 private:
  const RefPtr<MemoryManager> mm_;
};

class MemInode : public SyntheticInode {
 public:
  MemInode(ProcFilesystem& fs, RefPtr<Task> task) : SyntheticInode(fs, S_IFREG | 0600), task_(std::move(task)) {}
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override {
    Task* opener = Task::Current();
    if (opener != task_.get() && (opener == nullptr || !MayPtrace(opener->creds(), *task_))) return Errno(EACCES);
    RefPtr<MemoryManager> mm = task_->GetMm();
    if (!mm) return Errno(ESRCH);
    return RefPtr<File>(MakeRef<MemFile>(path, flags, std::move(mm)));
  }

 protected:
  void FillAttr(InodeAttr& attr) override { FillTaskOwner(*task_, attr); }

 private:
  const RefPtr<Task> task_;
};

}  // namespace

Result<std::string> Maps(ProcFilesystem&, Task& task) {
  std::string out;
  if (RefPtr<MemoryManager> mm = task.GetMm()) {
    for (const MemoryManager::VmaInfo& vma : NamedVmas(task, *mm, false)) out += MapsLine(vma);
  }
  return out;
}

Result<std::string> Smaps(ProcFilesystem&, Task& task) {
  std::string out;
  RefPtr<MemoryManager> mm = task.GetMm();
  if (!mm) return out;
  for (const MemoryManager::VmaInfo& vma : NamedVmas(task, *mm, true)) {
    out += MapsLine(vma);
    out += SmapsBody(vma.end - vma.start, vma.resident_bytes, vma.private_dirty_bytes, vma.shared_clean_bytes,
                     vma.locked ? vma.resident_bytes : 0);
    out += "THPeligible:    0\nVmFlags:";
    if (vma.prot & 1) out += " rd";
    if (vma.prot & 2) out += " wr";
    if (vma.prot & 4) out += " ex";
    if (vma.shared) out += " sh";
    out += " mr mw me";
    if (vma.grows_down) out += " gd";
    if (vma.locked) out += " lo";
    out += " ac\n";
  }
  return out;
}

Result<std::string> SmapsRollup(ProcFilesystem&, Task& task) {
  RefPtr<MemoryManager> mm = task.GetMm();
  if (!mm) return Errno(ESRCH);
  uint64_t start = 0, end = 0, resident = 0, dirty = 0, shared = 0, locked = 0;
  for (const MemoryManager::VmaInfo& vma : mm->Vmas(true)) {
    if (start == 0) start = vma.start;
    end = vma.end;
    resident += vma.resident_bytes;
    dirty += vma.private_dirty_bytes;
    shared += vma.shared_clean_bytes;
    if (vma.locked) locked += vma.resident_bytes;
  }
  return Format("%08lx-%08lx ---p 00000000 00:00 0                          [rollup]\n", start, end) +
         SmapsBody(0, resident, dirty, shared, locked);
}

Result<std::string> Auxv(ProcFilesystem&, Task& task) {
  RefPtr<MemoryManager> mm = task.GetMm();
  if (!mm) return std::string();
  const std::vector<uint64_t> words = mm->auxv();
  std::string out;
  for (uint64_t word : words) {
    for (int i = 0; i < 8; ++i) out += static_cast<char>(word >> (8 * i));
  }
  return out;
}

Result<std::string> Cmdline(ProcFilesystem&, Task& task) {
  RefPtr<MemoryManager> mm = task.GetMm();
  if (!mm) return std::string();
  const MemoryManager::Layout layout = mm->layout();
  std::string out = TRY(ReadRange(*mm, layout.arg_start, layout.arg_end));
  // A program that overwrote its arguments with a longer title (setproctitle) let it run on into the environment.
  if (!out.empty() && out.back() != 0) {
    out += TRY(ReadRange(*mm, layout.arg_end, layout.env_end));
    out.resize(std::min(out.size(), out.find('\0')));
  }
  return out;
}

Result<std::string> Environ(ProcFilesystem&, Task& task) {
  RefPtr<MemoryManager> mm = task.GetMm();
  if (!mm) return std::string();
  const MemoryManager::Layout layout = mm->layout();
  return ReadRange(*mm, layout.env_start, layout.env_end);
}

RefPtr<Inode> NewMemInode(ProcFilesystem& fs, RefPtr<Task> task) { return MakeRef<MemInode>(fs, std::move(task)); }

}  // namespace caisson::proc
