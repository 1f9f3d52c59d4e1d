// Guests that attack their stub. They may end it, or themselves; the sentry, the zygote and other guests go on.
#include <signal.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "platform/call_answers.h"
#include "platform/conformance_guest.h"
#include "platform/stub/layout.h"
#include "sentry/arch/xstate.h"

namespace caisson {
namespace {

using std::chrono::steady_clock;

GUEST_CODE(hostile_jump, "jmp *%r15");
GUEST_CODE(victim_count, "1: inc %rbx; mov %rbx, (%rdi); syscall; jmp 1b");

// Interrupts whoever stays away for longer than a while.
class Watchdog {
 public:
  explicit Watchdog(Context& context) : context_(context), thread_([this] { Run(); }) {}
  ~Watchdog() {
    done_ = true;
    thread_.join();
  }
  SwitchResult Switch(AddressSpace& space, Registers& regs) {
    ++count_;
    SwitchResult why = context_.Switch(space, regs);
    ++count_;
    return why;
  }

 private:
  void Run() {
    uint64_t last = 0;
    while (!done_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      const uint64_t now = count_.load();
      if (now == last && now % 2) context_.Interrupt();
      last = now;
    }
  }

  Context& context_;
  std::atomic<uint64_t> count_{0};
  std::atomic<bool> done_{false};
  std::thread thread_;
};

class HostileTest : public PlatformTest {
 protected:
  HostileTest() : victim_(sandbox_, victim_count_begin, victim_count_end), victim_context_(platform().NewContext()) {
    victim_regs_ = Guest::StartRegisters();
    victim_regs_.rdi = kData;
    canary_ = sandbox_.Allocate(1 << 20);
    for (uint64_t i = 0; i < (1 << 20) / 8; ++i) Canary()[i] = i * 0x9e3779b97f4a7c15;
  }
  ~HostileTest() override { CheckTheOthers(); }

  // Another guest of the sandbox, the memory of others and the zygote are as they were.
  void CheckTheOthers() {
    for (int i = 0; i < 3; ++i) {
      SwitchResult why = victim_context_->Switch(victim_.space(), victim_regs_);
      ASSERT_EQ(why.kind, Kind::kSyscall) << Describe(why, victim_regs_);
      ++victim_count_;
      ASSERT_EQ(victim_regs_.orig_rax, 0u);
      victim_regs_.rax = 0;
      ASSERT_EQ(victim_regs_.rbx, victim_count_);
      ASSERT_EQ(*reinterpret_cast<uint64_t*>(victim_.data()), victim_count_);
    }
    ASSERT_EQ(kill(sandbox_.zygote_pid(), 0), 0);
  }
  void CheckCanary() {
    for (uint64_t i = 0; i < (1 << 20) / 8; ++i) ASSERT_EQ(Canary()[i], i * 0x9e3779b97f4a7c15);
  }
  uint64_t* Canary() { return reinterpret_cast<uint64_t*>(sandbox_.memory() + canary_); }

  // Has a fresh or surviving guest jump to `target` with `regs`.
  void JumpTo(uint64_t target, Registers regs) {
    if (!attacker_) {
      attacker_space_ = std::make_unique<Guest>(sandbox_, hostile_jump_begin, hostile_jump_end);
      attacker_ = platform().NewContext();
      watchdog_ = std::make_unique<Watchdog>(*attacker_);
      ++lives_;
    }
    regs.rip = kCode;
    regs.r15 = target;
    for (int i = 0; i < 3; ++i) {
      SwitchResult why = watchdog_->Switch(attacker_space_->space(), regs);
      if (why.kind == Kind::kDied || why.kind == Kind::kInterrupted) {
        EndAttacker();
        return;
      }
      // It never got a call through: what comes back is a fault, or a call or fault of the code at kCode.
      if (regs.rip < kCode || regs.rip > kCode + 16) return;
    }
  }
  void EndAttacker() {
    watchdog_.reset();
    attacker_.reset();
    attacker_space_.reset();
  }

