// Vma: what the guest asked for, for a range of its addresses. Pma: which pages are there.
#ifndef CAISSON_SENTRY_MM_VMA_H_
#define CAISSON_SENTRY_MM_VMA_H_

#include <sys/mman.h>

#include <cstdint>

#include "sentry/base/refs.h"
#include "sentry/mm/mappable.h"
#include "sentry/mm/memory_file.h"
#include "sentry/vfs/file.h"

namespace caisson {

// Everything but place and length; Linux's vm_flags.
struct VmaFlags {
  int prot = 0;
  int max_prot = 7;
  bool shared = false;
  bool grows_down = false;
  bool locked = false;
  bool lock_on_fault = false;
  bool dont_fork = false;
  bool wipe_on_fork = false;
  bool dont_dump = false;
  bool no_expand = false;  // Special mappings: mremap may not grow them (VM_DONTEXPAND).
  friend bool operator==(const VmaFlags&, const VmaFlags&) = default;
};

struct Vma {
  VmaFlags flags;
  RefPtr<Mappable> mappable;  // Null: private anonymous.
  RefPtr<File> file;
  uint64_t offset = 0;  // In `mappable`.
  const char* special_name = nullptr;

  Vma SplitAt(uint64_t distance) {
    Vma right = *this;
    if (mappable) right.offset += distance;
    return right;
  }
  bool CanMerge(uint64_t length, const Vma& next) const {
    return flags == next.flags && mappable == next.mappable && file == next.file &&
           special_name == next.special_name && (!mappable || offset + length == next.offset);
  }
  // RLIMIT_DATA counts it (Linux's is_data_mapping).
  bool IsData() const { return (flags.prot & PROT_WRITE) && !flags.shared && !flags.grows_down; }
};

struct Pma {
  RefPtr<BackingFile> file;
  uint64_t offset = 0;
  uint8_t* host = nullptr;  // Where the sentry sees it; null until it looks (donated files only).
  int8_t prot = 0;          // The vma's.
  int8_t mapped = -1;       // Protection in force in the stub; -1: not mapped there.
  bool owned = false;       // Anonymous memory or a private copy, in the memory file.
  bool cow = false;         // Owned, but other address spaces may refer to the same pages: copied before a store.
  bool writable = false;    // A store may go to these pages, if `prot` has it.
  // These pages replace others that the stub still maps: the sentry must not store here yet, or a guest that is told of
  // it could still read the old ones. Cleared once the change is in force.
  bool unsettled = false;

  Pma SplitAt(uint64_t distance) {
    Pma right = *this;
    right.offset += distance;
    if (host != nullptr) right.host += distance;
    return right;
  }
  bool CanMerge(uint64_t length, const Pma& next) const {
    return file == next.file && offset + length == next.offset && prot == next.prot && mapped == next.mapped &&
           owned == next.owned && cow == next.cow && writable == next.writable && unsettled == next.unsettled &&
           (host == nullptr) == (next.host == nullptr) && (host == nullptr || host + length == next.host);
  }
  bool SentryMayStore() const { return writable && !unsettled; }
  int StubProt() const { return writable ? prot : prot & ~PROT_WRITE; }
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_VMA_H_
