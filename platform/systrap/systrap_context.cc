#include <errno.h>
#include <linux/audit.h>
#include <linux/futex.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>

#include "platform/stub/events.h"
#include "platform/stub/layout.h"
#include "platform/systrap/systrap_platform.h"
#include "sentry/arch/xstate.h"
#include "sentry/base/log.h"

namespace caisson {
namespace {

// si_code of SIGSYS.
constexpr int kSysSeccomp = 1, kSysUserDispatch = 2;
constexpr uint64_t kNoSyscall = ~uint64_t{0};
// A guest thread that does not answer an interrupt is asked again this often, and at last its stub is killed. Tries
// are counted, not time: a sandbox may be frozen for any while. Only a
// guest that tampers with its stub does not answer, or a host that does not run it.
constexpr long kInsistNs = 10'000'000;
constexpr int kMaxTries = 2000;
// Wake-ups without an answer, which nobody but a guest that tampers makes many of.
constexpr int kMaxWakes = 1 << 20;

long Futex(const std::atomic<uint32_t>& word, int op, uint32_t value, const timespec* timeout = nullptr) {
  return syscall(SYS_futex, &word, op, value, timeout, nullptr, 0);
}

// The part of a siginfo that is needed, as the kernel lays it out.
struct SignalInfo {
  int32_t signo, error, code, pad;
  union {
    uint64_t address;
    struct {
      uint64_t call_address;
      int32_t number;
      uint32_t arch;
    } call;
  };
};
static_assert(offsetof(SignalInfo, address) == offsetof(siginfo_t, si_addr));

// A copy of what the stub's handler found.
struct SignalFrame {
  greg_t gregs[NGREG];
  uint64_t xstate_address;
};
static_assert(offsetof(mcontext_t, fpregs) == sizeof(SignalFrame::gregs));

// Makes `regs` those of a system call whose number the host has left in rax.
void FinishSyscall(const SignalInfo& info, Registers& regs) {
  if (info.call.number <= -512 && info.call.number >= -516) {
    // The host took the number for the result of a call to restart.
    regs.rax = static_cast<uint64_t>(int64_t{info.call.number});
    regs.rip = info.call.call_address;
  }
  regs.orig_rax = regs.rax;
  regs.rax = static_cast<uint64_t>(-ENOSYS);
}

}  // namespace

void SystrapContext::DropThread(bool keep_xstate) {
  if (!area_) return;
  target_.store(0);
  header_.store(nullptr);
  const bool in_thread = xstate_where_ == Xstate::kInArea || xstate_where_ == Xstate::kLive;
  if (keep_xstate && in_thread) {
    xstate_.resize(XstateSize());
    GetXstate(xstate_);
    xstate_where_ = Xstate::kHere;
  } else if (in_thread) {
    xstate_where_ = Xstate::kInitial;
  }
  frame_is_current_ = false;
  stub::Placement::Release();
  space_->ReturnThread(area_);
  area_ = nullptr;
  space_ = nullptr;
}

void SystrapContext::GetXstate(std::span<uint8_t> image) {
  const size_t size = std::min(image.size(), XstateSize());
  switch (xstate_where_) {
    case Xstate::kInitial:
      memcpy(image.data(), InitialXstate().data(), size);
      break;
    case Xstate::kHere:
      memcpy(image.data(), xstate_.data(), size);
      break;
    case Xstate::kInArea:
      // After its space has been destroyed the area can be another's.
      if (space_->process().dead()) {
        memcpy(image.data(), InitialXstate().data(), size);
      } else {
        memcpy(image.data(), area_->memory + xstate_offset_, size);
      }
      break;
    case Xstate::kLive:
      if (SaveLiveXstate()) {
        memcpy(image.data(), area_->memory, size);
      } else {
        memcpy(image.data(), InitialXstate().data(), size);
      }
      break;
  }
  SanitizeXstate(image);
}

bool SystrapContext::SaveLiveXstate() {
  if (space_->process().dead()) return false;
  if (live_saved_) return true;
  stub::ThreadHeader& header = *area_->header;
  header.state.store(STATE_SAVE);
  if (header.stub_sleeps.load()) Futex(header.state, FUTEX_WAKE, 1);
  if (WaitForStub(STATE_SAVE) != STATE_EVENT) {
    space_->process().Kill();
    return false;
  }
  live_saved_ = true;
  return true;
}

void SystrapContext::SetXstate(std::span<const uint8_t> image) {
  xstate_ = InitialXstate();
  memcpy(xstate_.data(), image.data(), std::min(image.size(), xstate_.size()));
  SanitizeXstate(xstate_);
  xstate_where_ = Xstate::kHere;
}

void SystrapContext::SetAnswers(std::span<const CallAnswer> answers) {
  answers_.assign(answers.begin(), answers.end());
  answers_written_ = false;
}

void SystrapContext::WriteAnswers() {
  uint64_t* table = reinterpret_cast<uint64_t*>(area_->memory + AREA_HEADER + HEADER_ANSWERS);
  // Whoever had the thread before left its own.
  memset(table, 0, ANSWER_COUNT * sizeof *table);
  for (const CallAnswer& answer : answers_) {
    if (answer.number < ANSWER_COUNT) table[answer.number] = ANSWER_VALID | answer.result;
  }
  answers_written_ = true;
}

void SystrapContext::SendInterrupt() {
  const uint64_t target = target_.load();
  if (target == 0) return;
  syscall(SYS_tgkill, static_cast<int>(target >> 32), static_cast<int>(target), STUB_INTERRUPT_SIGNAL);
}

void SystrapContext::Interrupt() {
  // One signal for each interrupt that is taken, so that handlers do not pile up on the stub's stack.
  if (interrupted_.exchange(true) || !running_.load()) return;
  const int saved = errno;
  SendInterrupt();
  // Wakes the sentry's side too, to see to it that the stub reacts.
  if (stub::ThreadHeader* header = header_.load()) Futex(header->state, FUTEX_WAKE, INT_MAX);
  errno = saved;
}

SwitchResult SystrapContext::Switch(AddressSpace& address_space, Registers& regs) {
  const RefPtr<SystrapSpace>& space = static_cast<SystrapAddressSpace&>(address_space).space();
  SanitizeRegisters(regs);
  if (area_ && space_ != space) DropThread(/*keep_xstate=*/true);
  if (!area_) {
    Result<stub::ThreadArea*> area = space->TakeThread();
    if (!area.ok()) return {.kind = SwitchResult::Kind::kDied};
    area_ = *area;
    space_ = space;
    target_.store(static_cast<uint64_t>(space->process().pid()) << 32 | static_cast<uint32_t>(area_->tid));
    header_.store(area_->header);
    answers_written_ = false;
  }
  if (!answers_written_) WriteAnswers();
  if (auto fault = stub::CheckRip(regs.rip)) return *fault;
  running_.store(true);
  SwitchResult result = Run(regs);
  running_.store(false);
  if (result.kind == SwitchResult::Kind::kDied) DropThread(/*keep_xstate=*/false);
  return result;
}

SwitchResult SystrapContext::Killed() {
  space_->process().Kill();
  return {.kind = SwitchResult::Kind::kDied};
}

SwitchResult SystrapContext::Run(Registers& regs) {
  if (interrupted_.exchange(false)) return {.kind = SwitchResult::Kind::kInterrupted};
  for (;;) {
    if (space_->process().dead()) return {.kind = SwitchResult::Kind::kDied};
    WriteResume(regs);
    stub::RunningGuests guests;
    HandOver(guests.SpinnerFits());
    // An interrupt that came before the thread was let go has not been noticed by the stub.
    if (interrupted_.load()) SendInterrupt();
    const uint32_t state = WaitForStub(STATE_RUN);
    placement_.Answered();
    switch (state) {
      case STATE_EVENT:
        if (std::optional<SwitchResult> result = ReadEvent(regs)) return *result;
        break;
      case STATE_NOT_STARTED:
        if (interrupted_.exchange(false)) return {.kind = SwitchResult::Kind::kInterrupted};
        break;
      default:
        return Killed();
    }
  }
}

void SystrapContext::WriteResume(const Registers& regs) {
  stub::ThreadHeader& header = *area_->header;
  if (frame_is_current_ && (xstate_where_ == Xstate::kInArea || xstate_where_ == Xstate::kLive)) {
    in_frame_.rax = regs.rax;
    in_frame_.orig_rax = regs.orig_rax;
    if (memcmp(&in_frame_, &regs, sizeof regs) == 0) {
      header.resume_rax = regs.rax;
      header.resume_kind = xstate_where_ == Xstate::kLive ? RESUME_FAST : RESUME_RAX;
      return;
    }
  }
  header.resume_kind = RESUME_ALL;
  header.resume = {.r15 = regs.r15,
                   .r14 = regs.r14,
                   .r13 = regs.r13,
                   .r12 = regs.r12,
                   .r11 = regs.r11,
                   .r10 = regs.r10,
                   .r9 = regs.r9,
                   .r8 = regs.r8,
                   .rbp = regs.rbp,
                   .rdi = regs.rdi,
                   .rsi = regs.rsi,
                   .rdx = regs.rdx,
                   .rcx = regs.rcx,
                   .rax = regs.rax,
                   .rbx = regs.rbx,
                   .rip = regs.rip,
                   .cs = regs.cs,
                   .eflags = regs.eflags,
                   .rsp = regs.rsp,
                   .ss = regs.ss};
  header.resume_fs = regs.fs_base;
  // A guest that does not use GS lends it to the stub.
  header.resume_gs = regs.gs_base != 0 ? regs.gs_base : area_->stub_header();
  switch (xstate_where_) {
    case Xstate::kInitial:
      header.resume_xstate = STUB_DATA + DATA_INIT_XSTATE;
      break;
    case Xstate::kHere:
      memcpy(area_->memory, xstate_.data(), XstateSize());
      xstate_offset_ = 0;
      xstate_where_ = Xstate::kInArea;
      [[fallthrough]];
    case Xstate::kInArea:
      header.resume_xstate = area_->stub_address() + xstate_offset_;
      break;
    case Xstate::kLive:
      header.resume_xstate = 0;
      break;
  }
}

void SystrapContext::HandOver(bool spinner_fits) {
  stub::ThreadHeader& header = *area_->header;
  placement_.Prepare(*area_, spinner_fits, header.stub_sleeps.load(std::memory_order_relaxed) != 0);
  header.spin.store(placement_.spin_rounds(), std::memory_order_relaxed);
  frame_is_current_ = false;
  header.state.store(STATE_RUN);
  if (header.stub_sleeps.load()) Futex(header.state, FUTEX_WAKE, 1);
}

uint32_t SystrapContext::WaitForStub(uint32_t asked) {
  stub::ThreadHeader& header = *area_->header;
  uint32_t state;
  if (uint32_t rounds = placement_.spin_rounds()) {
    for (; rounds > 0; --rounds) {
      state = header.state.load(std::memory_order_acquire);
      if (state != asked) return state;
      __builtin_ia32_pause();
    }
    placement_.SentrySlept();
  }
  int tries = 0;
  header.sentry_sleeps.store(1);
  for (;;) {
    state = header.state.load();
    if (state != asked) break;
    if (space_->process().dead()) {
      state = STATE_DIED;
      break;
    }
    // Running the guest takes as long as it takes; anything else the stub does at once.
    if (asked == STATE_RUN && !interrupted_.load()) {
      Futex(header.state, FUTEX_WAIT, asked);
      continue;
    }
    if (!InsistOnInterrupt(asked, tries++)) {
      state = STATE_DIED;
      break;
    }
  }
  header.sentry_sleeps.store(0, std::memory_order_relaxed);
  return state;
}

bool SystrapContext::InsistOnInterrupt(uint32_t asked, int tries) {
  const timespec timeout = {.tv_sec = 0, .tv_nsec = kInsistNs};
  if (Futex(area_->header->state, FUTEX_WAIT, asked, &timeout) == 0 || errno != ETIMEDOUT) return tries < kMaxWakes;
  const bool gone = syscall(SYS_tgkill, space_->process().pid(), area_->tid, STUB_INTERRUPT_SIGNAL) != 0;
  if (!gone && tries < kMaxTries) return true;
  if (!gone) LOG_WARNING("stub %d does not react and is killed", space_->process().pid());
  space_->process().Kill();
  return false;
}

// The call came without a signal: the stub has stored its registers.
void SystrapContext::ReadFastCall(Registers& regs) {
  const stub::ThreadHeader& header = *area_->header;
  stub::ThreadHeader::Fast fast;
  memcpy(&fast, &header.fast, sizeof fast);
  const uint64_t event_fs = header.event_fs;
  regs.r8 = fast.r8;
  regs.r9 = fast.r9;
  regs.r10 = fast.r10;
  regs.r11 = fast.eflags;
  regs.r12 = fast.r12;
  regs.r13 = fast.r13;
  regs.r14 = fast.r14;
  regs.r15 = fast.r15;
  regs.rdi = fast.rdi;
  regs.rsi = fast.rsi;
  regs.rbp = fast.rbp;
  regs.rbx = fast.rbx;
  regs.rdx = fast.rdx;
  regs.rax = fast.rax;
  regs.rcx = fast.rip;
  regs.rsp = fast.rsp;
  regs.rip = fast.rip;
  regs.eflags = fast.eflags;
  regs.fs_base = event_fs;
  regs.gs_base = 0;
  SanitizeRegisters(regs);
  xstate_where_ = Xstate::kLive;
  live_saved_ = false;
  regs.orig_rax = regs.rax;
  regs.rax = static_cast<uint64_t>(-ENOSYS);
  frame_is_current_ = regs.eflags == fast.eflags && regs.fs_base == event_fs;
  in_frame_ = regs;
}

void SystrapContext::LeaveEntry(Registers& regs) {
  auto reached = [&regs](const char* label) { return regs.rip >= stub::InStub(label); };
  const bool in_r11 = reached(stub_fast_moved) && !reached(stub_fast_returning);
  const uint64_t continuation = in_r11 ? regs.r11 : regs.rcx;
  if (reached(stub_fast_switched) && !reached(stub_fast_unswitched)) regs.rsp = area_->header->fast.rsp;
  // In the slot: at its beginning, or where the call returns to.
  regs.rip = reached(stub_fast_answered) ? continuation : continuation - CALL_SLOT_ENTRY;
  regs.r11 = regs.eflags;
  frame_is_current_ = false;
  SanitizeRegisters(regs);
}

std::optional<SwitchResult> SystrapContext::ReadEvent(Registers& regs) {
  const stub::ThreadHeader& header = *area_->header;
  const uint32_t offset = header.event_frame;
  const int signo = static_cast<int>(header.event_signo);
  if (signo == EVENT_FAST) {
    ReadFastCall(regs);
    if (auto fault = stub::CheckRip(regs.rip)) return *fault;
    return SwitchResult{.kind = SwitchResult::Kind::kSyscall};
  }
  if (offset < AREA_STACK || offset > stub::kAreaSize - UC_TO_SIGINFO - sizeof(siginfo_t) || offset % 16 != 0) {
    return Killed();
  }
  SignalFrame frame;
  SignalInfo info;
  memcpy(&frame, area_->memory + offset + UC_R8, sizeof frame);
  memcpy(&info, area_->memory + offset + UC_TO_SIGINFO, sizeof info);
  const uint64_t xstate_offset = frame.xstate_address - area_->stub_address();
  if (xstate_offset < AREA_STACK || xstate_offset > stub::kAreaSize - XstateSize() || xstate_offset % 64 != 0) {
    return Killed();
  }
  xstate_offset_ = static_cast<uint32_t>(xstate_offset);
  xstate_where_ = Xstate::kInArea;

  const greg_t* g = frame.gregs;
  auto greg = [g](int n) { return static_cast<uint64_t>(g[n]); };
  regs.r8 = greg(REG_R8);
  regs.r9 = greg(REG_R9);
  regs.r10 = greg(REG_R10);
  regs.r11 = greg(REG_R11);
  regs.r12 = greg(REG_R12);
  regs.r13 = greg(REG_R13);
  regs.r14 = greg(REG_R14);
  regs.r15 = greg(REG_R15);
  regs.rdi = greg(REG_RDI);
  regs.rsi = greg(REG_RSI);
  regs.rbp = greg(REG_RBP);
  regs.rbx = greg(REG_RBX);
  regs.rdx = greg(REG_RDX);
  regs.rax = greg(REG_RAX);
  regs.rcx = greg(REG_RCX);
  regs.rsp = greg(REG_RSP);
  regs.rip = greg(REG_RIP);
  regs.eflags = greg(REG_EFL);
  const uint64_t event_fs = header.event_fs, event_gs = header.event_gs;
  const uint64_t guest_gs = event_gs == area_->stub_header() ? 0 : event_gs;
  regs.fs_base = event_fs;
  regs.gs_base = guest_gs;
  regs.orig_rax = kNoSyscall;
  SanitizeRegisters(regs);
  // Flags or segments that are not the guest's to keep are left out by a resumption from `regs`.
  frame_is_current_ = regs.eflags == greg(REG_EFL) && (greg(REG_CSGSFS) & 0xffff) == kUserCodeSegment &&
                      regs.fs_base == event_fs && regs.gs_base == guest_gs;
  in_frame_ = regs;

  if (signo == STUB_INTERRUPT_SIGNAL) {
    if (regs.rip >= stub::InStub(stub_fast_entry) && regs.rip < stub::InStub(stub_fast_save)) LeaveEntry(regs);
    if (!interrupted_.exchange(false)) return std::nullopt;
    return SwitchResult{.kind = SwitchResult::Kind::kInterrupted};
  }
  SwitchResult result = {.kind = SwitchResult::Kind::kSyscall, .trapped = true};
  if (signo == SIGSYS && (info.code == kSysSeccomp || info.code == kSysUserDispatch)) {
    if (info.call.arch == AUDIT_ARCH_I386) {
      result = stub::Int80Fault(regs);
    } else {
      FinishSyscall(info, regs);
    }
  } else if (stub::IsFaultSignal(signo, info.code)) {
    result = {.kind = SwitchResult::Kind::kFault,
              .signo = signo,
              .code = info.code,
              .address = info.address,
              .error_code = static_cast<uint32_t>(greg(REG_ERR)),
              .trap_number = static_cast<uint32_t>(greg(REG_TRAPNO)) & 31};
  } else {
    return std::nullopt;  // Sent by someone outside.
  }
  if (auto fault = stub::CheckRip(regs.rip)) return *fault;
  return result;
}

}  // namespace caisson
