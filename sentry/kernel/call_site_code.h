// The machine code of rewritten call sites.
//
// A site is a `syscall` instruction of the guest. It is replaced, together with what follows it as far as 5 bytes reach,
// by a jump to its slot. The slot enters the platform (Platform::call_entry()), then runs the displaced instructions, then
// jumps back behind them. Code is decoded forwards from the site only.
//
// Nobody may run into the middle of the jump and find something else than what was there: the byte right after the two of
// `syscall` is chosen (by the slot's address) to be no valid instruction, so that whoever returns or jumps to that
// address traps, and is sent on to the displaced instructions. No other instruction may begin inside the jump, unless it
// is padding behind a `ret`.
#ifndef CAISSON_SENTRY_KERNEL_CALL_SITE_CODE_H_
#define CAISSON_SENTRY_KERNEL_CALL_SITE_CODE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace caisson {

inline constexpr size_t kCallSlotSize = 64;
inline constexpr size_t kCallJumpSize = 5;
// How much of the code at a site DisplaceCallSite() may look at.
inline constexpr size_t kCallSiteWindow = 32;

// Offsets in a slot.
inline constexpr uint64_t kSlotEntry = 8;          // Where the site jumps to.
inline constexpr uint64_t kSlotTrap = 22;          // The `syscall` instruction for when the entry is of no use.
inline constexpr uint64_t kSlotContinuation = 24;  // The call has returned; rcx is still to be set.
inline constexpr uint64_t kSlotDisplaced = 31;     // The first displaced instruction.

// What stands after a `syscall` instruction and must move.
struct DisplacedCode {
  struct Instruction {
    uint8_t offset;  // From the site.
    uint8_t size;
    uint8_t relative;  // Where in it a 32-bit distance from its end is; 0: nowhere.
  };
  std::array<Instruction, 3> instructions;
  size_t count = 0;
  uint8_t size = 0;    // From the site, with the `syscall`.
  bool falls_through;  // Control goes on behind them.
};

// nullopt: the site cannot be rewritten. `code` begins at the site.
std::optional<DisplacedCode> DisplaceCallSite(std::span<const uint8_t> code);

// Whether a jump from `site` to the slot at `slot` protects the site as described above, and all distances fit.
bool SlotFits(const DisplacedCode& displaced, std::span<const uint8_t> code, uint64_t site, uint64_t slot);

// The slot's content; `entry_pointer` is the address of 8 bytes with the entry's address, less than 2 GiB away.
std::array<uint8_t, kCallSlotSize> MakeSlot(const DisplacedCode& displaced, std::span<const uint8_t> code,
                                            uint64_t site, uint64_t slot, uint64_t entry_pointer);
std::array<uint8_t, kCallJumpSize> MakeCallJump(uint64_t site, uint64_t slot);

// The place in the original code that corresponds to `offset` in the slot, from the site. nullopt: no instruction of the
// slot begins there.
std::optional<uint64_t> OriginalOffset(const DisplacedCode& displaced, uint64_t offset);

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_CALL_SITE_CODE_H_
