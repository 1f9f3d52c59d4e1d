#include "sentry/kernel/call_site_code.h"

#include <capstone/capstone.h>
#include <string.h>

#include <algorithm>

#include "sentry/base/check.h"

namespace caisson {
namespace {

constexpr uint8_t kSyscallSize = 2;
constexpr uint64_t kMaxDisplaced = kCallSlotSize - kSlotDisplaced - kCallJumpSize;

// First bytes that raise a fault in 64-bit user mode whatever follows them.
constexpr uint8_t kInvalid[] = {0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61,
                                0x6c, 0x6d, 0x6e, 0x6f, 0x9a, 0xce, 0xd4, 0xe4, 0xe5, 0xe6, 0xe7, 0xea, 0xec,
                                0xed, 0xee, 0xef, 0xf4, 0xfa, 0xfb};

bool IsInvalidFirstByte(uint8_t byte) { return std::find(std::begin(kInvalid), std::end(kInvalid), byte) != std::end(kInvalid); }

// One decoder for each host thread: capstone's handles are not to be shared.
class Decoder {
 public:
  Decoder() {
    CHECK(cs_open(CS_ARCH_X86, CS_MODE_64, &handle_) == CS_ERR_OK);
    CHECK(cs_option(handle_, CS_OPT_DETAIL, CS_OPT_ON) == CS_ERR_OK);
    instruction_ = cs_malloc(handle_);
    CHECK(instruction_ != nullptr);
  }
  ~Decoder() {
    cs_free(instruction_, 1);
    cs_close(&handle_);
  }
  // The instruction at the beginning of `code`; null: none that is known.
  const cs_insn* Decode(std::span<const uint8_t> code) {
    const uint8_t* bytes = code.data();
    size_t size = code.size();
    uint64_t address = 0;
    return cs_disasm_iter(handle_, &bytes, &size, &address, instruction_) ? instruction_ : nullptr;
  }

