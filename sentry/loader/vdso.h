// Vdso: the shared object that the kernel maps into every process (vdso(7)), and the page of clock parameters from which
// it answers clock_gettime(2) without a system call.
//
// The parameters turn the TSC into nanoseconds. They are good for a bounded time; code that finds them expired makes the
// real system call, whose handler calls Refresh(). So nothing runs while no guest asks for the time. Where the TSC does
// not tick evenly, the parameters are never valid.
#ifndef CAISSON_SENTRY_LOADER_VDSO_H_
#define CAISSON_SENTRY_LOADER_VDSO_H_

#include <cstdint>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/mm/mappable.h"
#include "sentry/mm/memory_file.h"

namespace caisson {

class MemoryManager;

class Vdso : public RefCounted {
 public:
  // Puts image and parameter page into the memory file. The guest sees `cpu_count` CPUs. ENOMEM.
  static Result<RefPtr<Vdso>> New(RefPtr<MemoryFile> memory_file, int cpu_count);

  // Maps both; returns where the image begins (AT_SYSINFO_EHDR).
  virtual Result<uint64_t> MapInto(MemoryManager& mm, uint64_t hint) = 0;
  // Address of the signal return trampoline in an image that lies at `base` (for handlers without SA_RESTORER).
  virtual uint64_t SigreturnAddress(uint64_t base) const = 0;

  // Brings the parameters up to date if they are about to expire. Cheap when they are not. Any thread.
  virtual void Refresh() = 0;
  // The guest's clocks, in nanoseconds, as the image computes them while its parameters are valid, otherwise the host's;
  // the system calls use these, so that both never disagree about the order of two readings. CLOCK_MONOTONIC is
  // the host's.
  virtual int64_t MonotonicNow() = 0;
  virtual int64_t RealtimeNow() = 0;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_LOADER_VDSO_H_
