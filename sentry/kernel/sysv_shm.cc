// System V shared memory (shmget(2), shmop(2), shmctl(2)).
#include <sys/mman.h>
#include <time.h>

#include <algorithm>

#include "sentry/kernel/sysv_ipc.h"
#include "sentry/mm/mappable.h"
#include "sentry/mm/memory_manager.h"

namespace caisson {
namespace {

constexpr uint32_t kDestroyed = 01000;  // SHM_DEST
constexpr uint32_t kLocked = 02000;     // SHM_LOCKED

uint64_t Pages(uint64_t size) { return size / abi::kPageSize + (size % abi::kPageSize != 0); }

// As a viewer's pid namespace has it.
pid_t CurrentProcess() {
  Task* task = Task::Current();
  return task ? task->tgid() : 0;
}

}  // namespace

// One segment, which is what guests map. It counts attached bytes, not vmas, so that splitting one changes nothing.
class ShmSegment final : public Mappable {
 public:
  ShmSegment(RefPtr<ShmTable> table, RefPtr<Mappable> pages, uint64_t size, int32_t key)
      : size(size), table_(std::move(table)), pages_(std::move(pages)), create_time(time(nullptr)), creator(CurrentProcess()) {
    char text[32];
    snprintf(text, sizeof text, "/SYSV%08x (deleted)", static_cast<unsigned>(key));
    name_ = text;
  }

  Result<Translation> Translate(uint64_t offset, uint64_t length, bool write) override {
    return pages_->Translate(offset, length, write);
  }
  void AddMapping(MemoryManager&, uint64_t, uint64_t length, uint64_t, bool) override {
    absl::MutexLock lock(&mutex_);
    attached_bytes_ += length;
    attach_time_ = time(nullptr);
    last_process_ = CurrentProcess();
  }
  void RemoveMapping(MemoryManager&, uint64_t, uint64_t length, uint64_t, bool) override {
    bool unused;
    {
      absl::MutexLock lock(&mutex_);
      attached_bytes_ -= length;
      detach_time_ = time(nullptr);
      last_process_ = CurrentProcess();
      unused = attached_bytes_ == 0 && removed_;
    }
    if (unused) table_->Unused(*this);
  }
  // Somebody is about to map it.
  void Pin() {
    absl::MutexLock lock(&mutex_);
    attached_bytes_ += mapped_size();
  }
  void Unpin() {
    bool unused;
    {
      absl::MutexLock lock(&mutex_);
      attached_bytes_ -= mapped_size();
      unused = attached_bytes_ == 0 && removed_;
    }
    if (unused) table_->Unused(*this);
  }
  bool attached() {
    absl::MutexLock lock(&mutex_);
    return attached_bytes_ != 0;
  }
  // Destroyed as soon as nobody has it any more. Returns whether that is now.
  bool MarkRemoved() {
    absl::MutexLock lock(&mutex_);
    removed_ = true;
    return attached_bytes_ == 0;
  }
  void Fill(::shmid_ds* to) {
    absl::MutexLock lock(&mutex_);
    to->shm_segsz = size;
    to->shm_atime = attach_time_;
    to->shm_dtime = detach_time_;
    to->shm_cpid = creator;
    to->shm_lpid = last_process_;
    to->shm_nattch = (attached_bytes_ + mapped_size() - 1) / mapped_size();
  }
  uint64_t mapped_size() const { return abi::PageRoundUp(size); }
  const char* name() const { return name_.c_str(); }

  const uint64_t size;
  IpcPermissions permissions;  // Under the table's mutex, as `change_time`.

 private:
  const RefPtr<ShmTable> table_;
  const RefPtr<Mappable> pages_;
  std::string name_;
  absl::Mutex mutex_;  // A leaf.
  uint64_t attached_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool removed_ ABSL_GUARDED_BY(mutex_) = false;
  time_t attach_time_ ABSL_GUARDED_BY(mutex_) = 0, detach_time_ ABSL_GUARDED_BY(mutex_) = 0;
  pid_t last_process_ ABSL_GUARDED_BY(mutex_) = 0;