 private:
  csh handle_;
  cs_insn* instruction_;
};

bool InGroup(const cs_insn& insn, uint8_t group) {
  const cs_detail& detail = *insn.detail;
  return std::find(detail.groups, detail.groups + detail.groups_count, group) != detail.groups + detail.groups_count;
}

bool UsesRip(const cs_insn& insn) {
  const cs_x86& x86 = insn.detail->x86;
  for (uint8_t i = 0; i < x86.op_count; ++i) {
    const cs_x86_op& op = x86.operands[i];
    if (op.type == X86_OP_MEM && (op.mem.base == X86_REG_RIP || op.mem.base == X86_REG_EIP)) return true;
    if (op.type == X86_OP_REG && (op.reg == X86_REG_RIP || op.reg == X86_REG_EIP)) return true;
  }
  return false;
}

void Put32(uint8_t* to, uint64_t value) {
  const uint32_t low = static_cast<uint32_t>(value);
  memcpy(to, &low, 4);
}

bool Fits32(uint64_t distance) { return static_cast<int64_t>(distance) == static_cast<int32_t>(distance); }

}  // namespace

std::optional<DisplacedCode> DisplaceCallSite(std::span<const uint8_t> code) {
  thread_local Decoder decoder;
  if (code.size() < kCallJumpSize || code[0] != 0x0f || code[1] != 0x05) return std::nullopt;
  DisplacedCode displaced;
  displaced.falls_through = true;
  uint8_t at = kSyscallSize;
  while (at < kCallJumpSize) {
    if (displaced.count == displaced.instructions.size()) return std::nullopt;
    // Only the first may begin inside the jump, but for padding that nothing falls into.
    const bool padding = !displaced.falls_through;
    if (at != kSyscallSize && !padding) return std::nullopt;
    const cs_insn* insn = decoder.Decode(code.subspan(at));
    if (!insn) return std::nullopt;
    DisplacedCode::Instruction moved = {.offset = at, .size = static_cast<uint8_t>(insn->size), .relative = 0};
    if (padding) {
      if (insn->id != X86_INS_NOP && insn->id != X86_INS_INT3) return std::nullopt;
      at += moved.size;
      continue;  // Nobody runs it: it need not move.
    }
    if (insn->id == X86_INS_RET && insn->size == 1) {
      displaced.falls_through = false;
    } else if (insn->id == X86_INS_JMP && insn->size == 5 && code[at] == 0xe9) {
      displaced.falls_through = false;
      moved.relative = 1;
    } else if (InGroup(*insn, CS_GRP_JUMP) || InGroup(*insn, CS_GRP_CALL) || InGroup(*insn, CS_GRP_RET) ||
               InGroup(*insn, CS_GRP_INT) || InGroup(*insn, CS_GRP_IRET) || InGroup(*insn, CS_GRP_PRIVILEGE) ||
               InGroup(*insn, CS_GRP_BRANCH_RELATIVE) || insn->id == X86_INS_SYSCALL || insn->id == X86_INS_XBEGIN ||
               insn->id == X86_INS_UD2) {
      return std::nullopt;
    } else if (UsesRip(*insn)) {
      const cs_x86_encoding& encoding = insn->detail->x86.encoding;
      if (encoding.disp_size != 4 || encoding.disp_offset == 0) return std::nullopt;
      moved.relative = encoding.disp_offset;
    }
    displaced.instructions[displaced.count++] = moved;
    at += moved.size;
    if (displaced.falls_through || at >= kCallJumpSize) displaced.size = at;
  }
  if (displaced.size == 0) displaced.size = kCallJumpSize;
  uint64_t total = 0;
  for (size_t i = 0; i < displaced.count; ++i) total += displaced.instructions[i].size;
  if (total > kMaxDisplaced || displaced.size > code.size()) return std::nullopt;
  return displaced;
}

bool SlotFits(const DisplacedCode& displaced, std::span<const uint8_t> code, uint64_t site, uint64_t slot) {
  const uint64_t distance = slot + kSlotEntry - (site + kCallJumpSize);
  constexpr uint64_t kMargin = 2 * kCallSlotSize;
  if (!Fits32(distance + kMargin) || !Fits32(distance - kMargin) || !Fits32(site - slot)) return false;
  if (!IsInvalidFirstByte(static_cast<uint8_t>(distance >> 8))) return false;
  uint64_t to = slot + kSlotDisplaced;
  for (size_t i = 0; i < displaced.count; ++i) {
    const DisplacedCode::Instruction& moved = displaced.instructions[i];
    if (moved.relative != 0) {
      int32_t old;
      memcpy(&old, &code[moved.offset + moved.relative], 4);
      if (!Fits32(static_cast<uint64_t>(int64_t{old}) + (site + moved.offset) - to)) return false;
    }
    to += moved.size;
  }
  return true;
}

std::array<uint8_t, kCallSlotSize> MakeSlot(const DisplacedCode& displaced, std::span<const uint8_t> code,
                                            uint64_t site, uint64_t slot, uint64_t entry_pointer) {
  std::array<uint8_t, kCallSlotSize> bytes;
  bytes.fill(0xcc);
  const uint64_t after = site + kSyscallSize;
  memcpy(&bytes[0], &after, 8);
  const uint8_t entry[] = {0x48, 0x8d, 0x0d, 0, 0, 0, 0,  // lea continuation(%rip), %rcx
                           0xff, 0x25, 0,    0, 0, 0,     // jmp *entry_pointer(%rip)
                           0x90, 0x0f, 0x05,              // nop; syscall
                           0x48, 0x8d, 0x0d, 0, 0, 0, 0}; // continuation: lea after(%rip), %rcx
  static_assert(kSlotEntry + sizeof entry == kSlotDisplaced);
  memcpy(&bytes[kSlotEntry], entry, sizeof entry);
  Put32(&bytes[kSlotEntry + 3], kSlotContinuation - (kSlotEntry + 7));
  Put32(&bytes[kSlotEntry + 9], entry_pointer - (slot + kSlotEntry + 13));
  Put32(&bytes[kSlotContinuation + 3], after - (slot + kSlotDisplaced));
  uint64_t at = kSlotDisplaced;
  for (size_t i = 0; i < displaced.count; ++i) {
    const DisplacedCode::Instruction& moved = displaced.instructions[i];
    memcpy(&bytes[at], &code[moved.offset], moved.size);
    if (moved.relative != 0) {
      uint32_t old;
      memcpy(&old, &bytes[at + moved.relative], 4);
      Put32(&bytes[at + moved.relative], old + (site + moved.offset) - (slot + at));
    }
    at += moved.size;
  }
  if (displaced.falls_through) {
    bytes[at] = 0xe9;
    Put32(&bytes[at + 1], site + displaced.size - (slot + at + kCallJumpSize));
  }
  return bytes;
}

std::array<uint8_t, kCallJumpSize> MakeCallJump(uint64_t site, uint64_t slot) {
  std::array<uint8_t, kCallJumpSize> jump = {0xe9};
  Put32(&jump[1], slot + kSlotEntry - (site + kCallJumpSize));
  return jump;
}

std::optional<uint64_t> OriginalOffset(const DisplacedCode& displaced, uint64_t offset) {
  if (offset >= kSlotEntry && offset <= kSlotTrap) return 0;
  if (offset == kSlotContinuation) return kSyscallSize;
  uint64_t at = kSlotDisplaced;
  for (size_t i = 0; i < displaced.count; ++i) {
    if (offset == at) return displaced.instructions[i].offset;
    at += displaced.instructions[i].size;
  }
  if (displaced.falls_through && offset == at) return displaced.size;
  return std::nullopt;
}

}  // namespace caisson
