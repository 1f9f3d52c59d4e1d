// Mappable: what mmap(2) of a file needs from it. Implemented by page caches (tmpfs, gofer) and by shared anonymous memory.
#ifndef CAISSON_SENTRY_MM_MAPPABLE_H_
#define CAISSON_SENTRY_MM_MAPPABLE_H_

#include <cstdint>
#include <string>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/mm/memory_file.h"

namespace caisson {

class MemoryManager;

class Mappable : public RefCounted {
 public:
  struct Translation {
    RefPtr<BackingFile> file;
    FileRange range;        // In `file`; starts at the offset asked for; references are taken (BackingFile::IncRef).
    bool writable = false;  // A shared mapping may be mapped writable right now (dirty tracking done).
  };

  // The pages behind [offset, offset + length) of this file, both page-aligned; may give fewer, at least one. `write`: a
  // store through a shared mapping follows. Fills the page cache as needed. May block on the gofer.
  // EFAULT (the caller raises SIGBUS): wholly beyond the end of file. EIO, ENOMEM.
  virtual Result<Translation> Translate(uint64_t offset, uint64_t length, bool write) = 0;

  // `mm` has (no longer has) the file mapped; Invalidate calls are due to it in between. Counted per call.
  virtual void AddMapping(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset, bool shared_writable) = 0;
  virtual void RemoveMapping(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset,
                             bool shared_writable) = 0;
};

// The bookkeeping behind AddMapping/RemoveMapping that implementers embed. Lock order: MappingSet, then
// MemoryManager's pma lock; never held while calling Translate.
class MappingSet {
 public:
  MappingSet();
  ~MappingSet();
  void Add(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset);
  void Remove(MemoryManager& mm, uint64_t address, uint64_t length, uint64_t offset);
  // Makes every mm drop its translations of [offset, offset + length) (truncate, punch hole, eviction), so that the next
  // access asks Translate again. `private_too`: also copies that private mappings made (truncate beyond end of file).
  void Invalidate(uint64_t offset, uint64_t length, bool private_too);
  bool empty() const;

 private:
  struct State;
  State* state_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_MAPPABLE_H_
