#include "sentry/kernel/call_sites.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>

#include "sentry/base/log.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/memory_manager.h"

namespace caisson {
namespace {

constexpr size_t kMaxAreas = 32;
constexpr size_t kMaxSites = 2048;
constexpr uint64_t kReach = 0x7ff00000;

}  // namespace

CallSites::Area::~Area() {
  if (translation.file) translation.file->DecRef(translation.range);
}

Result<RefPtr<MemoryManager>> CallSites::Fork(MemoryManager& mm) {
  // Nothing is rewritten while pages and this are copied.
  absl::ReaderMutexLock lock(&mutex_);
  RefPtr<MemoryManager> child = TRY(mm.Fork());
  RefPtr<CallSites> copy = MakeRef<CallSites>();
  {
    absl::MutexLock copy_lock(&copy->mutex_);
    copy->areas_ = areas_;
    copy->sites_ = sites_;
  }
  copy->any_.store(any_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  child->call_sites = copy;
  return child;
}

void CallSites::Rewrite(Task& task, uint64_t site) {
  absl::MutexLock lock(&mutex_);
  if (sites_.size() >= kMaxSites) return;
  Site& entry = sites_[site];
  // The trap came from the slot: the guest uses GS itself.
  if (IsRewritten(task, site, entry)) return;
  if (Result<void> done = RewriteLocked(task, site, entry); !done.ok()) {
    LOG_DEBUG("call site %#llx stays: %d", static_cast<unsigned long long>(site), done.error().code());
  }
}

Result<void> CallSites::RewriteLocked(Task& task, uint64_t site, Site& entry) {
  MemoryManager& mm = task.mm();
  std::array<uint8_t, kCallSiteWindow> code;
  const size_t size = TRY(mm.CopyIn(site, code.data(), code.size()));
  const std::span<const uint8_t> seen(code.data(), size);
  const bool known = entry.slot != 0 && size == code.size() && code == entry.code;
  if (!known) {
    // Other code than before, or never seen. The old slot stays: somebody may still be in it.
    entry.slot = 0;
    std::optional<DisplacedCode> displaced = DisplaceCallSite(seen);
    if (!displaced || size < code.size()) return Errno(EOPNOTSUPP);
    entry.displaced = *displaced;
    entry.code = code;
    entry.slot = TRY(TakeSlot(task, site, entry));
  }
  const std::array<uint8_t, kCallJumpSize> jump = MakeCallJump(site, entry.slot);
  Result<void> replaced = mm.ReplaceCode(site, std::span(code).first(kCallJumpSize), jump);
  return replaced;
}

Result<void> CallSites::Undo(Task& task, uint64_t site) {
  auto it = sites_.find(site);
  if (it == sites_.end() || it->second.slot == 0) return Errno(ENOENT);
  const std::array<uint8_t, kCallJumpSize> jump = MakeCallJump(site, it->second.slot);
  return task.mm().ReplaceCode(site, jump, std::span<const uint8_t>(it->second.code).first(kCallJumpSize));
}

Result<uint64_t> CallSites::TakeSlot(Task& task, uint64_t site, const Site& entry) {
  auto find = [&](Area& area) -> uint64_t {
    absl::MutexLock lock(&area.mutex);
    for (size_t i = 1; i < area.sites.size(); ++i) {
      const uint64_t slot = area.base + i * kCallSlotSize;
      if (area.sites[i] != 0 || !SlotFits(entry.displaced, entry.code, site, slot)) continue;
      const std::array<uint8_t, kCallSlotSize> bytes = MakeSlot(entry.displaced, entry.code, site, slot, area.base);
      memcpy(area.memory + i * kCallSlotSize, bytes.data(), bytes.size());
      area.sites[i] = site;
      return slot;
    }
    return 0;
  };
  for (const RefPtr<Area>& area : areas_) {
    if (uint64_t slot = find(*area)) return slot;
  }
  RefPtr<Area> area = TRY(NewArea(task, site));
  areas_.push_back(area);
  any_.store(true, std::memory_order_release);
  if (uint64_t slot = find(*area)) return slot;
  return Errno(ENOSPC);
}

Result<RefPtr<CallSites::Area>> CallSites::NewArea(Task& task, uint64_t site) {
  if (areas_.size() >= kMaxAreas) return Errno(ENOSPC);
  Kernel& kernel = task.kernel();
  MemoryManager& mm = task.mm();
  // A hole below the code, else above it, a little away from what may want to grow.
  constexpr uint64_t kSpacing = 64 << 10;
  const Platform::Range range = kernel.platform().user_range();
  const uint64_t low = std::max(range.start, site > kReach ? site - kReach : 0);
  const uint64_t high = std::min(range.end, site + kReach);
  uint64_t below = 0, above = 0, end = range.start;
  auto consider = [&](uint64_t from, uint64_t to) {  // A hole.
    from = std::max(from + kSpacing, low);
    to = std::min(to < kSpacing ? 0 : to - kSpacing, high);
    if (from >= to || to - from < Area::kSize) return;
    if (to <= site) below = (to - Area::kSize) & ~uint64_t{4095};
    if (from > site && above == 0) above = (from + 4095) & ~uint64_t{4095};
  };
  for (const MemoryManager::VmaInfo& vma : mm.Vmas(false)) {
    if (vma.start > end) consider(end, vma.start);
    end = std::max(end, vma.end);
  }
  consider(end, range.end);
  const uint64_t address = below != 0 ? below : above;
  if (address == 0) return Errno(ENOMEM);

  RefPtr<Area> area = MakeRef<Area>();
  area->pages = NewSharedAnonymous(kernel.memory_file(), Area::kSize);
  area->translation = TRY(area->pages->Translate(0, Area::kSize, true));
  if (area->translation.range.length < Area::kSize) return Errno(ENOMEM);
  area->memory = kernel.memory_file()->Pointer(area->translation.range.offset);
  const uint64_t entry = kernel.platform().call_entry();
  memcpy(area->memory, &entry, sizeof entry);

  MmapRequest request;
  request.address = address;
  request.length = Area::kSize;
  request.prot = request.max_prot = PROT_READ | PROT_EXEC;
  request.flags = MAP_PRIVATE;
  request.mappable = area->pages;
  request.special_name = "[syscalls]";
  area->base = TRY(mm.Mmap(request, MemoryLimits()));
  if (area->base < low || area->base > high - Area::kSize) {
    (void)mm.Munmap(area->base, Area::kSize);
    return Errno(ENOMEM);
  }
  return area;
}

uint64_t CallSites::SlotAt(uint64_t address, uint64_t* site) {
  for (const RefPtr<Area>& area : areas_) {
    if (address - area->base >= Area::kSize) continue;
    const size_t index = (address - area->base) / kCallSlotSize;
    absl::MutexLock lock(&area->mutex);
    *site = area->sites[index];
    return *site == 0 ? 0 : area->base + index * kCallSlotSize;
  }
  return 0;
}

bool CallSites::IsRewritten(Task& task, uint64_t site, const Site& entry) {
  if (entry.slot == 0) return false;
  const std::array<uint8_t, kCallJumpSize> jump = MakeCallJump(site, entry.slot);
  std::array<uint8_t, kCallJumpSize> now;
  Result<size_t> copied = task.mm().CopyIn(site, now.data(), now.size());
  return copied.ok() && *copied == now.size() && now == jump;
}

bool CallSites::ToOriginal(Task& task, Registers& regs, const SwitchResult& result) {
  if (!any_.load(std::memory_order_acquire)) return true;
  uint64_t stepped_site = 0;
  {
    absl::ReaderMutexLock lock(&mutex_);
    uint64_t site = 0;
    const uint64_t slot = SlotAt(regs.rip, &site);
    if (slot == 0) {
      if (result.kind == SwitchResult::Kind::kFault && !result.is_page_fault() && SendOnLocked(task, regs)) return false;
      return true;
    }
    auto it = sites_.find(site);
    // A slot that was given up: its code is as it was, and nobody is sent there any more.
    if (it == sites_.end() || it->second.slot != slot) return true;
    const std::optional<uint64_t> offset = OriginalOffset(it->second.displaced, regs.rip - slot);
    if (!offset) return true;
    regs.rip = site + *offset;
    if (regs.rip == site + 2) regs.rcx = regs.rip;
    if (result.kind == SwitchResult::Kind::kFault && result.signo == SIGTRAP && *offset == 0 &&
        (regs.eflags & kTrapFlag)) {
      stepped_site = site;
    }
  }
  if (stepped_site == 0) return true;
  // The guest steps through its code, and has made no step yet: the site becomes what it was.
  absl::MutexLock lock(&mutex_);
  return !Undo(task, stepped_site).ok();
}

bool CallSites::SendOnLocked(Task& task, Registers& regs) {
  auto it = sites_.find(regs.rip - 2);
  if (it == sites_.end() || !IsRewritten(task, it->first, it->second)) return false;
  regs.rip = it->second.slot + kSlotDisplaced;
  return true;
}

void CallSites::ToRewritten(Task& task, Registers& regs) {
  if (!any_.load(std::memory_order_acquire)) return;
  absl::ReaderMutexLock lock(&mutex_);
  SendOnLocked(task, regs);
}

}  // namespace caisson
