#include "sentry/loader/elf.h"

#include <string.h>
#include <sys/mman.h>

#include <algorithm>

#include "sentry/mm/io_buffer.h"
#include "sentry/vfs/file.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace caisson {
namespace {

constexpr size_t kMostProgramHeaderBytes = 65536;
constexpr size_t kLongestInterpreter = 4096;

int ProtOf(const Elf64_Phdr& segment) {
  return ((segment.p_flags & PF_R) ? PROT_READ : 0) | ((segment.p_flags & PF_W) ? PROT_WRITE : 0) |
         ((segment.p_flags & PF_X) ? PROT_EXEC : 0);
}

bool IsPowerOfTwo(uint64_t v) { return v != 0 && (v & (v - 1)) == 0; }

// Linux's limits on a segment in memory.
bool IsSane(const Elf64_Phdr& segment, uint64_t top) {
  return segment.p_filesz <= segment.p_memsz && segment.p_memsz <= top && segment.p_vaddr <= top - segment.p_memsz &&
         segment.p_offset <= UINT64_MAX - segment.p_filesz - abi::kPageSize;
}

// The part of a segment that comes from the file, then zeros.
Result<void> MapSegment(MemoryManager& mm, const Elf64_Phdr& segment, uint64_t bias, const RefPtr<File>& file,
                        int fixed) {
  const MemoryLimits unlimited;
  const int prot = ProtOf(segment);
  const uint64_t address = bias + segment.p_vaddr;
  const uint64_t start = abi::PageRoundDown(address);
  const uint64_t in_page = address - start;
  const uint64_t file_end = address + segment.p_filesz;
  const uint64_t memory_end = address + segment.p_memsz;
  if (segment.p_filesz > 0) {
    MmapRequest request;
    request.address = start;
    request.length = segment.p_filesz + in_page;
    request.prot = prot;
    request.flags = MAP_PRIVATE | fixed;
    request.offset = segment.p_offset - in_page;
    if (segment.p_offset < in_page || !abi::IsPageAligned(request.offset)) return Errno(EINVAL);
    request.file = file;
    Result<void> prepared = file->PrepareMmap(request);
    if (!prepared.ok()) return Errno(prepared.error() == ENODEV ? ENOEXEC : prepared.error().code());
    TRY(mm.Mmap(request, unlimited));
  }
  if (memory_end == file_end) return {};
  uint64_t zero_start = abi::PageRoundUp(file_end);
  if (segment.p_filesz == 0) {
    zero_start = start;
  } else if (file_end < zero_start && (prot & PROT_WRITE)) {
    // The whole rest of the last page from the file, beyond memory_end too: ld.so allocates there and takes it for zeros, as
    // Linux (padzero) makes it. Beyond a file's end there is nothing to clear.
    mm.ZeroOut(file_end, zero_start - file_end).error_code();
  }
  const uint64_t zero_end = abi::PageRoundUp(memory_end);
  if (zero_start < zero_end) {
    MmapRequest request;
    request.address = zero_start;
    request.length = zero_end - zero_start;
    request.prot = prot;
    request.flags = MAP_PRIVATE | MAP_ANONYMOUS | fixed;
    TRY(mm.Mmap(request, unlimited));
  }
  return {};
}

}  // namespace

Result<size_t> ReadFileAt(Task& task, File& file, void* destination, size_t length, uint64_t offset) {
  if (offset > static_cast<uint64_t>(INT64_MAX) - length) return size_t{0};
  IoBuffer buffer(destination, length);
  while (buffer.remaining() > 0) {
    size_t before = buffer.remaining();
    size_t n = TRY(file.Pread(task, buffer, static_cast<int64_t>(offset + (length - before)), 0));
    if (n == 0 || buffer.remaining() == before) break;
  }
  return length - buffer.remaining();
}

Result<ElfImage> ReadElf(Task& task, File& file, std::span<const uint8_t> head) {
  ElfImage elf;
  if (head.size() < sizeof elf.header) return Errno(ENOEXEC);
  memcpy(&elf.header, head.data(), sizeof elf.header);
  const Elf64_Ehdr& h = elf.header;
  if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0) return Errno(ENOEXEC);
  if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_ident[EI_DATA] != ELFDATA2LSB) return Errno(ENOEXEC);
  if ((h.e_type != ET_EXEC && h.e_type != ET_DYN) || h.e_machine != EM_X86_64) return Errno(ENOEXEC);
  const size_t bytes = size_t{h.e_phnum} * sizeof(Elf64_Phdr);
  if (h.e_phentsize != sizeof(Elf64_Phdr) || bytes == 0 || bytes > kMostProgramHeaderBytes) return Errno(ENOEXEC);
  elf.segments.resize(h.e_phnum);
  Result<size_t> read = ReadFileAt(task, file, elf.segments.data(), bytes, h.e_phoff);
  if (!read.ok() || *read != bytes) return Errno(ENOEXEC);

  for (const Elf64_Phdr& segment : elf.segments) {
    if (segment.p_type == PT_GNU_STACK) elf.executable_stack = segment.p_flags & PF_X;
    if (segment.p_type != PT_INTERP || elf.interpreter) continue;
    if (segment.p_filesz < 2 || segment.p_filesz > kLongestInterpreter) return Errno(ENOEXEC);
    std::string path(segment.p_filesz, '\0');
    size_t got = TRY(ReadFileAt(task, file, path.data(), path.size(), segment.p_offset));
    if (got != path.size()) return Errno(EIO);
    if (path.back() != '\0') return Errno(ENOEXEC);
    path.resize(strlen(path.c_str()));
    elf.interpreter = std::move(path);
  }
  return elf;
}

