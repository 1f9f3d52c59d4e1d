#include "sentry/kernel/signal_queue.h"

#include <bit>

namespace caisson {

PendingSignals::Entry::Entry(const abi::Siginfo& i, RefPtr<SignalSource> s, RefPtr<SignalCount> c)
    : info(i), source(std::move(s)), count(std::move(c)) {
  if (count) count->queued.fetch_add(1, std::memory_order_relaxed);
}

PendingSignals::Entry::~Entry() {
  if (count) count->queued.fetch_sub(1, std::memory_order_relaxed);
}

void PendingSignals::Add(const abi::Siginfo& info, RefPtr<SignalSource> source, RefPtr<SignalCount> count) {
  entries_.emplace_back(info, std::move(source), std::move(count));
  set_ |= abi::SignalBit(info.signo);
}

bool PendingSignals::HasSource(const SignalSource& source) const {
  for (const Entry& entry : entries_) {
    if (entry.source.get() == &source) return true;
  }
  return false;
}

bool PendingSignals::Take(abi::Sigset set, Taken* taken) {
  abi::Sigset candidates = set_ & set;
  if (candidates == 0) return false;
  if (candidates & kSynchronousSignals) candidates &= kSynchronousSignals;
  const int signo = std::countr_zero(candidates) + 1;
  bool found = false;
  bool more = false;
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->info.signo != signo) {
      ++it;
    } else if (!found) {
      found = true;
      taken->info = it->info;
      taken->source = std::move(it->source);
      it = entries_.erase(it);
    } else {
      more = true;
      break;
    }
  }
  if (!more) set_ &= ~abi::SignalBit(signo);
  if (!found) {
    taken->info = abi::Siginfo();
    taken->info.signo = signo;
    taken->info.code = SI_USER;
    taken->source = nullptr;
  }
  return true;
}

void PendingSignals::Remove(abi::Sigset set) {
  if (!(set_ & set)) return;
  set_ &= ~set;
  entries_.remove_if([set](const Entry& entry) { return set & abi::SignalBit(entry.info.signo); });
}

}  // namespace caisson
