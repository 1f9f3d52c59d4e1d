// The seccomp filters of zygote and stubs. They look at the address of the syscall instruction, which libseccomp cannot
// express, hence plain BPF. README.md lists what they allow and why that is harmless.
#ifndef CAISSON_PLATFORM_STUB_FILTERS_H_
#define CAISSON_PLATFORM_STUB_FILTERS_H_

#include <linux/filter.h>

#include <vector>

namespace caisson::stub {

// For the zygote and, inherited, each stub's service thread. Whatever is not listed raises SIGSYS, which kills them
// because they block it (and lets guest threads, which run under this filter too, handle theirs).
std::vector<sock_filter> ServiceFilter();

// Added by each guest thread before it runs guest code: the hand-over's futex calls and exit from the stub's own
// instructions; anything else, from anywhere, raises SIGSYS.
std::vector<sock_filter> GuestFilter();

// The flags with which the service thread may clone guest threads.
extern const unsigned long kThreadCloneFlags;

}  // namespace caisson::stub

#endif  // CAISSON_PLATFORM_STUB_FILTERS_H_
