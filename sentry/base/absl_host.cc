// What abseil believes about the host, without asking it.
//
// The first contended absl::Mutex wants the number of CPUs and their frequency. abseil reads both from /sys and, where
// the frequency is not there, sleeps 3 ms to measure it: calls that a confined process dies of, and time that a sandbox
// does not have. The frequency only says how often a waiting thread's scheduling priority is read again, the number only
// whether to spin before sleeping. The linker's --wrap puts these in place of abseil's own where that is linked
// statically (the names are those of Debian's libabsl-dev 20220623).
#include <sched.h>

namespace {

int CountCpus() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

const int g_cpus = CountCpus();  // While the process starts, not confined yet.

}  // namespace

extern "C" double __wrap__ZN4absl7debian313base_internal19NominalCPUFrequencyEv() { return 2e9; }
extern "C" int __wrap__ZN4absl7debian313base_internal7NumCPUsEv() { return g_cpus; }
