// Calls that come by Platform::call_entry(): the same as a trapped `syscall` in all that guest and sentry can see.
#include <signal.h>

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
constexpr uint64_t kEnosys = static_cast<uint64_t>(-ENOSYS);

// Expects the entry's address at kData. Label 1 stands for a rewritten `syscall`, 2 for what comes after it.
#define CALL_SLOT(name)                              \
  ".skip (-(. - " #name "_begin)) & 7\n"             \
  ".quad 0x100000 + 2b - " #name "_begin\n"          \
  "3: lea 4f(%rip), %rcx\n"                          \
  "   jmp *0x200000\n"                               \
  "   syscall\n"                                     \
  "4: lea 2b(%rip), %rcx\n"                          \
  "   jmp 2b\n"

GUEST_CODE(guest_call, R"(
1:  jmp 3f
2:  jmp 1b
)" CALL_SLOT(guest_call));
constexpr uint64_t kAfter = kCode + 2;

GUEST_CODE(guest_counting_call, R"(
    jmp 5f
1:  jmp 3f
2:  jmp 6f
5:  inc %rbx
    push %rbx
    pop %rbp
    cmp %rbx, %rbp
    jne 7f
    movq %rbx, %xmm7
    mov %rbx, %rax
    mov %rbx, %rdi
    mov %rbx, %r8
    mov %rbx, %r12
    mov %rsp, %r13
    cmp %rax, %rax
    stc
    jmp 1b
6:  jnc 7f
    jnz 7f
    cmp %rax, %rbx
    jne 7f
    cmp %rdi, %rbx
    jne 7f
    cmp %r8, %rbx
    jne 7f
    cmp %r12, %rbx
    jne 7f
    cmp %r13, %rsp
    jne 7f
    movq %xmm7, %rdx
    cmp %rdx, %rbx
    jne 7f
    jmp 5b
7:  ud2
)" CALL_SLOT(guest_counting_call));

class CallEntryTest : public testing::Test {
 protected:
  Platform& platform() { return sandbox_.platform(); }
  void SetEntry(Guest& guest) {
    const uint64_t entry = platform().call_entry();
    ASSERT_NE(entry, 0u);
    memcpy(guest.data(), &entry, sizeof entry);
  }

  Sandbox sandbox_{PlatformKind::kSystrap};
};

TEST_F(CallEntryTest, AllRegistersSurvive) {
  Guest guest(sandbox_, guest_call_begin, guest_call_end);
  SetEntry(guest);
  auto context = platform().NewContext();
  std::mt19937_64 random(11);
  Registers regs = {};
  int fast = 0;
  for (int i = 0; i < 300000; ++i) {
    if (i % 7 == 0) {
      // All of them anew.
      uint64_t* words = reinterpret_cast<uint64_t*>(&regs);
      for (size_t j = 0; j < sizeof regs / 8; ++j) words[j] = random();
      regs.rip = kCode;
      regs.eflags = (regs.eflags & kUserEflagsMask & ~(kTrapFlag | kResumeFlag)) | kEflagsFixed;
      regs.fs_base &= 0x7fffffffefff;
      regs.gs_base = 0;
    } else {
      regs.rax = random();
    }
    Registers want = regs;
    SwitchResult why = context->Switch(guest.space(), regs);
    ASSERT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
    if (!why.trapped) ++fast;
    want.orig_rax = want.rax;
    want.rax = kEnosys;
    want.rip = want.rcx = kAfter;
    want.r11 = want.eflags;
    want.cs = kUserCodeSegment;
    want.ss = kUserDataSegment;
    want.ds = want.es = want.fs = want.gs = 0;
    ASSERT_EQ(memcmp(&want, &regs, sizeof regs), 0) << Describe(why, regs) << " round " << i;
  }
  EXPECT_EQ(fast, 300000);
}

TEST_F(CallEntryTest, AGuestThatUsesGsIsTrapped) {
  Guest guest(sandbox_, guest_call_begin, guest_call_end);
  SetEntry(guest);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  regs.gs_base = 0x12345678;
  regs.rbx = 5;
  regs.rax = 39;
  for (int i = 0; i < 3; ++i) {
    SwitchResult why = context->Switch(guest.space(), regs);
    ASSERT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
    EXPECT_TRUE(why.trapped);
    EXPECT_EQ(regs.gs_base, 0x12345678u);
    EXPECT_EQ(regs.orig_rax, 39u);
    EXPECT_EQ(regs.rbx, 5u);
    regs.rax = 39;
  }
  regs.gs_base = 0;
  EXPECT_FALSE((context->Switch(guest.space(), regs), context->Switch(guest.space(), regs)).trapped);
}

