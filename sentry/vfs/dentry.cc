#include "sentry/vfs/dentry.h"

#include <memory>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"
#include "sentry/vfs/inotify.h"

namespace caisson {
namespace {

// Salted per process, so that a guest cannot choose names that collide.
uint32_t HashName(std::string_view name) {
  size_t h = absl::Hash<absl::string_view>{}(absl::string_view(name.data(), name.size()));
  return static_cast<uint32_t>(h ^ (h >> 32));
}

}  // namespace

// A chained hash table through Dentry::table_next_: no allocation per name.
struct Dentry::Table {
  absl::Mutex mutex;
  std::vector<Dentry*> buckets ABSL_GUARDED_BY(mutex) = std::vector<Dentry*>(8);
  size_t size ABSL_GUARDED_BY(mutex) = 0;

  Dentry*& Bucket(uint32_t hash) ABSL_SHARED_LOCKS_REQUIRED(mutex) { return buckets[hash & (buckets.size() - 1)]; }

  Dentry* Find(std::string_view name, uint32_t hash) ABSL_SHARED_LOCKS_REQUIRED(mutex) {
    for (Dentry* d = Bucket(hash); d; d = d->table_next_) {
      if (d->hash_ == hash && d->name_ == name) return d;
    }
    return nullptr;
  }
  void Insert(Dentry* d) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (++size > buckets.size()) Grow();
    Dentry*& head = Bucket(d->hash_);
    d->table_next_ = head;
    head = d;
  }
  // False if it was not (or no longer) there.
  bool Erase(Dentry* d) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    for (Dentry** p = &Bucket(d->hash_); *p; p = &(*p)->table_next_) {
      if (*p != d) continue;
      *p = d->table_next_;
      d->table_next_ = nullptr;
      --size;
      return true;
    }
    return false;
  }
  void Grow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    std::vector<Dentry*> old = std::exchange(buckets, std::vector<Dentry*>(buckets.size() * 2));
    for (Dentry* d : old) {
      while (d) {
        Dentry* next = d->table_next_;
        Dentry*& head = Bucket(d->hash_);
        d->table_next_ = head;
        head = d;
        d = next;
      }
    }
  }
};

Dentry::Dentry(DentryTree& tree, RefPtr<Inode> inode, RefPtr<Dentry> parent, std::string_view name, uint32_t hash)
    : tree_(tree), inode_(std::move(inode)), parent_(std::move(parent)), name_(name), hash_(hash) {}

Dentry::~Dentry() { delete table_.load(std::memory_order_acquire); }

std::string Dentry::name() const {
  absl::ReaderMutexLock lock(&tree_.rename_mutex_);
  return name_;
}

RefPtr<Dentry> Dentry::parent() const {
  absl::ReaderMutexLock lock(&tree_.rename_mutex_);
  return parent_ ? parent_ : RefPtr<Dentry>(const_cast<Dentry*>(this));
}

// A chain of parents may be as long as a guest cares to make it, so each level's end must not nest in the one below.
void Dentry::OnLastRef() {
  thread_local std::vector<RefPtr<Dentry>>* pending = nullptr;
  RefPtr<Dentry> parent = std::move(parent_);
  if (Table* table = parent ? parent->table_.load(std::memory_order_acquire) : nullptr) {
    absl::MutexLock lock(&table->mutex);
    table->Erase(this);
  }
  if (inode_ && has_flag(kUnlinked)) NotifyInodeGone(*inode_);
  delete this;
  if (!parent) return;
  if (pending) {
    pending->push_back(std::move(parent));
    return;
  }
  std::vector<RefPtr<Dentry>> work;
  pending = &work;
  work.push_back(std::move(parent));
  while (!work.empty()) {
    RefPtr<Dentry> next = std::move(work.back());
    work.pop_back();
    next = nullptr;
  }
  pending = nullptr;
}

DentryTree::DentryTree(Filesystem& fs)
    : fs_(fs),
      caches_names_(fs.caches_names()),
      caches_negative_(fs.caches_names() && fs.caches_negative()),
      max_cached_(fs.max_cached_names()),
      root_(RefPtr<Dentry>::Adopt(new Dentry(*this, fs.root(), nullptr, "", 0))) {
  root_->flags_.fetch_or(Dentry::kRoot, std::memory_order_release);
}

DentryTree::~DentryTree() { DropCaches(); }

