// Slots live in chunks of doubling size that are never moved, so that Get needs no lock. A slot is a pointer and, in its
// upper 16 bits, the number of readers that have seen the pointer but do not hold a reference yet: whoever takes the
// pointer out adds that many references, which such readers then find unneeded and give back.
#include "sentry/kernel/fd_table.h"

#include <atomic>
#include <bit>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "sentry/kernel/task.h"

namespace caisson {
namespace {

constexpr int kFirstChunk = 64;
constexpr int kChunks = 16;
constexpr int kMaxFds = 1 << 20;  // /proc/sys/fs/nr_open.
constexpr uint64_t kReader = uint64_t{1} << 48;
constexpr uint64_t kPointerMask = kReader - 1;

int ChunkOf(int fd) { return fd < kFirstChunk ? 0 : 32 - std::countl_zero(static_cast<unsigned>(fd) / kFirstChunk); }
int ChunkStart(int chunk) { return chunk == 0 ? 0 : kFirstChunk << (chunk - 1); }
int ChunkSize(int chunk) { return chunk == 0 ? kFirstChunk : kFirstChunk << (chunk - 1); }

using Slot = std::atomic<uint64_t>;

// SAFETY: slots hold nothing but what Pack() made of a File pointer; user-space pointers have 47 bits.
File* FileOf(uint64_t slot) { return reinterpret_cast<File*>(slot & kPointerMask); }
uint64_t Pack(File* file) { return reinterpret_cast<uint64_t>(file); }

// Puts `file` (its reference included) into the slot; returns what was there with its reference.
RefPtr<File> Exchange(Slot& slot, RefPtr<File> file) {
  uint64_t old = slot.exchange(Pack(file.Release()), std::memory_order_acq_rel);
  File* taken = FileOf(old);
  if (!taken) return nullptr;
  for (uint64_t readers = old / kReader; readers > 0; --readers) taken->IncRef();
  return RefPtr<File>::Adopt(taken);
}

}  // namespace

struct FdTable::State {
  mutable absl::Mutex mutex;
  std::vector<uint64_t> used ABSL_GUARDED_BY(mutex);           // Bitmaps.
  std::vector<uint64_t> close_on_exec ABSL_GUARDED_BY(mutex);  // As long as `used`.
  int next_free ABSL_GUARDED_BY(mutex) = 0;                    // No free number is lower.
  std::atomic<int> users{0};
  std::atomic<Slot*> chunks[kChunks] = {};
  Slot first[kFirstChunk] = {};

  State() { chunks[0].store(first, std::memory_order_relaxed); }
  ~State() {
    for (int c = 1; c < kChunks; ++c) delete[] chunks[c].load(std::memory_order_relaxed);
  }

  // Null: beyond what was ever used.
  Slot* Find(int fd) const {
    if (fd < 0 || fd >= kMaxFds) return nullptr;
    int chunk = ChunkOf(fd);
    Slot* slots = chunks[chunk].load(std::memory_order_acquire);
    return slots ? slots + (fd - ChunkStart(chunk)) : nullptr;
  }
  Slot& Make(int fd) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    int chunk = ChunkOf(fd);
    Slot* slots = chunks[chunk].load(std::memory_order_relaxed);
    if (!slots) {
      slots = new Slot[ChunkSize(chunk)]();
      chunks[chunk].store(slots, std::memory_order_release);
    }
    return slots[fd - ChunkStart(chunk)];
  }
  bool IsUsed(int fd) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return static_cast<size_t>(fd) / 64 < used.size() && (used[fd / 64] >> (fd % 64) & 1);
  }
  void Mark(int fd, bool cloexec) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (static_cast<size_t>(fd) / 64 >= used.size()) {
      used.resize(fd / 64 + 1);
      close_on_exec.resize(fd / 64 + 1);
    }
    const uint64_t bit = uint64_t{1} << (fd % 64);
    used[fd / 64] |= bit;
    if (cloexec) {
      close_on_exec[fd / 64] |= bit;
    } else {
      close_on_exec[fd / 64] &= ~bit;
    }
    if (fd == next_free) ++next_free;
  }
  void Unmark(int fd) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const uint64_t bit = uint64_t{1} << (fd % 64);
    used[fd / 64] &= ~bit;
    close_on_exec[fd / 64] &= ~bit;
    if (fd < next_free) next_free = fd;
  }
  // EMFILE.
  Result<int> FindFree(int from, int limit) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const int start = from > next_free ? from : next_free;
    int fd = start;
    while (static_cast<size_t>(fd) / 64 < used.size()) {
      uint64_t free_bits = ~used[fd / 64] & (~uint64_t{0} << (fd % 64));
      if (free_bits) {
        fd = fd / 64 * 64 + std::countr_zero(free_bits);
        break;
      }
      fd = (fd / 64 + 1) * 64;
    }
    if (fd >= limit) return Errno(EMFILE);
    if (from <= next_free) next_free = fd;
    return fd;
  }
  RefPtr<File> Take(int fd) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    Slot* slot = Find(fd);
    if (!slot || !IsUsed(fd)) return nullptr;
    RefPtr<File> file = Exchange(*slot, nullptr);
    if (file) Unmark(fd);  // Otherwise it is reserved, and stays so.
    return file;
  }
  // Whether `table` belongs to nobody but the task that runs this.
  bool OwnedByCaller(const FdTable* table) const {
    if (users.load(std::memory_order_acquire) != 1) return false;
    Task* task = Task::Current();
    return task && &task->fd_table() == table;
  }
};

