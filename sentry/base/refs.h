// Intrusive reference counts, for what Linux itself refcounts (files, inodes, mounts, memory managers …).
//
//   class Pipe : public RefCounted { … };
//   RefPtr<Pipe> pipe = MakeRef<Pipe>(args…);   // Starts with one reference.
#ifndef CAISSON_SENTRY_BASE_REFS_H_
#define CAISSON_SENTRY_BASE_REFS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "sentry/base/check.h"

namespace caisson {

class RefCounted {
 public:
  RefCounted() = default;
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;

  void IncRef() const {
    int64_t before = refs_.fetch_add(1, std::memory_order_relaxed);
    CHECK(before > 0);
  }
  // Deletes the object with the last reference. May therefore run the destructor: not under locks that it takes.
  void DecRef() const {
    int64_t before = refs_.fetch_sub(1, std::memory_order_acq_rel);
    CHECK(before > 0);
    if (before == 1) const_cast<RefCounted*>(this)->OnLastRef();
  }
  // False if the last reference is already gone; for look-ups in tables that hold no reference.
  bool TryIncRef() const {
    int64_t now = refs_.load(std::memory_order_relaxed);
    while (now > 0) {
      if (refs_.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }
  int64_t RefCount() const { return refs_.load(std::memory_order_relaxed); }

 protected:
  virtual ~RefCounted() = default;
  virtual void OnLastRef() { delete this; }

 private:
  mutable std::atomic<int64_t> refs_{1};
};

template <typename T>
class RefPtr {
 public:
  RefPtr() = default;
  RefPtr(std::nullptr_t) {}  // NOLINT
  explicit RefPtr(T* object) : object_(object) {
    if (object_) object_->IncRef();
  }
  RefPtr(const RefPtr& other) : RefPtr(other.object_) {}
  RefPtr(RefPtr&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <typename U>
  RefPtr(const RefPtr<U>& other) : RefPtr(static_cast<T*>(other.get())) {}  // NOLINT
  template <typename U>
  RefPtr(RefPtr<U>&& other) noexcept : object_(other.Release()) {}  // NOLINT
  RefPtr& operator=(RefPtr other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~RefPtr() {
    if (object_) object_->DecRef();
  }

  // Takes over a reference that the caller holds.
  static RefPtr Adopt(T* object) {
    RefPtr p;
    p.object_ = object;
    return p;
  }
  T* Release() { return std::exchange(object_, nullptr); }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }
  friend bool operator==(const RefPtr& a, const RefPtr& b) { return a.object_ == b.object_; }
  friend bool operator==(const RefPtr& a, std::nullptr_t) { return a.object_ == nullptr; }

 private:
  T* object_ = nullptr;
};

template <typename T, typename... Args>
RefPtr<T> MakeRef(Args&&... args) {
  return RefPtr<T>::Adopt(new T(std::forward<Args>(args)...));
}

}  // namespace caisson

#endif  // CAISSON_SENTRY_BASE_REFS_H_