// The extended state stays in the registers of the stub's thread, and can be had, set and moved all the same.
TEST_F(CallEntryTest, ExtendedState) {
  Guest guest(sandbox_, guest_call_begin, guest_call_end), other(sandbox_, guest_call_begin, guest_call_end);
  SetEntry(guest);
  SetEntry(other);
  auto context = platform().NewContext();
  std::mt19937_64 random(12);
  Registers regs = Guest::StartRegisters();
  std::vector<uint8_t> image(XstateSize()), want = InitialXstate();
  for (int i = 0; i < 2000; ++i) {
    if (random() % 3 == 0) {
      const uint64_t features = 3;
      memcpy(&want[512], &features, 8);
      for (size_t at = 160; at < 416; ++at) want[at] = static_cast<uint8_t>(random());
      context->SetXstate(want);
    }
    if (random() % 3 == 0) {
      context->GetXstate(image);
      ASSERT_EQ(memcmp(&image[160], &want[160], 256), 0) << i;
    }
    if (random() % 16 == 0) context->Detach();
    if (random() % 16 == 0) context->Interrupt();
    if (random() % 4 == 0) regs.rbx = random();  // Then all registers are loaded.
    SwitchResult why = context->Switch(random() % 8 ? guest.space() : other.space(), regs);
    ASSERT_TRUE(why.kind == Kind::kSyscall || why.kind == Kind::kInterrupted) << Describe(why, regs);
    regs.rip = kCode;
  }
}

// Interrupts at any moment, on the way in, while it waits, on the way out.
TEST_F(CallEntryTest, InterruptsLoseNothing) {
  Guest guest(sandbox_, guest_counting_call_begin, guest_counting_call_end);
  SetEntry(guest);
  auto context = platform().NewContext();
  std::atomic<bool> done{false};
  std::thread other([&] {
    std::mt19937 random(13);
    while (!done.load()) {
      context->Interrupt();
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 60));
    }
  });
  Registers regs = Guest::StartRegisters();
  std::vector<uint8_t> image(XstateSize());
  uint64_t count = 0, interrupts = 0;
  const auto end = steady_clock::now() + std::chrono::seconds(3);
  while (steady_clock::now() < end) {
    SwitchResult why = context->Switch(guest.space(), regs);
    if (count % 5 == 0) context->GetXstate(image);
    if (count % 15 == 0) context->SetXstate(image);
    if (why.kind == Kind::kInterrupted) {
      ++interrupts;
      if (regs.rip < kCode || regs.rip >= kCode + 4096) {
        ADD_FAILURE() << Describe(why, regs);
        break;
      }
      continue;
    }
    if (why.kind != Kind::kSyscall || regs.orig_rax != ++count) {
      ADD_FAILURE() << Describe(why, regs) << " count " << count;
      break;
    }
    regs.rax = regs.orig_rax;
  }
  done = true;
  other.join();
  EXPECT_GT(interrupts, 1000u);
  EXPECT_GT(count, 1000u);
}

GUEST_CODE(guest_answered, R"(
1:  jmp 3f
2:  mov %rbx, %rcx
    mov %rax, %r15
    jmp 5f
6:  syscall
    jmp 2b
5:  inc %rbx
    cmp $7, %rax
    jne 6b
    mov $39, %eax
    stc
    jmp 1b
)" CALL_SLOT(guest_answered));

