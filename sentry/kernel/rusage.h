// getrusage(2)'s figures.
#ifndef CAISSON_SENTRY_KERNEL_RUSAGE_H_
#define CAISSON_SENTRY_KERNEL_RUSAGE_H_

#include "sentry/abi/linux.h"
#include "sentry/kernel/thread_group_state.h"

namespace caisson {

enum class RusageOf { kSelf, kChildren, kBoth };
// With the task set lock held.
abi::Rusage RusageLocked(const ThreadGroup::State& process, RusageOf which);
abi::Rusage ProcessRusage(ThreadGroup& process, RusageOf which);
abi::Rusage TaskRusage(Task& task);
// A child was waited for: its figures, and its children's, become the parent's. Task set lock held.
void ChargeChildLocked(ThreadGroup::State& parent, const ThreadGroup::State& child);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_RUSAGE_H_