 public:
  time_t create_time;
  const pid_t creator;
};

ShmTable::ShmTable(RefPtr<UserNamespace> owner) : owner_(std::move(owner)) {}
ShmTable::~ShmTable() = default;

Result<int> ShmTable::Get(Task& task, int32_t key, uint64_t size, int flags) {
  absl::MutexLock lock(&mutex_);
  if (key != IPC_PRIVATE) {
    if (ShmSegment* found = ids_.FindKey(key)) {
      if ((flags & IPC_CREAT) && (flags & IPC_EXCL)) return Errno(EEXIST);
      if (size > found->size) return Errno(EINVAL);
      TRY(found->permissions.Check(task.creds(), *owner_, static_cast<uint32_t>(flags)));
      return found->permissions.id;
    }
    if (!(flags & IPC_CREAT)) return Errno(ENOENT);
  }
  if (size < 1 || size > max_bytes.load()) return Errno(EINVAL);
  const uint64_t pages = Pages(size);
  if (pages * abi::kPageSize < size) return Errno(ENOSPC);
  if (pages_ + pages < pages_ || pages_ + pages > max_pages.load()) return Errno(ENOSPC);
  if (flags & SHM_HUGETLB) return Errno(task.creds().HasCapability(CAP_IPC_LOCK) ? ENOMEM : EPERM);
  if (static_cast<int64_t>(ids_.size()) >= max_segments.load()) return Errno(ENOSPC);
  RefPtr<ShmSegment> segment =
      MakeRef<ShmSegment>(RefPtr<ShmTable>(this), NewSharedAnonymous(task.kernel().memory_file(), size), size, key);
  segment->permissions.Own(task.creds());
  segment->permissions.key = key;
  segment->permissions.mode = flags & 0777;
  pages_ += pages;
  return ids_.Add(std::move(segment));
}

Result<RefPtr<ShmSegment>> ShmTable::FindLocked(int id) {
  ShmSegment* found = ids_.Find(id);
  if (!found) return Errno(EINVAL);
  return RefPtr<ShmSegment>(found);
}

void ShmTable::DestroyLocked(ShmSegment& segment) {
  pages_ -= Pages(segment.size);
  ids_.Remove(segment);
}

void ShmTable::Clear() {
  std::vector<RefPtr<ShmSegment>> all;  // They go without the lock.
  absl::MutexLock lock(&mutex_);
  for (auto& [index, segment] : ids_.all()) all.push_back(segment);
  for (const RefPtr<ShmSegment>& segment : all) ids_.Remove(*segment);
}

void ShmTable::Unused(ShmSegment& segment) {
  RefPtr<ShmSegment> hold(&segment);
  absl::MutexLock lock(&mutex_);
  if (ids_.Find(segment.permissions.id) == &segment && !segment.attached()) DestroyLocked(segment);
}

Result<uint64_t> ShmTable::Attach(Task& task, int id, uint64_t address, int flags) {
  if (id < 0) return Errno(EINVAL);
  MmapRequest request;
  request.flags = MAP_SHARED;
  if (address != 0) {
    if (!abi::IsPageAligned(address)) {
      if (!(flags & SHM_RND)) return Errno(EINVAL);
      address = abi::PageRoundDown(address);
      if (address == 0 && (flags & SHM_REMAP)) return Errno(EINVAL);
    }
    request.flags |= flags & SHM_REMAP ? MAP_FIXED : MAP_FIXED_NOREPLACE;
  } else if (flags & SHM_REMAP) {
    return Errno(EINVAL);
  }
  uint32_t wanted = 0444;
  request.prot = PROT_READ;
  request.max_prot = PROT_READ | PROT_WRITE | PROT_EXEC;
  if (!(flags & SHM_RDONLY)) {
    request.prot |= PROT_WRITE;
    wanted |= 0222;
  } else {
    request.max_prot = PROT_READ | PROT_EXEC;
  }
  if (flags & SHM_EXEC) {
    request.prot |= PROT_EXEC;
    wanted |= 0111;
  }
  RefPtr<ShmSegment> segment;
  {
    absl::MutexLock lock(&mutex_);
    segment = TRY(FindLocked(id));
    TRY(segment->permissions.Check(task.creds(), *owner_, wanted));
    segment->Pin();
  }
  request.address = address;
  request.length = segment->mapped_size();
  request.mappable = segment;
  request.special_name = segment->name();
  Result<uint64_t> mapped = task.mm().Mmap(request, task.memory_limits());
  segment->Unpin();
  if (!mapped.ok() && mapped.error() == EEXIST) return Errno(EINVAL);
  return mapped;
}

Result<void> ShmTable::Detach(Task& task, uint64_t address) {
  if (!abi::IsPageAligned(address)) return Errno(EINVAL);
  MemoryManager& mm = task.mm();
  // The segment whose beginning is mapped here or above; only what is still at its place in it goes.
  RefPtr<RefCounted> segment;
  uint64_t end = 0;
  for (const MemoryManager::VmaInfo& vma : mm.Vmas(false)) {
    if (vma.start < address || !vma.shared) continue;
    if (segment && vma.start >= end) break;
    Result<MemoryManager::FutexKey> key = mm.GetFutexKey(vma.start, false);
    if (!key.ok()) continue;
    if (key->offset != vma.start - address) continue;
    auto* candidate = dynamic_cast<ShmSegment*>(key->hold.get());
    if (!candidate || (segment && key->hold.get() != segment.get())) continue;
    if (!segment) {
      segment = key->hold;
      end = address + candidate->mapped_size();
    }
    TRY(mm.Munmap(vma.start, vma.end - vma.start));
  }
  if (!segment) return Errno(EINVAL);
  return {};
}

ShmTable::Info ShmTable::GetInfo() {
  absl::MutexLock lock(&mutex_);
  Info result;
  result.info.used_ids = static_cast<int>(ids_.size());
  result.info.shm_tot = pages_;
  result.info.shm_rss = pages_;
  result.highest = ids_.highest_index();
  return result;
}

Result<::shmid_ds> ShmTable::Stat(Task& task, int which, bool by_index, bool check, int* id) {
  absl::MutexLock lock(&mutex_);
  ShmSegment* found = by_index ? ids_.At(which) : ids_.Find(which);
  if (!found) return Errno(EINVAL);
  if (check) TRY(found->permissions.Check(task.creds(), *owner_, 0444));
  ::shmid_ds shown{};
  found->Fill(&shown);
  shown.shm_perm = found->permissions.Show(*task.creds().user_ns);
  shown.shm_ctime = found->create_time;
  *id = found->permissions.id;
  return shown;
}

Result<void> ShmTable::Set(Task& task, int id, const ::shmid_ds& wanted) {
  absl::MutexLock lock(&mutex_);
  RefPtr<ShmSegment> found = TRY(FindLocked(id));
  TRY(found->permissions.CheckOwner(task.creds(), *owner_));
  TRY(found->permissions.Change(task.creds(), wanted.shm_perm.uid, wanted.shm_perm.gid, wanted.shm_perm.mode));
  found->create_time = time(nullptr);
  return {};
}

Result<void> ShmTable::Remove(Task& task, int id) {
  absl::MutexLock lock(&mutex_);
  RefPtr<ShmSegment> found = TRY(FindLocked(id));
  TRY(found->permissions.CheckOwner(task.creds(), *owner_));
  if (found->MarkRemoved()) {
    DestroyLocked(*found);
  } else {
    // Nobody finds it by its key any more.
    found->permissions.mode |= kDestroyed;
    found->permissions.key = IPC_PRIVATE;
  }
  return {};
}

Result<void> ShmTable::Lock(Task& task, int id, bool locked) {
  absl::MutexLock lock(&mutex_);
  RefPtr<ShmSegment> found = TRY(FindLocked(id));
  const Credentials& creds = task.creds();
  if (!creds.HasCapabilityIn(CAP_IPC_LOCK, *owner_)) {
    if (creds.euid != found->permissions.uid && creds.euid != found->permissions.cuid) return Errno(EPERM);
    if (locked && task.Limit(RLIMIT_MEMLOCK) == 0) return Errno(EPERM);
  }
  if (locked) {
    found->permissions.mode |= kLocked;
  } else {
    found->permissions.mode &= ~kLocked;
  }
  return {};
}

std::string ShmTable::Text(const UserNamespace& viewer, const PidNamespace&) {
  std::string out =
      "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      "
      "ctime                   rss                  swap\n";
  absl::MutexLock lock(&mutex_);
  for (auto& [index, segment] : ids_.all()) {
    ::shmid_ds shown{};
    segment->Fill(&shown);
    const ::ipc_perm p = segment->permissions.Show(viewer);
    char line[320];
    snprintf(line, sizeof line, "%10d %10d  %4o %21lu %5u %5u  %5lu %5u %5u %5u %5u %10lu %10lu %10lu %21lu %21lu\n", p.__key,
             segment->permissions.id, static_cast<unsigned>(p.mode), static_cast<unsigned long>(shown.shm_segsz), shown.shm_cpid,
             shown.shm_lpid, static_cast<unsigned long>(shown.shm_nattch), p.uid, p.gid, p.cuid, p.cgid,
             static_cast<unsigned long>(shown.shm_atime), static_cast<unsigned long>(shown.shm_dtime),
             static_cast<unsigned long>(segment->create_time), static_cast<unsigned long>(segment->mapped_size()), 0ul);
    out += line;
  }
  return out;
}

}  // namespace caisson
