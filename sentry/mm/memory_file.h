// The sandbox's memory file: one memfd that holds all guest memory and every page cache. It is mapped into the sentry in
// large chunks, once, so that a page's offset is an address.
#ifndef CAISSON_SENTRY_MM_MEMORY_FILE_H_
#define CAISSON_SENTRY_MM_MEMORY_FILE_H_

#include <cstdint>
#include <memory>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"

namespace caisson {

// A page-aligned range of a backing file.
struct FileRange {
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t end() const { return offset + length; }
};

// Something on the host that guest pages can be mapped from: the memory file, or a donated host file.
class BackingFile : public RefCounted {
 public:
  virtual int fd() const = 0;
  // Where the sentry sees [offset, offset + length): host memory, valid while the reference to the range is held. Access
  // it with SafeCopy only where the file can shrink under us (donated files). ENOMEM.
  virtual Result<uint8_t*> SentryAddress(uint64_t offset, uint64_t length) = 0;
  // References to pages, for files that count them (the memory file frees a page with its last one). No-op otherwise.
  virtual void IncRef(FileRange range) = 0;
  virtual void DecRef(FileRange range) = 0;
  using RefCounted::DecRef;
  using RefCounted::IncRef;
};

class MemoryFile : public BackingFile {
 public:
  // `fd`: an empty memfd. `limit_bytes`: once so much host memory is in use, Allocate fails with ENOMEM. Ranges that
  // were allocated and not touched do not count, so that a guest may reserve more than there is.
  static Result<RefPtr<MemoryFile>> New(int fd, uint64_t limit_bytes);

  // A contiguous zero-filled range with one reference on each page. Host memory is used only when touched.
  // `huge_aligned`: 2 MiB-align what is at least that long. ENOMEM.
  virtual Result<FileRange> Allocate(uint64_t length, bool huge_aligned = false) = 0;
  struct AllocateOptions {
    bool huge_aligned = false;
    // The caller overwrites every byte before anybody else sees the range: what is in it is arbitrary.
    bool will_overwrite = false;
    // Start there if that is free, so that neighbours in an address space are neighbours in the file. 0: anywhere.
    uint64_t hint = 0;
  };
  virtual Result<FileRange> Allocate(uint64_t length, const AllocateOptions& options) = 0;
  // How much more may be handed out before it, once all of it is touched, exceeds the limit.
  virtual uint64_t Room() = 0;
  // Never null for an allocated range; the address is stable for the life of the sandbox.
  virtual uint8_t* Pointer(uint64_t offset) = 0;
  // Gives the host memory behind the range back; it reads as zeros again. References are kept.
  virtual void Decommit(FileRange range) = 0;
  // Whether each page of the range has exactly one reference, so that a copy-on-write fault may keep it.
  virtual bool HasOneRef(FileRange range) = 0;

  struct Usage {
    uint64_t allocated_bytes;  // Ranges handed out.
    uint64_t committed_bytes;  // Host memory in use (st_blocks).
  };
  virtual Usage usage() = 0;
  // `change` more (or fewer) parties are about to give references back, which Flush() and an Allocate() that meets the
  // limit wait for.
  virtual void ExpectRelease(int change) = 0;
  // Waits until host memory of freed ranges has been given back (tests, `runsc events`).
  virtual void Flush() = 0;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_MEMORY_FILE_H_