FdTable::FdTable() : state_(new State) {}

FdTable::~FdTable() {
  for (int fd : Numbers()) {
    RefPtr<File> file;  // Goes after the lock.
    absl::MutexLock lock(&state_->mutex);
    file = state_->Take(fd);
  }
  delete state_;
}

RefPtr<FdTable> FdTable::Clone() const {
  RefPtr<FdTable> copy = MakeRef<FdTable>();
  State& to = *copy->state_;
  absl::MutexLock lock(&state_->mutex);
  absl::MutexLock to_lock(&to.mutex);
  for (size_t word = 0; word < state_->used.size(); ++word) {
    for (uint64_t bits = state_->used[word]; bits; bits &= bits - 1) {
      const int fd = static_cast<int>(word * 64 + std::countr_zero(bits));
      // Under the lock the slot cannot lose its reference.
      File* file = FileOf(state_->Find(fd)->load(std::memory_order_acquire));
      if (!file) continue;
      Exchange(to.Make(fd), RefPtr<File>(file));
      to.Mark(fd, state_->close_on_exec[word] >> (fd % 64) & 1);
    }
  }
  return copy;
}

void FdTable::Enter() { state_->users.fetch_add(1, std::memory_order_acq_rel); }

void FdTable::Leave(Task& task) {
  if (state_->users.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  CloseRange(task, 0, kMaxFds, false);
}

bool FdTable::shared() const { return state_->users.load(std::memory_order_acquire) > 1; }

Result<RefPtr<File>> FdTable::Get(int fd) const {
  Slot* slot = state_->Find(fd);
  if (!slot) return Errno(EBADF);
  uint64_t seen = slot->load(std::memory_order_acquire);
  if (!FileOf(seen)) return Errno(EBADF);
  if (state_->OwnedByCaller(this)) return RefPtr<File>(FileOf(seen));
  seen = slot->fetch_add(kReader, std::memory_order_acq_rel);
  File* file = FileOf(seen);
  if (file) file->IncRef();
  uint64_t now = slot->load(std::memory_order_acquire);
  while (true) {
    if (FileOf(now) != file || now / kReader == 0) {
      // It was taken out meanwhile, and a reference was added on our behalf.
      if (!file) return Errno(EBADF);
      file->DecRef();
      return RefPtr<File>::Adopt(file);
    }
    if (slot->compare_exchange_weak(now, now - kReader, std::memory_order_acq_rel)) break;
  }
  if (!file) return Errno(EBADF);
  return RefPtr<File>::Adopt(file);
}

Result<int> FdTable::Install(RefPtr<File> file, bool close_on_exec, uint64_t limit, int from) {
  if (from < 0 || static_cast<uint64_t>(from) >= limit) return Errno(from == 0 ? EMFILE : EINVAL);
  const int bound = limit < kMaxFds ? static_cast<int>(limit) : kMaxFds;
  absl::MutexLock lock(&state_->mutex);
  int fd = TRY(state_->FindFree(from, bound));
  Exchange(state_->Make(fd), std::move(file));
  state_->Mark(fd, close_on_exec);
  return fd;
}

Result<RefPtr<File>> FdTable::InstallAt(int fd, RefPtr<File> file, bool close_on_exec, uint64_t limit) {
  if (fd < 0 || static_cast<uint64_t>(fd) >= limit || fd >= kMaxFds) return Errno(EBADF);
  absl::MutexLock lock(&state_->mutex);
  Slot& slot = state_->Make(fd);
  if (state_->IsUsed(fd) && !FileOf(slot.load(std::memory_order_acquire))) return Errno(EBUSY);  // Reserved.
  RefPtr<File> old = Exchange(slot, std::move(file));
  state_->Mark(fd, close_on_exec);
  return old;
}

Result<RefPtr<File>> FdTable::Remove(int fd) {
  if (fd < 0 || fd >= kMaxFds) return Errno(EBADF);
  absl::MutexLock lock(&state_->mutex);
  RefPtr<File> file = state_->Take(fd);
  if (!file) return Errno(EBADF);
  return file;
}

Result<bool> FdTable::close_on_exec(int fd) const {
  absl::MutexLock lock(&state_->mutex);
  Slot* slot = state_->Find(fd);
  if (!slot || !FileOf(slot->load(std::memory_order_acquire))) return Errno(EBADF);
  return static_cast<bool>(state_->close_on_exec[fd / 64] >> (fd % 64) & 1);
}

Result<void> FdTable::SetCloseOnExec(int fd, bool close_on_exec) {
  absl::MutexLock lock(&state_->mutex);
  Slot* slot = state_->Find(fd);
  if (!slot || !FileOf(slot->load(std::memory_order_acquire))) return Errno(EBADF);
  state_->Mark(fd, close_on_exec);
  return {};
}

void FdTable::CloseRange(Task& task, unsigned first, unsigned last, bool only_mark) {
  for (int fd : Numbers()) {
    if (static_cast<unsigned>(fd) < first || static_cast<unsigned>(fd) > last) continue;
    if (only_mark) {
      (void)SetCloseOnExec(fd, true);
      continue;
    }
    Result<RefPtr<File>> file = Remove(fd);
    if (file.ok()) (void)(*file)->CloseDescriptor(task, *this);
  }
}

void FdTable::CloseOnExec(Task& task) {
  std::vector<int> marked;
  {
    absl::MutexLock lock(&state_->mutex);
    for (size_t word = 0; word < state_->close_on_exec.size(); ++word) {
      for (uint64_t bits = state_->close_on_exec[word]; bits; bits &= bits - 1) {
        marked.push_back(static_cast<int>(word * 64 + std::countr_zero(bits)));
      }
    }
  }
  for (int fd : marked) {
    Result<RefPtr<File>> file = Remove(fd);
    if (file.ok()) (void)(*file)->CloseDescriptor(task, *this);
  }
}

std::vector<int> FdTable::Numbers() const {
  std::vector<int> numbers;
  absl::MutexLock lock(&state_->mutex);
  for (size_t word = 0; word < state_->used.size(); ++word) {
    for (uint64_t bits = state_->used[word]; bits; bits &= bits - 1) {
      const int fd = static_cast<int>(word * 64 + std::countr_zero(bits));
      if (FileOf(state_->Find(fd)->load(std::memory_order_acquire))) numbers.push_back(fd);
    }
  }
  return numbers;
}

int FdTable::highest() const {
  absl::MutexLock lock(&state_->mutex);
  for (size_t word = state_->used.size(); word-- > 0;) {
    if (state_->used[word]) return static_cast<int>(word * 64 + 63 - std::countl_zero(state_->used[word]));
  }
  return -1;
}

// --- FdReservation

Result<FdReservation> FdReservation::Reserve(Task& task, int count) {
  FdReservation reservation;
  reservation.table_ = RefPtr<FdTable>(&task.fd_table());
  const uint64_t limit = task.Limit(RLIMIT_NOFILE);
  const int bound = limit < kMaxFds ? static_cast<int>(limit) : kMaxFds;
  FdTable::State& state = *reservation.table_->state_;
  for (int i = 0; i < count; ++i) {
    absl::MutexLock lock(&state.mutex);
    Result<int> fd = state.FindFree(0, bound);
    if (!fd.ok()) break;
    state.Make(*fd);
    state.Mark(*fd, false);
    reservation.fds_.push_back(*fd);
  }
  if (reservation.fds_.size() != static_cast<size_t>(count)) return Errno(EMFILE);  // The destructor frees the others.
  return reservation;
}

FdReservation::FdReservation(FdReservation&& other) noexcept
    : table_(std::move(other.table_)), fds_(std::exchange(other.fds_, {})) {}

FdReservation::~FdReservation() {
  for (int fd : fds_) {
    if (fd < 0) continue;
    absl::MutexLock lock(&table_->state_->mutex);
    table_->state_->Unmark(fd);
  }
}

void FdReservation::Commit(int i, RefPtr<File> file, bool close_on_exec) {
  const int fd = std::exchange(fds_[i], -1);
  absl::MutexLock lock(&table_->state_->mutex);
  table_->state_->Mark(fd, close_on_exec);
  Exchange(table_->state_->Make(fd), std::move(file));
}

}  // namespace caisson
