// Memory: mmap(2) and its family, mlock(2), process_vm_readv(2), membarrier(2), pkeys(7), numa(7).
#ifndef CAISSON_SYSCALLS_MMAP_H_
#define CAISSON_SYSCALLS_MMAP_H_

#include "syscalls/syscall.h"

namespace caisson {

struct MmapProt {
  int value = 0;
  static MmapProt FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};
struct MmapFlags {
  int value = 0;
  static MmapFlags FromArgument(uint64_t raw) { return {static_cast<int>(raw)}; }
  std::string Format() const;
};

Result<uint64_t> SysMmap(Task& task, Hex address, uint64_t length, MmapProt prot, MmapFlags flags, Fd fd, Hex offset);
Result<void> SysMunmap(Task& task, Hex address, uint64_t length);
Result<void> SysMprotect(Task& task, Hex address, uint64_t length, MmapProt prot);
Result<uint64_t> SysBrk(Task& task, Hex address);
Result<uint64_t> SysMremap(Task& task, Hex old_address, uint64_t old_size, uint64_t new_size, int flags,
                           Hex new_address);
Result<void> SysMadvise(Task& task, Hex address, uint64_t length, int advice);
Result<void> SysMincore(Task& task, Hex address, uint64_t length, UserPtr<uint8_t> residency);
Result<void> SysMsync(Task& task, Hex address, uint64_t length, int flags);
Result<void> SysMlock(Task& task, Hex address, uint64_t length);
Result<void> SysMlock2(Task& task, Hex address, uint64_t length, int flags);
Result<void> SysMunlock(Task& task, Hex address, uint64_t length);
Result<void> SysMlockall(Task& task, int flags);
Result<void> SysMunlockall(Task& task);

Result<size_t> SysProcessVmReadv(Task& task, int pid, UserPtr<abi::Iovec> local, uint64_t local_count,
                                 UserPtr<abi::Iovec> remote, uint64_t remote_count, uint64_t flags);
Result<size_t> SysProcessVmWritev(Task& task, int pid, UserPtr<abi::Iovec> local, uint64_t local_count,
                                  UserPtr<abi::Iovec> remote, uint64_t remote_count, uint64_t flags);
Result<int> SysMembarrier(Task& task, int command, unsigned flags, int cpu);

Result<int> SysPkeyAlloc(Task& task, uint64_t flags, uint64_t initial);
Result<void> SysPkeyFree(Task& task, int key);
Result<void> SysPkeyMprotect(Task& task, Hex address, uint64_t length, MmapProt prot, int key);

Result<void> SysGetMempolicy(Task& task, UserPtr<int> mode, UserPtr<uint64_t> mask, uint64_t mask_bits, Hex address,
                             uint64_t flags);
Result<void> SysSetMempolicy(Task& task, int mode, UserPtr<uint64_t> mask, uint64_t mask_bits);
Result<void> SysMbind(Task& task, Hex address, uint64_t length, int mode, UserPtr<uint64_t> mask, uint64_t mask_bits,
                      unsigned flags);

}  // namespace caisson

#endif  // CAISSON_SYSCALLS_MMAP_H_