// Answered in the guest, as long as nothing else is said; interrupts come through all the same.
TEST_F(CallEntryTest, Answers) {
  Guest guest(sandbox_, guest_answered_begin, guest_answered_end);
  SetEntry(guest);
  auto context = platform().NewContext();
  CallAnswers* answers = dynamic_cast<CallAnswers*>(context.get());
  ASSERT_NE(answers, nullptr);
  Registers regs = Guest::StartRegisters();
  regs.rax = 39;
  ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
  EXPECT_EQ(regs.orig_rax, 39u);
  EXPECT_EQ(regs.rip, kCode + 2);
  regs.rax = 7;
  const CallAnswer seven = {39, 7};
  answers->SetAnswers({&seven, 1});
  std::atomic<bool> done{false};
  std::thread other([&] {
    std::mt19937 random(15);
    while (!done.load()) {
      context->Interrupt();
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 60));
    }
  });
  const auto end = steady_clock::now() + std::chrono::seconds(2);
  uint64_t last = 0, in_slot = 0, after = 0;
  const uint64_t stack = regs.rsp;
  while (steady_clock::now() < end) {
    SwitchResult why = context->Switch(guest.space(), regs);
    if (why.kind != Kind::kInterrupted || regs.rip < kCode || regs.rip >= kCode + 0x100 || regs.rbx < last ||
        regs.rsp != stack) {
      ADD_FAILURE() << Describe(why, regs) << " rbx " << regs.rbx;
      break;
    }
    last = regs.rbx;
    const uint64_t offset = regs.rip - kCode;
    if (offset > 0x30) ++(offset < 0x48 ? in_slot : after);
  }
  done = true;
  other.join();
  EXPECT_GT(last, 1000000u);
  EXPECT_GT(in_slot, 0u);
  // Another context that gets the same thread has nothing of it.
  context.reset();
  context = platform().NewContext();
  regs = Guest::StartRegisters();
  regs.rax = 39;
  SwitchResult why = context->Switch(guest.space(), regs);
  EXPECT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
  EXPECT_EQ(regs.orig_rax, 39u);
}

// A thread that does not answer when its extended state is asked for is ended with its stub.
TEST_F(CallEntryTest, DeathWhileWaiting) {
  Guest guest(sandbox_, guest_call_begin, guest_call_end);
  SetEntry(guest);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
  kill(guest.space().stub_pid(), SIGKILL);
  std::vector<uint8_t> image(XstateSize());
  context->GetXstate(image);
  EXPECT_EQ(context->Switch(guest.space(), regs).kind, Kind::kDied);
}

// Whatever a guest has in its registers when it jumps to the entry: it is a call, a fault, or the end of its stub.
TEST_F(CallEntryTest, AnythingInTheRegisters) {
  Guest victim(sandbox_, guest_counting_call_begin, guest_counting_call_end);
  SetEntry(victim);
  auto victim_context = platform().NewContext();
  Registers victim_regs = Guest::StartRegisters();
  std::mt19937_64 random(14);
  std::unique_ptr<Guest> guest;
  std::unique_ptr<Context> context;
  const auto end = steady_clock::now() + std::chrono::seconds(2);
  uint64_t count = 0;
  while (steady_clock::now() < end) {
    if (!guest) {
      guest = std::make_unique<Guest>(sandbox_, guest_call_begin, guest_call_end);
      context = platform().NewContext();
      SetEntry(*guest);
    }
    const uint64_t where[] = {kData, kCode, STUB_THREADS, STUB_THREADS + AREA_HEADER, STUB_DATA, STUB_CODE, ~0ull,
                              0x7fffffffefff, random()};
    auto pick = [&] { return where[random() % 9] + (random() % 2 ? random() % 0x2000 : 0); };
    Registers regs = Guest::StartRegisters();
    uint64_t* words = reinterpret_cast<uint64_t*>(&regs);
    for (size_t j = 0; j < 15; ++j) words[j] = pick();
    regs.rip = platform().call_entry();
    regs.rcx = pick();
    regs.rsp = pick();
    regs.gs_base = random() % 2 ? 0 : pick() & 0x7fffffffffff;
    regs.eflags = kEflagsFixed | (random() & 0xcd5);
    // By way of its own code: the sentry would not resume there.
    const uint64_t target = regs.rcx;
    regs.rip = kCode;
    memcpy(guest->data() + 8, &target, 8);
    // One that waits in another's area, or runs in circles, is interrupted like any other.
    std::atomic<bool> back{false};
    std::thread watchdog([&] {
      for (int i = 0; !back; ++i) {
        if (i > 20) context->Interrupt();
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    });
    SwitchResult why = context->Switch(guest->space(), regs);
    back = true;
    watchdog.join();
    if (why.kind == Kind::kDied || (regs.rip != kAfter && regs.rip >= kData)) {
      context.reset();
      guest.reset();
    }
    ASSERT_EQ(victim_context->Switch(victim.space(), victim_regs).kind, Kind::kSyscall);
    ASSERT_EQ(victim_regs.orig_rax, ++count);
    victim_regs.rax = count;
  }
}

}  // namespace
}  // namespace caisson