Result<MappedElf> MapElf(MemoryManager& mm, const ElfImage& elf, const RefPtr<File>& file, uint64_t base,
                         Platform::Range user_range) {
  const uint64_t top = user_range.end;
  uint64_t low = UINT64_MAX, high = 0, alignment = abi::kPageSize;
  for (const Elf64_Phdr& segment : elf.segments) {
    if (segment.p_type != PT_LOAD || segment.p_memsz == 0) continue;
    if (!IsSane(segment, top)) return Errno(EINVAL);
    low = std::min(low, abi::PageRoundDown(segment.p_vaddr));
    high = std::max(high, abi::PageRoundUp(segment.p_vaddr + segment.p_memsz));
    if (IsPowerOfTwo(segment.p_align)) alignment = std::max(alignment, segment.p_align);
  }
  if (low >= high) return Errno(elf.IsDynamicObject() ? EINVAL : ENOEXEC);
  const uint64_t span = high - low;
  if (span > top || alignment > top) return Errno(ENOMEM);

  MappedElf mapped;
  int fixed = MAP_FIXED_NOREPLACE;
  if (elf.IsDynamicObject()) {
    // Room for all of it at once, so that nothing can lie between the segments; they then replace it piece by piece.
    const MemoryLimits unlimited;
    MmapRequest reserve;
    reserve.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    uint64_t start;
    if (base != 0) {
      start = (base + low) & ~(alignment - 1);
      reserve.address = start;
      reserve.flags |= MAP_FIXED_NOREPLACE;
      reserve.length = span;
      TRY(mm.Mmap(reserve, unlimited));
    } else {
      reserve.length = span + (alignment - abi::kPageSize);
      uint64_t found = TRY(mm.Mmap(reserve, unlimited));
      start = (found + alignment - 1) & ~(alignment - 1);
      if (found < start) TRY(mm.Munmap(found, start - found));
      uint64_t tail = found + reserve.length - (start + span);
      if (tail > 0) TRY(mm.Munmap(start + span, tail));
    }
    mapped.bias = start - low;
    fixed = MAP_FIXED;
  }

  uint64_t highest_file_end = 0;
  std::vector<std::pair<uint64_t, uint64_t>> pieces;
  mapped.start_code = UINT64_MAX;
  bool first = true;
  for (const Elf64_Phdr& segment : elf.segments) {
    if (segment.p_type != PT_LOAD || segment.p_memsz == 0) continue;
    // A fixed image must not land on what is there, but its own segments may share pages.
    TRY(MapSegment(mm, segment, mapped.bias, file, first ? fixed : MAP_FIXED));
    first = false;
    const uint64_t start = mapped.bias + segment.p_vaddr;
    const uint64_t end = start + segment.p_memsz;
    pieces.push_back({abi::PageRoundDown(start), abi::PageRoundUp(end)});
    const uint64_t file_end = start + segment.p_filesz;
    if (segment.p_offset <= elf.header.e_phoff && elf.header.e_phoff < segment.p_offset + segment.p_filesz) {
      mapped.phdr = start + (elf.header.e_phoff - segment.p_offset);
    }
    if (segment.p_flags & PF_X) {
      mapped.start_code = std::min(mapped.start_code, start);
      mapped.end_code = std::max(mapped.end_code, file_end);
    }
    mapped.start_data = std::max(mapped.start_data, start);
    highest_file_end = std::max(highest_file_end, file_end);
    mapped.end = std::max(mapped.end, end);
  }
  mapped.end_data = highest_file_end;
  if (mapped.start_code == UINT64_MAX) mapped.start_code = 0;
  if (elf.IsDynamicObject()) {
    // Gaps between segments do not stay reserved.
    std::sort(pieces.begin(), pieces.end());
    uint64_t position = mapped.bias + low;
    for (auto [start, end] : pieces) {
      if (position < start) TRY(mm.Munmap(position, start - position));
      position = std::max(position, end);
    }
  }
  mapped.entry = mapped.bias + elf.header.e_entry;
  if (mapped.entry >= top) return Errno(EINVAL);
  return mapped;
}

}  // namespace caisson
