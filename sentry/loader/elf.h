// ELF64 programs: reading their headers and mapping their segments. Everything in them is hostile.
#ifndef CAISSON_SENTRY_LOADER_ELF_H_
#define CAISSON_SENTRY_LOADER_ELF_H_

#include <elf.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "platform/platform.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/mm/memory_manager.h"

namespace caisson {

class File;
class Task;

// Reads up to `length` bytes at `offset`; fewer at the end of the file.
Result<size_t> ReadFileAt(Task& task, File& file, void* destination, size_t length, uint64_t offset);

struct ElfImage {
  Elf64_Ehdr header{};
  std::vector<Elf64_Phdr> segments;        // All program headers.
  std::optional<std::string> interpreter;  // PT_INTERP
  bool executable_stack = false;           // PT_GNU_STACK with PF_X

  bool IsDynamicObject() const { return header.e_type == ET_DYN; }
};

// A file's header block (zero-filled when the file is shorter). ENOEXEC: not a program for this machine, malformed.
Result<ElfImage> ReadElf(Task& task, File& file, std::span<const uint8_t> head);

// Where an image came to lie.
struct MappedElf {
  uint64_t bias = 0;   // Added to the addresses in the file.
  uint64_t entry = 0;
  uint64_t phdr = 0;   // Of the program headers in memory; 0: they are not mapped.
  uint64_t start_code = 0, end_code = 0, start_data = 0, end_data = 0;
  uint64_t end = 0;    // Of the last segment (the break starts there).
};

// Maps all PT_LOAD segments into `mm`. `base`: where an ET_DYN image is put (0: where mmap finds room). EINVAL or ENOMEM:
// segments that overlap what is there, overflow, or lie outside of `user_range`.
Result<MappedElf> MapElf(MemoryManager& mm, const ElfImage& elf, const RefPtr<File>& file, uint64_t base,
                         Platform::Range user_range);

}  // namespace caisson

#endif  // CAISSON_SENTRY_LOADER_ELF_H_
