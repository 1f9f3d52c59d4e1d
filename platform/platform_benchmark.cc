// What a round trip into a guest costs, and the other operations of the contract.
//
//   bazel run -c opt //platform:platform_benchmark
//
// "one_cpu" confines sentry and stub to one CPU; "all_cpus" leaves them to the scheduler.
#include <benchmark/benchmark.h>
#include <sched.h>

#include <thread>
#include <vector>

#include "platform/conformance_guest.h"

namespace caisson {
namespace {

GUEST_CODE(bench_syscall, "1: syscall; jmp 1b");
GUEST_CODE(bench_fault, "1: mov %rax, (%rdi); syscall; jmp 1b");

class Affinity {
 public:
  explicit Affinity(bool one) {
    sched_getaffinity(0, sizeof before_, &before_);
    if (!one) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    sched_setaffinity(0, sizeof set, &set);
  }
  ~Affinity() { sched_setaffinity(0, sizeof before_, &before_); }

 private:
  cpu_set_t before_;
};

void RoundTrip(benchmark::State& state, PlatformKind kind, bool one_cpu) {
  Affinity affinity(one_cpu);
  Sandbox sandbox(kind);
  Guest guest(sandbox, bench_syscall_begin, bench_syscall_end);
  auto context = sandbox.platform().NewContext();
  Registers regs = Guest::StartRegisters();
  for (auto _ : state) {
    if (context->Switch(guest.space(), regs).kind != Kind::kSyscall) state.SkipWithError("no system call");
  }
}

// The same without a trap: code that jumps to Platform::call_entry(), whose address is at kData.
GUEST_CODE(bench_call, R"(
1:  jmp 3f
2:  jmp 1b
    .skip (-(. - bench_call_begin)) & 7
    .quad 0x100000 + 2b - bench_call_begin
3:  lea 4f(%rip), %rcx
    jmp *0x200000
    syscall
4:  lea 2b(%rip), %rcx
    jmp 2b
)");

void CallRoundTrip(benchmark::State& state, PlatformKind kind, bool one_cpu) {
  Affinity affinity(one_cpu);
  Sandbox sandbox(kind);
  Guest guest(sandbox, bench_call_begin, bench_call_end);
  const uint64_t entry = sandbox.platform().call_entry();
  memcpy(guest.data(), &entry, sizeof entry);
  auto context = sandbox.platform().NewContext();
  Registers regs = Guest::StartRegisters();
  for (auto _ : state) {
    const SwitchResult why = context->Switch(guest.space(), regs);
    if (why.kind != Kind::kSyscall || why.trapped) state.SkipWithError("no call");
  }
}

// `tasks` guests that make system calls all the time.
void RoundTripsOfMany(benchmark::State& state, PlatformKind kind, int tasks) {
  Sandbox sandbox(kind);
  Guest guest(sandbox, bench_syscall_begin, bench_syscall_end);
  constexpr int kEach = 2000;
  for (auto _ : state) {
    std::vector<std::thread> threads;
    for (int t = 0; t < tasks; ++t) {
      threads.emplace_back([&] {
        auto context = sandbox.platform().NewContext();
        Registers regs = Guest::StartRegisters();
        for (int i = 0; i < kEach; ++i) context->Switch(guest.space(), regs);
      });
    }
    for (auto& thread : threads) thread.join();
  }
  state.SetItemsProcessed(state.iterations() * tasks * kEach);
}

void PageFault(benchmark::State& state, PlatformKind kind, bool one_cpu) {
  Affinity affinity(one_cpu);
  Sandbox sandbox(kind);
  Guest guest(sandbox, bench_fault_begin, bench_fault_end);
  auto context = sandbox.platform().NewContext();
  Registers regs = Guest::StartRegisters();
  regs.rdi = 0x10000000;
  MapOp map = MapOp::Map(regs.rdi, 4096, PROT_READ | PROT_WRITE, sandbox.memory_fd(), guest.data_offset());
  MapOp unmap = MapOp::Unmap(regs.rdi, 4096);
  for (auto _ : state) {
    context->Switch(guest.space(), regs);
    (void)guest.space().Apply({&map, 1});
    if (context->Switch(guest.space(), regs).kind != Kind::kSyscall) state.SkipWithError("not mapped");
    (void)guest.space().Apply({&unmap, 1});
  }
}

void Apply(benchmark::State& state, PlatformKind kind, bool one_cpu) {
  Affinity affinity(one_cpu);
  Sandbox sandbox(kind);
  Guest guest(sandbox, bench_syscall_begin, bench_syscall_end);
  std::vector<MapOp> ops;
  for (int i = 0; i < state.range(0); ++i) {
    ops.push_back(MapOp::Map(0x10000000 + i * 8192, 4096, PROT_READ, sandbox.memory_fd(), 0));
  }
  for (auto _ : state) (void)guest.space().Apply(ops);
}

void NewAddressSpace(benchmark::State& state, PlatformKind kind, bool one_cpu) {
  Affinity affinity(one_cpu);
  Sandbox sandbox(kind);
  for (auto _ : state) benchmark::DoNotOptimize(*sandbox.platform().NewAddressSpace());
}

void NewThread(benchmark::State& state, PlatformKind kind, bool one_cpu) {
  Affinity affinity(one_cpu);
  Sandbox sandbox(kind);
  Guest guest(sandbox, bench_syscall_begin, bench_syscall_end);
  for (auto _ : state) {
    auto context = sandbox.platform().NewContext();
    Registers regs = Guest::StartRegisters();
    context->Switch(guest.space(), regs);
  }
}

#define BOTH(function, ...)                                                                            \
  BENCHMARK_CAPTURE(function, systrap_one_cpu, PlatformKind::kSystrap, true) __VA_ARGS__->UseRealTime();   \
  BENCHMARK_CAPTURE(function, systrap_all_cpus, PlatformKind::kSystrap, false) __VA_ARGS__->UseRealTime(); \
  BENCHMARK_CAPTURE(function, ptrace_one_cpu, PlatformKind::kPtrace, true) __VA_ARGS__->UseRealTime();     \
  BENCHMARK_CAPTURE(function, ptrace_all_cpus, PlatformKind::kPtrace, false) __VA_ARGS__->UseRealTime()

BOTH(RoundTrip);
BENCHMARK_CAPTURE(CallRoundTrip, systrap_one_cpu, PlatformKind::kSystrap, true)->UseRealTime();
BENCHMARK_CAPTURE(CallRoundTrip, systrap_all_cpus, PlatformKind::kSystrap, false)->UseRealTime();
BENCHMARK_CAPTURE(RoundTripsOfMany, systrap_2, PlatformKind::kSystrap, 2)->UseRealTime();
BENCHMARK_CAPTURE(RoundTripsOfMany, systrap_8, PlatformKind::kSystrap, 8)->UseRealTime();
BENCHMARK_CAPTURE(RoundTripsOfMany, ptrace_2, PlatformKind::kPtrace, 2)->UseRealTime();
BENCHMARK_CAPTURE(RoundTripsOfMany, ptrace_8, PlatformKind::kPtrace, 8)->UseRealTime();
BOTH(PageFault);
BOTH(Apply, ->Arg(1)->Arg(50));
BOTH(NewAddressSpace, ->Iterations(500));
BOTH(NewThread, ->Iterations(500));

}  // namespace
}  // namespace caisson

BENCHMARK_MAIN();