Dentry::Table& DentryTree::TableOf(Dentry& directory) {
  Dentry::Table* table = directory.table_.load(std::memory_order_acquire);
  if (table) return *table;
  auto fresh = std::make_unique<Dentry::Table>();
  if (directory.table_.compare_exchange_strong(table, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
  return *table;
}

RefPtr<Dentry> DentryTree::Find(Dentry& directory, std::string_view name) {
  Dentry::Table* table = directory.table_.load(std::memory_order_acquire);
  if (!table) return nullptr;
  uint32_t hash = HashName(name);
  RefPtr<Dentry> found;
  {
    absl::ReaderMutexLock lock(&table->mutex);
    Dentry* d = table->Find(name, hash);
    if (!d || !d->TryIncRef()) return nullptr;
    found = RefPtr<Dentry>::Adopt(d);
  }
  Touch(*found);
  return found;
}

RefPtr<Dentry> DentryTree::Add(Dentry& directory, std::string_view name, RefPtr<Inode> inode) {
  if (!inode && !caches_negative_) return nullptr;
  uint32_t hash = HashName(name);
  Dentry::Table& table = TableOf(directory);
  auto fresh = RefPtr<Dentry>::Adopt(new Dentry(*this, std::move(inode), RefPtr<Dentry>(&directory), name, hash));
  RefPtr<Dentry> raced;
  {
    absl::MutexLock lock(&table.mutex);
    Dentry* d = table.Find(name, hash);
    if (d && d->TryIncRef()) {
      raced = RefPtr<Dentry>::Adopt(d);
    } else {
      if (d) table.Erase(d);  // It is dying; its own removal will find nothing.
      table.Insert(fresh.get());
    }
  }
  if (raced) {
    fresh->parent_ = nullptr;  // It is in no table.
    Touch(*raced);
    return raced;
  }
  if (caches_names_) AddToLru(*fresh);
  return fresh;
}

RefPtr<Dentry> DentryTree::AddNew(Dentry& directory, std::string_view name, RefPtr<Inode> inode) {
  if (RefPtr<Dentry> old = Find(directory, name)) Remove(*old);
  return Add(directory, name, std::move(inode));
}

void DentryTree::Remove(Dentry& dentry) {
  dentry.flags_.fetch_or(Dentry::kUnlinked, std::memory_order_acq_rel);
  RefPtr<Dentry> parent;
  {
    absl::ReaderMutexLock lock(&rename_mutex_);
    parent = dentry.parent_;
  }
  if (parent) {
    Dentry::Table& table = TableOf(*parent);
    absl::MutexLock lock(&table.mutex);
    table.Erase(&dentry);
  }
  ForgetDescendants(dentry);
  RemoveFromLru(dentry);
}

void DentryTree::Move(Dentry& dentry, Dentry& new_directory, std::string_view new_name) {
  RefPtr<Dentry> old_parent;
  {
    absl::MutexLock lock(&rename_mutex_);
    Dentry::Table& from = TableOf(*dentry.parent_);
    {
      absl::MutexLock table_lock(&from.mutex);
      from.Erase(&dentry);
    }
    old_parent = std::exchange(dentry.parent_, RefPtr<Dentry>(&new_directory));
    dentry.name_ = std::string(new_name);
    dentry.hash_ = HashName(new_name);
    Dentry::Table& to = TableOf(new_directory);
    absl::MutexLock table_lock(&to.mutex);
    if (Dentry* stale = to.Find(new_name, dentry.hash_)) to.Erase(stale);  // Negative, or dying.
    to.Insert(&dentry);
  }
}

void DentryTree::Exchange(Dentry& a, Dentry& b) {
  absl::MutexLock lock(&rename_mutex_);
  for (Dentry* d : {&a, &b}) {
    Dentry::Table& table = TableOf(*d->parent_);
    absl::MutexLock table_lock(&table.mutex);
    table.Erase(d);
  }
  std::swap(a.parent_, b.parent_);
  std::swap(a.name_, b.name_);
  std::swap(a.hash_, b.hash_);
  for (Dentry* d : {&a, &b}) {
    Dentry::Table& table = TableOf(*d->parent_);
    absl::MutexLock table_lock(&table.mutex);
    table.Insert(d);
  }
}

RefPtr<Dentry> DentryTree::NewDetached(RefPtr<Inode> inode, std::string_view name, bool unlinked,
                                       RefPtr<Dentry> directory) {
  uint8_t flags = (directory ? 0 : Dentry::kRoot) | (unlinked ? Dentry::kUnlinked : 0);
  auto d = RefPtr<Dentry>::Adopt(new Dentry(*this, std::move(inode), std::move(directory), name, 0));
  d->flags_.store(flags, std::memory_order_release);
  return d;
}

bool DentryTree::IsBelow(const Dentry& dentry, const Dentry& ancestor) const {
  absl::ReaderMutexLock lock(&rename_mutex_);
  for (const Dentry* d = &dentry; d; d = d->parent_.get()) {
    if (d == &ancestor) return true;
  }
  return false;
}

RefPtr<Dentry> DentryTree::ChildTowards(const RefPtr<Dentry>& dentry, const Dentry& ancestor) const {
  absl::ReaderMutexLock lock(&rename_mutex_);
  for (Dentry* d = dentry.get(); d; d = d->parent_.get()) {
    if (d->parent_.get() == &ancestor) return RefPtr<Dentry>(d);
  }
  return nullptr;
}

bool DentryTree::CollectNames(const Dentry& dentry, const Dentry& until, std::vector<std::string>* names) const {
  absl::ReaderMutexLock lock(&rename_mutex_);
  for (const Dentry* d = &dentry; d != &until; d = d->parent_.get()) {
    if (!d->parent_) return false;
    names->push_back(d->name_);
  }
  return true;
}

// --- The list of names that are kept: second chance, so that a look-up only sets a flag.

void DentryTree::Touch(Dentry& dentry) {
  uint8_t flags = dentry.flags_.load(std::memory_order_relaxed);
  if (!(flags & Dentry::kReferenced)) dentry.flags_.fetch_or(Dentry::kReferenced, std::memory_order_relaxed);
  if (!(flags & Dentry::kInLru) && caches_names_) AddToLru(dentry);
}

void DentryTree::UnlinkFromList(Dentry& d) {
  (d.lru_previous_ ? d.lru_previous_->lru_next_ : lru_first_) = d.lru_next_;
  (d.lru_next_ ? d.lru_next_->lru_previous_ : lru_last_) = d.lru_previous_;
  d.lru_previous_ = d.lru_next_ = nullptr;
  --lru_size_;
}

void DentryTree::PushToList(Dentry& d) {
  d.lru_previous_ = lru_last_;
  d.lru_next_ = nullptr;
  (lru_last_ ? lru_last_->lru_next_ : lru_first_) = &d;
  lru_last_ = &d;
  ++lru_size_;
}

void DentryTree::AddToLru(Dentry& dentry) {
  constexpr int kMaxSecondChances = 16;
  RefPtr<Dentry> evicted[2];
  absl::MutexLock lock(&lru_mutex_);
  uint8_t flags = dentry.flags_.load(std::memory_order_acquire);
  if (flags & (Dentry::kInLru | Dentry::kUnlinked | Dentry::kRoot)) return;
  dentry.IncRef();
  dentry.flags_.fetch_or(Dentry::kInLru, std::memory_order_acq_rel);
  PushToList(dentry);
  int chances = 0;
  for (RefPtr<Dentry>& victim : evicted) {
    if (lru_size_ <= max_cached_) return;
    while (chances < kMaxSecondChances && (lru_first_->flags_.load(std::memory_order_relaxed) & Dentry::kReferenced)) {
      Dentry* d = lru_first_;
      d->flags_.fetch_and(static_cast<uint8_t>(~Dentry::kReferenced), std::memory_order_relaxed);
      UnlinkFromList(*d);
      PushToList(*d);
      ++chances;
    }
    Dentry* d = lru_first_;
    UnlinkFromList(*d);
    d->flags_.fetch_and(static_cast<uint8_t>(~Dentry::kInLru), std::memory_order_acq_rel);
    victim = RefPtr<Dentry>::Adopt(d);
  }
  // `lock` goes before `evicted`, whose last references may take other locks.
}

void DentryTree::RemoveFromLru(Dentry& dentry) {
  RefPtr<Dentry> held;
  absl::MutexLock lock(&lru_mutex_);
  if (!dentry.has_flag(Dentry::kInLru)) return;
  UnlinkFromList(dentry);
  dentry.flags_.fetch_and(static_cast<uint8_t>(~Dentry::kInLru), std::memory_order_acq_rel);
  held = RefPtr<Dentry>::Adopt(&dentry);
}

// Cached names below a name that is gone would hold their inodes until evicted.
void DentryTree::ForgetDescendants(Dentry& dentry) {
  std::vector<RefPtr<Dentry>> work;
  auto collect = [&work](Dentry& d) {
    Dentry::Table* table = d.table_.load(std::memory_order_acquire);
    if (!table) return;
    absl::ReaderMutexLock lock(&table->mutex);
    for (Dentry* child : table->buckets) {
      for (; child; child = child->table_next_) {
        if (child->TryIncRef()) work.push_back(RefPtr<Dentry>::Adopt(child));
      }
    }
  };
  collect(dentry);
  while (!work.empty()) {
    RefPtr<Dentry> d = std::move(work.back());
    work.pop_back();
    collect(*d);
    RemoveFromLru(*d);
  }
}

void DentryTree::DropCaches() {
  std::vector<RefPtr<Dentry>> dropped;
  absl::MutexLock lock(&lru_mutex_);
  dropped.reserve(lru_size_);
  while (Dentry* d = lru_first_) {
    UnlinkFromList(*d);
    d->flags_.fetch_and(static_cast<uint8_t>(~Dentry::kInLru), std::memory_order_acq_rel);
    dropped.push_back(RefPtr<Dentry>::Adopt(d));
  }
}

size_t DentryTree::cached() const {
  absl::MutexLock lock(&lru_mutex_);
  return lru_size_;
}

}  // namespace caisson