  std::mt19937_64 random_{7};
  Guest victim_;
  std::unique_ptr<Context> victim_context_;
  Registers victim_regs_;
  uint64_t victim_count_ = 0;
  uint64_t canary_ = 0;
  int lives_ = 0;
  std::unique_ptr<Guest> attacker_space_;
  std::unique_ptr<Context> attacker_;
  std::unique_ptr<Watchdog> watchdog_;
};

// An argument that a system call could make something of.
uint64_t Argument(std::mt19937_64& random) {
  switch (random() % 8) {
    case 0:
      return random() % 8;
    case 1:
      return kData + random() % 0x8000 / 8 * 8;
    case 2:
      return STUB_THREADS + random() % 0x8000 / 4 * 4;
    case 3:
      return STUB_DATA + random() % 0x2000 / 8 * 8;
    case 4:
      return random() % 0x10000;
    case 5:
      return ~0ull;
    case 6:
      return STUB_CODE + random() % 0x50000 / 4096 * 4096;
    default:
      return random();
  }
}

// Each host call, from each syscall instruction of the stub (and what could be taken for one).
TEST_P(HostileTest, EveryCallFromEverySyscallInstruction) {
  std::vector<uint64_t> sites;
  const char* const end = stub_code_end;
  for (const char* p = stub_code_begin; p + 1 < end; ++p) {
    const uint8_t first = p[0], second = p[1];
    const bool syscall = first == 0x0f && second == 0x05, sysenter = first == 0x0f && second == 0x34;
    const bool int80 = first == 0xcd && second == 0x80;
    if (syscall || sysenter || int80) sites.push_back(STUB_CODE + (p - stub_code_begin));
  }
  ASSERT_GE(sites.size(), 8u);
  for (uint64_t site : sites) {
    for (uint64_t number = 0; number < 480; ++number) {
      Registers regs = Guest::StartRegisters();
      regs.rax = number;
      regs.rdi = Argument(random_);
      regs.rsi = Argument(random_);
      regs.rdx = Argument(random_);
      regs.r10 = Argument(random_);
      regs.r8 = Argument(random_);
      regs.r9 = Argument(random_);
      regs.rbx = Argument(random_);
      JumpTo(site, regs);
      if (number % 64 == 0) CheckTheOthers();
    }
  }
  CheckCanary();
  RecordProperty("lives", lives_);
}

TEST_P(HostileTest, JumpsIntoTheStub) {
  const auto until = steady_clock::now() + std::chrono::seconds(3);
  for (int i = 0; steady_clock::now() < until; ++i) {
    Registers regs = Guest::StartRegisters();
    for (uint64_t* reg : {&regs.rax, &regs.rbx, &regs.rcx, &regs.rdx, &regs.rsi, &regs.rdi, &regs.rbp, &regs.r8,
                          &regs.r9, &regs.r10, &regs.r11, &regs.r12, &regs.r13, &regs.r14}) {
      *reg = Argument(random_);
    }
    if (random_() % 2) regs.rsp = Argument(random_);
    if (random_() % 2) regs.rbx = STUB_THREADS + AREA_HEADER;
    JumpTo(STUB_CODE + random_() % (stub_code_end - stub_code_begin), regs);
    if (i % 50 == 0) CheckTheOthers();
  }
  CheckCanary();
}

// rdi: where, rsi: mask of offsets, rbx: state of the generator, r15: the entry for calls, or 0. Writes words at random,
// and now and then makes a call that may be answered in the stub, and one that is not.
GUEST_CODE(hostile_scribble, R"(
1:  mov %rbx, %rax
    shl $13, %rax
    xor %rax, %rbx
    mov %rbx, %rax
    shr $7, %rax
    xor %rax, %rbx
    mov %rbx, %rax
    shl $17, %rax
    xor %rax, %rbx
    mov %rbx, %rcx
    shr $23, %rcx
    and %rsi, %rcx
    mov %rbx, %rdx
    and $7, %edx
    mov %ebx, %eax
    cmp $3, %edx
    jae 2f
    and $7, %eax          # Small numbers are states.
2:  mov %eax, (%rdi,%rcx,4)
    test $0xff, %ebx
    jnz 1b
    mov $39, %eax
    test $0x100, %ebx
    jz 3f
    mov %ebx, %eax
3:  test %r15, %r15
    jnz 5f
4:  syscall
6:  jmp 1b
    .skip (-(. - hostile_scribble_begin)) & 7
    .quad 0x100000 + 6b - hostile_scribble_begin
5:  lea 7f(%rip), %rcx
    jmp *%r15
    nop
    nop
    nop
    nop
    syscall
7:  jmp 1b
)");

// Threads that overwrite each other's hand-over areas, while calls, faults and interrupts go on. What is unmapped stays
// out of reach.
TEST_P(HostileTest, ScribblesOverAllItReaches) {
  const auto until = steady_clock::now() + std::chrono::seconds(4);
  for (int round = 0; steady_clock::now() < until; ++round) {
    Guest guest(sandbox_, hostile_scribble_begin, hostile_scribble_end);
    const uint64_t page = sandbox_.Allocate(4096);
    const uint64_t target = 0x10000000;
    MapOp map = MapOp::Map(target, 4096, PROT_READ | PROT_WRITE, sandbox_.memory_fd(), page);
    ASSERT_EQ(guest.space().Apply({&map, 1}).error_code(), 0);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        auto context = platform().NewContext();
        Watchdog watchdog(*context);
        std::vector<uint8_t> xstate(XstateSize());
        Registers regs = Guest::StartRegisters();
        regs.rbx = round * 4 + t + 1;
        regs.r15 = round % 3 ? platform().call_entry() : 0;
        const CallAnswer answer = {39, 7};
        if (auto* answers = dynamic_cast<CallAnswers*>(context.get())) answers->SetAnswers({&answer, 1});
        // All four areas, only the header of the first, the page, the data and scratch.
        const uint64_t where[] = {STUB_THREADS, STUB_THREADS + AREA_HEADER, target, kData};
        const uint64_t mask[] = {4 * STUB_AREA_SIZE / 4 - 1, 0x7f, 0x3ff, kDataSize / 4 - 1};
        const int kind = (t + round) % 4;
        regs.rdi = where[kind];
        regs.rsi = mask[kind];
        while (!stop) {
          SwitchResult why = watchdog.Switch(guest.space(), regs);
          if (why.kind == Kind::kDied) return;
          if (regs.rip < kCode || regs.rip > kCode + 0x100) regs.rip = kCode;
          if (regs.rdi != where[kind]) regs.rdi = where[kind];
          regs.rsi = mask[kind];
          regs.r15 = round % 3 ? platform().call_entry() : 0;
          context->GetXstate(xstate);
          if (regs.rbx % 3 == 0) context->SetXstate(xstate);
          if (regs.rbx == 0) regs.rbx = 1;
        }
      });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    MapOp unmap = MapOp::Unmap(target, 4096);
    if (guest.space().Apply({&unmap, 1}).ok()) {
      volatile uint32_t* words = reinterpret_cast<volatile uint32_t*>(sandbox_.memory() + page);
      std::vector<uint32_t> before(words, words + 1024);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      for (int i = 0; i < 1024; ++i) ASSERT_EQ(words[i], before[i]);
    }
    if (round % 2) kill(guest.space().stub_pid(), SIGKILL);
    stop = true;
    for (auto& thread : threads) thread.join();
    CheckTheOthers();
  }
  CheckCanary();
}

INSTANTIATE_TEST_SUITE_P(Platforms, HostileTest, testing::ValuesIn(PlatformsUnderTest()), PlatformParamName);

}  // namespace
}  // namespace caisson
