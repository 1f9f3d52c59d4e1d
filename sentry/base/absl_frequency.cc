// What abseil believes the CPU's frequency to be.
//
// The first contended absl::Mutex asks, and abseil then reads /sys and, where that does not tell, sleeps 3 ms to measure.
// The one is a call that a confined process dies of, the other time that a sandbox does not have. The figure only says
// how often a waiting thread's scheduling priority is read again, so that any will do. The linker's --wrap puts this in
// place of abseil's own where that is linked statically (the name is that of Debian's libabsl-dev 20220623).
extern "C" double __wrap__ZN4absl7debian313base_internal19NominalCPUFrequencyEv() { return 2e9; }
