#include "sentry/kernel/seccomp_program.h"

#include <string.h>

#include <array>
#include <span>

namespace caisson {
namespace {

// One operation of the accumulator. The divisor of a checked program is not 0 unless it comes from X.
uint32_t Operate(uint16_t operation, uint32_t a, uint32_t b) {
  switch (operation) {
    case BPF_ADD: return a + b;
    case BPF_SUB: return a - b;
    case BPF_MUL: return a * b;
    case BPF_DIV: return a / b;
    case BPF_AND: return a & b;
    case BPF_OR: return a | b;
    case BPF_XOR: return a ^ b;
    case BPF_LSH: return a << (b & 31);
    case BPF_RSH: return a >> (b & 31);
    default: return -a;  // BPF_NEG.
  }
}

bool Compare(uint16_t operation, uint32_t a, uint32_t b) {
  switch (operation) {
    case BPF_JEQ: return a == b;
    case BPF_JGT: return a > b;
    case BPF_JGE: return a >= b;
    default: return (a & b) != 0;  // BPF_JSET.
  }
}

// Is this instruction, at `index` of `length`, one that may stand in a filter?
bool IsAllowed(const sock_filter& instruction, size_t index, size_t length) {
  const uint64_t behind = length - index - 1;  // Instructions that a jump can reach.
  const uint32_t k = instruction.k;
  switch (instruction.code) {
    case BPF_LD | BPF_W | BPF_ABS:
      return k < sizeof(SeccompData) && k % 4 == 0;
    case BPF_LD | BPF_MEM:
    case BPF_LDX | BPF_MEM:
    case BPF_ST:
    case BPF_STX:
      return k < BPF_MEMWORDS;
    case BPF_ALU | BPF_DIV | BPF_K:
      return k != 0;
    case BPF_ALU | BPF_LSH | BPF_K:
    case BPF_ALU | BPF_RSH | BPF_K:
      return k < 32;
    case BPF_JMP | BPF_JA:
      return k < behind;
    case BPF_JMP | BPF_JEQ | BPF_K:
    case BPF_JMP | BPF_JEQ | BPF_X:
    case BPF_JMP | BPF_JGT | BPF_K:
    case BPF_JMP | BPF_JGT | BPF_X:
    case BPF_JMP | BPF_JGE | BPF_K:
    case BPF_JMP | BPF_JGE | BPF_X:
    case BPF_JMP | BPF_JSET | BPF_K:
    case BPF_JMP | BPF_JSET | BPF_X:
      return instruction.jt < behind && instruction.jf < behind;
    case BPF_LD | BPF_W | BPF_LEN:
    case BPF_LDX | BPF_W | BPF_LEN:
    case BPF_LD | BPF_IMM:
    case BPF_LDX | BPF_IMM:
    case BPF_MISC | BPF_TAX:
    case BPF_MISC | BPF_TXA:
    case BPF_RET | BPF_K:
    case BPF_RET | BPF_A:
    case BPF_ALU | BPF_NEG:
    case BPF_ALU | BPF_DIV | BPF_X:
    case BPF_ALU | BPF_LSH | BPF_X:
    case BPF_ALU | BPF_RSH | BPF_X:
      return true;
    default:
      break;
  }
  if (BPF_CLASS(instruction.code) != BPF_ALU || (instruction.code & ~(BPF_ALU | 0xf0 | BPF_X))) return false;
  switch (BPF_OP(instruction.code)) {
    case BPF_ADD:
    case BPF_SUB:
    case BPF_MUL:
    case BPF_AND:
    case BPF_OR:
    case BPF_XOR:
      return true;
    default:
      return false;
  }
}

// No path may read a scratch word that it has not written: the sentry's memory is not to be seen.
bool ReadsOnlyWhatItWrote(std::span<const sock_filter> code) {
  // Which words are written on every path that leads here. All: no path does yet.
  std::vector<uint16_t> written(code.size(), 0xffff);
  uint16_t now = 0;
  for (size_t i = 0; i < code.size(); ++i) {
    now &= written[i];
    const sock_filter& instruction = code[i];
    switch (BPF_CLASS(instruction.code)) {
      case BPF_ST:
      case BPF_STX:
        now |= 1u << instruction.k;
        break;
      case BPF_LD:
      case BPF_LDX:
        if (BPF_MODE(instruction.code) == BPF_MEM && !(now & (1u << instruction.k))) return false;
        break;
      case BPF_JMP:
        if (BPF_OP(instruction.code) == BPF_JA) {
          written[i + 1 + instruction.k] &= now;
        } else {
          written[i + 1 + instruction.jt] &= now;
          written[i + 1 + instruction.jf] &= now;
        }
        now = 0xffff;
        break;
      default:
        break;
    }
  }
  return true;
}

}  // namespace

Result<SeccompProgram> SeccompProgram::Check(std::vector<sock_filter> code) {
  if (code.empty() || code.size() > BPF_MAXINSNS) return Errno(EINVAL);
  for (size_t i = 0; i < code.size(); ++i) {
    if (!IsAllowed(code[i], i, code.size())) return Errno(EINVAL);
  }
  if (BPF_CLASS(code.back().code) != BPF_RET) return Errno(EINVAL);
  if (!ReadsOnlyWhatItWrote(code)) return Errno(EINVAL);
  return SeccompProgram(std::move(code));
}

uint32_t SeccompProgram::Run(const SeccompData& data) const {
  std::array<uint32_t, BPF_MEMWORDS> scratch;
  std::array<uint32_t, sizeof(SeccompData) / 4> words;
  memcpy(words.data(), &data, sizeof data);
  uint32_t a = 0, x = 0;
  for (const sock_filter* at = code_.data();; ++at) {
    const uint32_t k = at->k;
    switch (BPF_CLASS(at->code)) {
      case BPF_LD:
        a = BPF_MODE(at->code) == BPF_ABS   ? words[k / 4]
            : BPF_MODE(at->code) == BPF_MEM ? scratch[k]
            : BPF_MODE(at->code) == BPF_LEN ? static_cast<uint32_t>(sizeof(SeccompData))
                                            : k;
        break;
      case BPF_LDX:
        x = BPF_MODE(at->code) == BPF_MEM   ? scratch[k]
            : BPF_MODE(at->code) == BPF_LEN ? static_cast<uint32_t>(sizeof(SeccompData))
                                            : k;
        break;
      case BPF_ST:
        scratch[k] = a;
        break;
      case BPF_STX:
        scratch[k] = x;
        break;
      case BPF_ALU: {
        const uint32_t b = BPF_SRC(at->code) == BPF_X ? x : k;
        // Linux ends a program that divides by zero with 0: SECCOMP_RET_KILL_THREAD.
        if (BPF_OP(at->code) == BPF_DIV && b == 0) return 0;
        a = Operate(BPF_OP(at->code), a, b);
        break;
      }
      case BPF_JMP:
        if (BPF_OP(at->code) == BPF_JA) {
          at += k;
        } else {
          at += Compare(BPF_OP(at->code), a, BPF_SRC(at->code) == BPF_X ? x : k) ? at->jt : at->jf;
        }
        break;
      case BPF_RET:
        return BPF_RVAL(at->code) == BPF_A ? a : k;
      default:
        if (BPF_MISCOP(at->code) == BPF_TAX) {
          x = a;
        } else {
          a = x;
        }
    }
  }
}

size_t SeccompProgram::translated_length() const {
  size_t length = 3;  // Both registers are cleared, the context is kept.
  for (const sock_filter& instruction : code_) {
    ++length;
    const bool immediate = BPF_SRC(instruction.code) == BPF_K;
    switch (BPF_CLASS(instruction.code)) {
      case BPF_RET:
        length += BPF_RVAL(instruction.code) == BPF_K;
        break;
      case BPF_ALU:
        if (BPF_OP(instruction.code) == BPF_DIV && !immediate) length += 4;
        break;
      case BPF_JMP:
        if (BPF_OP(instruction.code) == BPF_JA) break;
        if (immediate && static_cast<int32_t>(instruction.k) < 0) ++length;
        // One jump where one way goes on, of a condition that can be turned around; else two.
        if (instruction.jf != 0 && (instruction.jt != 0 || BPF_OP(instruction.code) == BPF_JSET)) ++length;
        break;
      default:
        break;
    }
  }
  return length;
}

bool SeccompProgram::AlwaysAllows(int32_t number, uint32_t arch) const {
  uint32_t a = 0;
  for (const sock_filter* at = code_.data();; ++at) {
    switch (at->code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (at->k == offsetof(SeccompData, nr)) {
          a = static_cast<uint32_t>(number);
        } else if (at->k == offsetof(SeccompData, arch)) {
          a = arch;
        } else {
          return false;
        }
        break;
      case BPF_JMP | BPF_JA:
        at += at->k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
      case BPF_JMP | BPF_JGT | BPF_K:
      case BPF_JMP | BPF_JGE | BPF_K:
      case BPF_JMP | BPF_JSET | BPF_K:
        at += Compare(BPF_OP(at->code), a, at->k) ? at->jt : at->jf;
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        a &= at->k;
        break;
      case BPF_RET | BPF_K:
        return at->k == SECCOMP_RET_ALLOW;
      default:
        return false;
    }
  }
}

}  // namespace caisson
