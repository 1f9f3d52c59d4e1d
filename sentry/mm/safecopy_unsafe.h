// SafeCopy: access to host memory that may be gone (a donated file that was truncated, a memory file that ran into the
// host's limit). A SIGSEGV or SIGBUS inside these functions ends them early instead of the process. They make no host
// call and touch no lock.
#ifndef CAISSON_SENTRY_MM_SAFECOPY_UNSAFE_H_
#define CAISSON_SENTRY_MM_SAFECOPY_UNSAFE_H_

#include <cstddef>
#include <cstdint>

namespace caisson {

// Installs the SIGSEGV and SIGBUS handler that recovers, once; later calls do nothing. Faults anywhere else go to the
// handlers that were installed before. Whoever installs a handler for these signals later must chain to ours.
void InstallSafeCopyHandler();

// Each returns how many bytes it moved before a fault: `length` when there was none.
size_t SafeCopy(void* destination, const void* source, size_t length);
size_t SafeZero(void* destination, size_t length);

// Atomic (sequentially consistent) operations on an aligned word. False: faulted, `*result` is untouched.
bool SafeLoad32(const uint32_t* address, uint32_t* result);
bool SafeSwap32(uint32_t* address, uint32_t value, uint32_t* previous);
bool SafeCompareAndSwap32(uint32_t* address, uint32_t expected, uint32_t desired, uint32_t* previous);

}  // namespace caisson

#endif  // CAISSON_SENTRY_MM_SAFECOPY_UNSAFE_H_
