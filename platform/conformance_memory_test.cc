// Address spaces: mapping, sharing, threads, and the ends of stubs.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "platform/conformance_guest.h"

namespace caisson {
namespace {

constexpr uint64_t kArea = 0x10000000;

GUEST_CODE(guest_syscall2, "1: syscall; jmp 1b");
GUEST_CODE(guest_spin2, "1: jmp 1b");
GUEST_CODE(guest_peek, "1: mov (%rdi), %rax; syscall; jmp 1b");
GUEST_CODE(guest_poke, "1: mov %rsi, (%rdi); syscall; jmp 1b");
GUEST_CODE(guest_count_up, "1: incq (%rdi); jmp 1b");

class MemoryTest : public PlatformTest {};

TEST_P(MemoryTest, MapUnmapProtect) {
  Guest guest(sandbox_, guest_peek_begin, guest_peek_end);
  auto context = platform().NewContext();
  uint64_t page = sandbox_.Allocate(8192);
  *reinterpret_cast<uint64_t*>(sandbox_.memory() + page) = 11;
  *reinterpret_cast<uint64_t*>(sandbox_.memory() + page + 4096) = 22;
  Registers regs = Guest::StartRegisters();
  regs.rdi = kArea;
  auto peek = [&]() -> int64_t {
    regs.rip = kCode;
    SwitchResult why = context->Switch(guest.space(), regs);
    if (why.kind == Kind::kFault) return -why.code;
    EXPECT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
    return regs.orig_rax;
  };
  auto apply = [&](MapOp op) { return guest.space().Apply({&op, 1}).error_code(); };
  EXPECT_EQ(peek(), -SEGV_MAPERR);
  EXPECT_EQ(apply(MapOp::Map(kArea, 4096, PROT_READ, sandbox_.memory_fd(), page)), 0);
  EXPECT_EQ(peek(), 11);
  // Replaces what is there.
  EXPECT_EQ(apply(MapOp::Map(kArea, 4096, PROT_READ, sandbox_.memory_fd(), page + 4096)), 0);
  EXPECT_EQ(peek(), 22);
  EXPECT_EQ(apply(MapOp::Protect(kArea, 4096, PROT_NONE)), 0);
  EXPECT_EQ(peek(), -SEGV_ACCERR);
  EXPECT_EQ(apply(MapOp::Unmap(kArea, 4096)), 0);
  EXPECT_EQ(peek(), -SEGV_MAPERR);
  EXPECT_EQ(apply(MapOp::Unmap(kArea, 4096)), 0);
}

TEST_P(MemoryTest, BadRequests) {
  Guest guest(sandbox_, guest_peek_begin, guest_peek_end);
  auto range = platform().user_range();
  EXPECT_EQ(range.start, 0x10000u);
  auto apply = [&](MapOp op) { return guest.space().Apply({&op, 1}).error_code(); };
  const int fd = sandbox_.memory_fd();
  EXPECT_EQ(apply(MapOp::Map(0, 4096, PROT_READ, fd, 0)), EFAULT);
  EXPECT_EQ(apply(MapOp::Map(range.end, 4096, PROT_READ, fd, 0)), EFAULT);
  EXPECT_EQ(apply(MapOp::Unmap(range.end - 4096, 8192)), EFAULT);
  EXPECT_EQ(apply(MapOp::Unmap(range.end + 0x30000, 4096)), EFAULT);
  EXPECT_EQ(apply(MapOp::Protect(~0xfffull, 8192, PROT_READ)), EFAULT);
  EXPECT_EQ(apply(MapOp::Map(kArea + 1, 4096, PROT_READ, fd, 0)), EINVAL);
  EXPECT_EQ(apply(MapOp::Map(kArea, 0, PROT_READ, fd, 0)), EINVAL);
  EXPECT_EQ(apply(MapOp::Map(kArea, 4096, PROT_READ, 9999, 0)), EBADF);
  EXPECT_EQ(apply(MapOp::Protect(kArea, 4096, PROT_READ)), ENOMEM);  // mprotect(2) of nothing.
  // Everything in reach can be mapped, and none of this broke anything.
  EXPECT_EQ(apply(MapOp::Map(range.start, 4096, PROT_READ, fd, 0)), 0);
  EXPECT_EQ(apply(MapOp::Map(range.end - 4096, 4096, PROT_READ, fd, 0)), 0);
  EXPECT_EQ(apply(MapOp::Unmap(range.start, range.end - range.start)), 0);
}

TEST_P(MemoryTest, OtherDescriptorsCanBeMapped) {
  Guest guest(sandbox_, guest_peek_begin, guest_peek_end);
  auto context = platform().NewContext();
  // Many, some of them twice, mixed with the memory file, and errors in between: no descriptor is left or confused.
  std::vector<UniqueFd> files;
  for (uint64_t i = 0; i < 40; ++i) {
    files.emplace_back(memfd_create("donated", 0));
    ASSERT_EQ(write(files.back().get(), &i, 8), 8);
  }
  for (int round = 0; round < 20; ++round) {
    std::vector<MapOp> ops;
    for (uint64_t i = 0; i < 40; ++i) {
      ops.push_back(MapOp::Map(kArea + i * 4096, 4096, PROT_READ, files[i].get(), 0));
      if (i % 5 == 0) ops.push_back(MapOp::Map(kArea + (50 + i) * 4096, 4096, PROT_READ, files[i].get(), 0));
      if (i % 7 == 0) ops.push_back(MapOp::Map(kArea + (100 + i) * 4096, 4096, PROT_READ, sandbox_.memory_fd(), 0));
    }
    ASSERT_EQ(guest.space().Apply(ops).error_code(), 0);
    for (uint64_t i = 0; i < 40; ++i) {
      Registers regs = Guest::StartRegisters();
      regs.rdi = kArea + i * 4096;
      ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
      ASSERT_EQ(regs.orig_rax, i);
    }
    MapOp bad[] = {MapOp::Map(kArea, 4096, PROT_READ, files[0].get(), 0),
                   MapOp::Map(kArea, 4096, PROT_READ, files[1].get(), 123),
                   MapOp::Map(kArea, 4096, PROT_READ, files[2].get(), 0)};
    EXPECT_EQ(guest.space().Apply(bad).error_code(), EINVAL);
  }
}

// Once Apply returns, no thread of the guest reaches the memory any more, even one that runs all the while.
TEST_P(MemoryTest, UnmapIsInForceEverywhere) {
  Guest guest(sandbox_, guest_count_up_begin, guest_count_up_end);
  uint64_t page = sandbox_.Allocate(4096);
  auto* word = reinterpret_cast<std::atomic<uint64_t>*>(sandbox_.memory() + page);
  MapOp map = MapOp::Map(kArea, 4096, PROT_READ | PROT_WRITE, sandbox_.memory_fd(), page);
  MapOp unmap = MapOp::Unmap(kArea, 4096);
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(guest.space().Apply({&map, 1}).error_code(), 0);
    std::thread thread([&] {
      auto context = platform().NewContext();
      Registers regs = Guest::StartRegisters();
      regs.rdi = kArea;
      SwitchResult why = context->Switch(guest.space(), regs);
      EXPECT_TRUE(why.is_page_fault()) << Describe(why, regs);
    });
    const uint64_t start = word->load();
    while (word->load() == start) std::this_thread::yield();
    ASSERT_EQ(guest.space().Apply({&unmap, 1}).error_code(), 0);
    const uint64_t after = word->load();
    thread.join();
    EXPECT_EQ(word->load(), after);
  }
}

TEST_P(MemoryTest, ForkOfAnAddressSpace) {
  Guest parent(sandbox_, guest_poke_begin, guest_poke_end);
  auto parent_context = platform().NewContext();
  uint64_t pages = sandbox_.Allocate(64 * 4096);
  MapOp all = MapOp::Map(kArea, 64 * 4096, PROT_READ | PROT_WRITE, sandbox_.memory_fd(), pages);
  ASSERT_EQ(parent.space().Apply({&all, 1}).error_code(), 0);
  // Both sides lose the right to write, and get pages of their own as they ask.
  Guest child(sandbox_, guest_poke_begin, guest_poke_end);
  auto child_context = platform().NewContext();
  all.prot = PROT_READ;
  ASSERT_EQ(child.space().Apply({&all, 1}).error_code(), 0);
  MapOp protect = MapOp::Protect(kArea, 64 * 4096, PROT_READ);
  ASSERT_EQ(parent.space().Apply({&protect, 1}).error_code(), 0);
  for (uint64_t i = 0; i < 64; ++i) {
    uint64_t copy = sandbox_.Allocate(4096);
    auto poke = [&](Context& context, Guest& guest, uint64_t offset) {
      Registers regs = Guest::StartRegisters();
      regs.rdi = kArea + i * 4096;
      regs.rsi = offset;
      SwitchResult why = context.Switch(guest.space(), regs);
      ASSERT_TRUE(why.is_page_fault() && why.is_write()) << Describe(why, regs);
      EXPECT_EQ(why.code, SEGV_ACCERR);
      MapOp op = MapOp::Map(regs.rdi, 4096, PROT_READ | PROT_WRITE, sandbox_.memory_fd(), offset);
      ASSERT_EQ(guest.space().Apply({&op, 1}).error_code(), 0);
      ASSERT_EQ(context.Switch(guest.space(), regs).kind, Kind::kSyscall);
      EXPECT_EQ(*reinterpret_cast<uint64_t*>(sandbox_.memory() + offset), offset);
    };
    poke(*child_context, child, copy);
    poke(*parent_context, parent, pages + i * 4096);
  }
}

TEST_P(MemoryTest, ThousandsOfThreadsOneAfterAnother) {
  Guest guest(sandbox_, guest_syscall2_begin, guest_syscall2_end);
  for (uint64_t i = 0; i < 3000; ++i) {
    auto context = platform().NewContext();
    Registers regs = Guest::StartRegisters();
    regs.rax = i;
    ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
    ASSERT_EQ(regs.orig_rax, i);
  }
}

TEST_P(MemoryTest, ManyThreadsAtOnce) {
  Guest guest(sandbox_, guest_syscall2_begin, guest_syscall2_end);
  std::vector<std::unique_ptr<Context>> contexts;
  for (int round = 0; round < 3; ++round) {
    for (uint64_t i = contexts.size(); i < 1000; ++i) {
      contexts.push_back(platform().NewContext());
      Registers regs = Guest::StartRegisters();
      regs.rax = i;
      ASSERT_EQ(contexts[i]->Switch(guest.space(), regs).kind, Kind::kSyscall) << i;
      ASSERT_EQ(regs.orig_rax, i);
    }
    contexts.resize(200);
  }
}

TEST_P(MemoryTest, ThreadsInParallel) {
  Guest guest(sandbox_, guest_syscall2_begin, guest_syscall2_end);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 50; ++t) {
    threads.emplace_back([&, t] {
      for (int life = 0; life < 4; ++life) {
        auto context = platform().NewContext();
        Registers regs = Guest::StartRegisters();
        for (uint64_t i = 0; i < 50; ++i) {
          regs.rax = t * 1000 + i;
          SwitchResult why = context->Switch(guest.space(), regs);
          ASSERT_EQ(why.kind, Kind::kSyscall) << Describe(why, regs);
          ASSERT_EQ(regs.orig_rax, t * 1000 + i);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_P(MemoryTest, AddressSpacesComeAndGo) {
  for (int i = 0; i < 200; ++i) {
    Result<RefPtr<AddressSpace>> space = platform().NewAddressSpace();
    ASSERT_TRUE(space.ok()) << space.error_code();
    const int pid = (*space)->stub_pid();
    EXPECT_EQ(kill(pid, 0), 0);
    *space = nullptr;
    // Gone, or a zombie for as long as it takes to collect it.
    std::string state;
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::getline(stat, state);
    EXPECT_TRUE(state.empty() || state.find(") Z") != std::string::npos) << state;
  }
}

// What is given up ends soon, and tells so only when none of its threads is left.
TEST_P(MemoryTest, Retire) {
  for (int i = 0; i < 50; ++i) {
    Guest guest(sandbox_, guest_count_up_begin, guest_count_up_end);
    auto* word = reinterpret_cast<std::atomic<uint64_t>*>(guest.data());
    auto context = platform().NewContext();
    std::thread interrupter([&] {
      while (word->load() == 0) std::this_thread::yield();
      context->Interrupt();
    });
    Registers regs = Guest::StartRegisters();
    regs.rdi = kData;
    ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kInterrupted);
    interrupter.join();
    context->Detach();
    const int pid = guest.space().stub_pid();
    std::atomic<int> done{0};
    guest.space().Retire([&] {
      errno = 0;
      done = kill(pid, 0) == 0 ? -1 : errno;  // Reaped, or a zombie that is about to be.
      done.notify_all();
    });
    MapOp op = MapOp::Unmap(kArea, 4096);
    EXPECT_EQ(guest.space().Apply({&op, 1}).error_code(), ESRCH);
    done.wait(0);
    const uint64_t then = word->load();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(word->load(), then);
    guest.DropSpace();
  }
}

TEST_P(MemoryTest, KilledFromOutsideWhileRunning) {
  Guest guest(sandbox_, guest_spin2_begin, guest_spin2_end);
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i) {
    threads.emplace_back([&] {
      auto context = platform().NewContext();
      Registers regs = Guest::StartRegisters();
      EXPECT_EQ(context->Switch(guest.space(), regs).kind, Kind::kDied);
      EXPECT_EQ(context->Switch(guest.space(), regs).kind, Kind::kDied);
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  kill(guest.space().stub_pid(), SIGKILL);
  for (auto& thread : threads) thread.join();
  MapOp op = MapOp::Unmap(kArea, 4096);
  EXPECT_EQ(guest.space().Apply({&op, 1}).error_code(), ESRCH);
}

TEST_P(MemoryTest, KilledFromOutsideWhileStopped) {
  for (int i = 0; i < 20; ++i) {
    Guest guest(sandbox_, guest_syscall2_begin, guest_syscall2_end);
    Guest other(sandbox_, guest_syscall2_begin, guest_syscall2_end);
    auto context = platform().NewContext();
    Registers regs = Guest::StartRegisters();
    ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
    kill(guest.space().stub_pid(), SIGKILL);
    MapOp op = MapOp::Unmap(kArea, 4096);
    if (i % 2) {
      EXPECT_EQ(guest.space().Apply({&op, 1}).error_code(), ESRCH);
    }
    EXPECT_EQ(context->Switch(guest.space(), regs).kind, Kind::kDied);
    // The context lives on elsewhere.
    EXPECT_EQ(context->Switch(other.space(), regs).kind, Kind::kSyscall);
    if (i % 3) context.reset();
    guest.DropSpace();
  }
}

TEST_P(MemoryTest, KilledAtAnyMoment) {
  for (int i = 0; i < 60; ++i) {
    Guest guest(sandbox_, guest_syscall2_begin, guest_syscall2_end);
    std::thread killer([pid = guest.space().stub_pid(), i] {
      std::this_thread::sleep_for(std::chrono::microseconds(i * 37));
      kill(pid, SIGKILL);
    });
    std::thread mapper([&] {
      MapOp op = MapOp::Map(kArea, 4096, PROT_READ, sandbox_.memory_fd(), 0);
      while (guest.space().Apply({&op, 1}).ok()) {
      }
    });
    {
      auto context = platform().NewContext();
      Registers regs = Guest::StartRegisters();
      SwitchResult why;
      do {
        why = context->Switch(guest.space(), regs);
      } while (why.kind == Kind::kSyscall);
      EXPECT_EQ(why.kind, Kind::kDied) << Describe(why, regs);
    }
    killer.join();
    mapper.join();
  }
}

TEST_P(MemoryTest, SignalsFromOutsideAreNotSeen) {
  Guest guest(sandbox_, guest_count_up_begin, guest_count_up_end);
  std::atomic<bool> done{false};
  auto context = platform().NewContext();
  std::thread other([&] {
    const int pid = guest.space().stub_pid();
    auto* count = reinterpret_cast<std::atomic<uint64_t>*>(guest.data());
    while (count->load() == 0) std::this_thread::yield();
    for (int i = 0; i < 100; ++i) {
      for (int signo : {SIGTERM, SIGINT, SIGHUP, SIGURG, SIGUSR1, SIGSEGV, SIGTRAP, SIGSYS, SIGCONT}) kill(pid, signo);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    done = true;
    context->Interrupt();
  });
  Registers regs = Guest::StartRegisters();
  regs.rdi = kData;
  SwitchResult why = context->Switch(guest.space(), regs);
  EXPECT_EQ(why.kind, Kind::kInterrupted) << Describe(why, regs);
  EXPECT_TRUE(done.load());
  other.join();
}

TEST_P(MemoryTest, ZygoteKilled) {
  Guest guest(sandbox_, guest_spin2_begin, guest_spin2_end);
  kill(sandbox_.zygote_pid(), SIGKILL);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  // Stubs die with it.
  EXPECT_EQ(context->Switch(guest.space(), regs).kind, Kind::kDied);
  EXPECT_EQ(platform().NewAddressSpace().error_code(), ESRCH);
  context.reset();
  guest.DropSpace();
}

std::string ReadProc(int pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/" + name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// What /proc tells of zygote and stub.
TEST_P(MemoryTest, Confinement) {
  Guest guest(sandbox_, guest_syscall2_begin, guest_syscall2_end);
  auto context = platform().NewContext();
  Registers regs = Guest::StartRegisters();
  ASSERT_EQ(context->Switch(guest.space(), regs).kind, Kind::kSyscall);
  for (int pid : {sandbox_.zygote_pid(), guest.space().stub_pid()}) {
    const std::string status = ReadProc(pid, "status");
    EXPECT_NE(status.find("Seccomp:\t2"), std::string::npos) << status;
    EXPECT_NE(status.find("NoNewPrivs:\t1"), std::string::npos) << status;
    EXPECT_NE(status.find("CapEff:\t0000000000000000"), std::string::npos) << status;
    EXPECT_NE(status.find("CapPrm:\t0000000000000000"), std::string::npos) << status;
    // Channel, memory and control files; a stub has an eventfd and a pipe too.
    for (int fd = pid == sandbox_.zygote_pid() ? 3 : 5; fd < 64; ++fd) {
      EXPECT_NE(access(("/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd)).c_str(), F_OK), 0) << fd;
    }
    // Nothing of this process is mapped there.
    std::istringstream maps(ReadProc(pid, "maps"));
    std::string line;
    while (std::getline(maps, line)) {
      const uint64_t start = strtoull(line.c_str(), nullptr, 16);
      EXPECT_TRUE(start >= platform().user_range().end || start == kCode || start == kData) << line;
      EXPECT_EQ(line.find("rwx"), std::string::npos) << line;
    }
    const std::string limits = ReadProc(pid, "limits");
    EXPECT_NE(limits.find("Max core file size        0"), std::string::npos) << limits;
  }
}

INSTANTIATE_TEST_SUITE_P(Platforms, MemoryTest, testing::ValuesIn(PlatformsUnderTest()), PlatformParamName);

}  // namespace
}  // namespace caisson
