#include "sentry/loader/loader.h"

#include <elf.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>

#include "sentry/loader/elf.h"
#include "sentry/loader/script.h"
#include "sentry/loader/stack_image.h"
#include "sentry/loader/vdso.h"
#include "sentry/vfs/file.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

namespace caisson {
namespace {

constexpr int kMostScripts = 5;  // Linux's depth of rewriting.
constexpr uint64_t kClockTicks = 100;
constexpr uint64_t kInitialStack = 128 << 10;  // Below the arguments.
// Bits of randomness in pages, as Linux has them on x86-64.
constexpr uint64_t kMmapRandomPages = uint64_t{1} << 28;
constexpr uint64_t kStackRandomPages = uint64_t{1} << 22;
constexpr uint64_t kBrkRandomBytes = 32 << 20;

class Randomizer {
 public:
  explicit Randomizer(const LoadRequest& request) : request_(request) {}
  // A number below `bound`; 0 without ASLR.
  uint64_t Below(uint64_t bound) {
    if (!request_.randomize || !request_.random) return 0;
    uint64_t value = 0;
    request_.random(&value, sizeof value);
    return value % bound;
  }

 private:
  const LoadRequest& request_;
};

Result<void> CheckArguments(const LoadRequest& request) {
  uint64_t bytes = (request.argv.size() + request.envp.size()) * 8 + request.filename.size() + 1;
  for (const auto* strings : {&request.argv, &request.envp}) {
    for (const std::string& s : *strings) {
      if (s.size() + 1 > kMaxArgumentString) return Errno(E2BIG);
      bytes += s.size() + 1;
    }
  }
  if (bytes > MaxArgumentBytes(request.limits.stack)) return Errno(E2BIG);
  return {};
}

Result<std::vector<uint8_t>> ReadHead(Task& task, File& file) {
  std::vector<uint8_t> head(kProgramHeadBytes);
  head.resize(TRY(ReadFileAt(task, file, head.data(), head.size(), 0)));
  return head;
}

// Follows `#!` lines to a real program; rewrites request.executable and request.argv. Returns its first bytes.
Result<std::vector<uint8_t>> ResolveScripts(LoadRequest& request) {
  std::string script = request.filename;
  for (int depth = 0;; ++depth) {
    if (depth > kMostScripts) return Errno(ELOOP);
    std::vector<uint8_t> head = TRY(ReadHead(request.task, *request.executable));
    if (head.size() < 2 || head[0] != '#' || head[1] != '!') return head;
    ScriptLine line = TRY(ParseScriptLine(head));
    if (request.filename_inaccessible && depth == 0) return Errno(ENOENT);
    std::vector<std::string> argv{line.interpreter};
    if (line.argument) argv.push_back(*line.argument);
    argv.push_back(script);
    argv.insert(argv.end(), std::make_move_iterator(request.argv.begin() + 1),
                std::make_move_iterator(request.argv.end()));
    request.argv = std::move(argv);
    TRY(CheckArguments(request));
    request.executable = TRY(request.open_executable(line.interpreter));
    script = line.interpreter;
  }
}

std::string CommOf(const std::string& filename) {
  std::string base = filename.substr(filename.find_last_of('/') + 1);
  return base.substr(0, 15);
}

struct Placement {
  uint64_t stack_top = 0;
  uint64_t mmap_base = 0;
};

// Linux's arch_pick_mmap_layout() and the stack's random offset.
Placement PlaceAreas(const LoadRequest& request, Platform::Range user_range, Randomizer& randomizer) {
  Placement placement;
  placement.stack_top = user_range.end - randomizer.Below(kStackRandomPages) * abi::kPageSize;
  const uint64_t size = user_range.end;
  uint64_t gap = std::clamp<uint64_t>(request.limits.stack, 128 << 20, size / 6 * 5);
  uint64_t pad = (request.randomize ? kStackRandomPages * abi::kPageSize : 0) + 256 * abi::kPageSize;
  if (gap + pad > gap) gap += pad;
  gap = std::min(gap, size / 6 * 5);
  placement.mmap_base =
      abi::PageRoundDown(user_range.end - gap - randomizer.Below(kMmapRandomPages) * abi::kPageSize);
  return placement;
}

struct LoadedElf {
  MappedElf program;
  uint64_t entry = 0;
  uint64_t interpreter_base = 0;
};

Result<LoadedElf> LoadElf(LoadRequest& request, MemoryManager& mm, const ElfImage& elf, const ElfImage* interpreter,
                          const RefPtr<File>& interpreter_file, Randomizer& randomizer) {
  const Platform::Range user_range = request.platform.user_range();
  uint64_t base = 0;
  // A program with an interpreter lies at two thirds of the address space; without one (static-pie, or the dynamic
  // linker run by hand) it goes where mmap would put it, away from what it loads.
  if (elf.IsDynamicObject() && interpreter != nullptr) {
    base = abi::PageRoundDown(user_range.end / 3 * 2) + randomizer.Below(kMmapRandomPages) * abi::kPageSize;
  }
  LoadedElf loaded;
  loaded.program = TRY(MapElf(mm, elf, request.executable, base, user_range));
  loaded.entry = loaded.program.entry;
  if (interpreter != nullptr) {
    MappedElf mapped = TRY(MapElf(mm, *interpreter, interpreter_file, 0, user_range));
    loaded.entry = mapped.entry;
    loaded.interpreter_base = mapped.bias;
  }
  return loaded;
}

}  // namespace

uint64_t MaxArgumentBytes(uint64_t stack_limit) {
  return std::max<uint64_t>(std::min<uint64_t>(stack_limit / 4, 6 << 20), 128 << 10);
}

Result<ExecImage> LoadProgram(LoadRequest request) {
  if (request.argv.empty()) request.argv.emplace_back();  // Linux 5.18 and later: argv[0] is always there.
  TRY(CheckArguments(request));
  const std::vector<uint8_t> head = TRY(ResolveScripts(request));
  const ElfImage elf = TRY(ReadElf(request.task, *request.executable, head));

  RefPtr<File> interpreter_file;
  ElfImage interpreter;
  if (elf.interpreter) {
    interpreter_file = TRY(request.open_executable(*elf.interpreter));
    std::vector<uint8_t> interpreter_head = TRY(ReadHead(request.task, *interpreter_file));
    if (interpreter_head.size() < sizeof(Elf64_Ehdr)) return Errno(EIO);
    Result<ElfImage> read = ReadElf(request.task, *interpreter_file, interpreter_head);
    if (!read.ok()) return Errno(ELIBBAD);
    interpreter = std::move(read).value();
  }
  LoadRequest::Identity identity;
  if (request.prepare_identity) identity = TRY(request.prepare_identity(*request.executable));

  RefPtr<MemoryManager> mm = TRY(MemoryManager::New(request.platform, request.memory_file));
  Randomizer randomizer(request);
  const Platform::Range user_range = request.platform.user_range();
  const Placement placement = PlaceAreas(request, user_range, randomizer);
  MemoryManager::Layout layout;
  layout.mmap_base = placement.mmap_base;
  mm->SetLayout(layout);

  // The stack first: programs at fixed addresses must not take its place.
  StackImageRequest stack{.top = placement.stack_top,
                          .padding = randomizer.Below(8192),
                          .argv = request.argv,
                          .envp = request.envp,
                          .filename = request.filename};
  uint64_t stack_bytes = kInitialStack + abi::kPageSize * 4 + (request.argv.size() + request.envp.size()) * 8 +
                         request.filename.size();
  for (const auto* strings : {&request.argv, &request.envp}) {
    for (const std::string& s : *strings) stack_bytes += s.size() + 1;
  }
  stack_bytes = abi::PageRoundUp(stack_bytes);
  MmapRequest stack_map;
  stack_map.address = placement.stack_top - stack_bytes;
  stack_map.length = stack_bytes;
  stack_map.prot = PROT_READ | PROT_WRITE | (elf.executable_stack ? PROT_EXEC : 0);
  stack_map.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED;
  TRY(mm->Mmap(stack_map, request.limits));

  const LoadedElf loaded =
      TRY(LoadElf(request, *mm, elf, elf.interpreter ? &interpreter : nullptr, interpreter_file, randomizer));
  uint64_t vdso = 0;
  if (request.vdso) vdso = TRY(request.vdso->MapInto(*mm, 0));

  std::vector<uint64_t>& auxv = stack.auxv;
  auto add = [&auxv](uint64_t type, uint64_t value) {
    auxv.push_back(type);
    auxv.push_back(value);
  };
  if (vdso != 0) add(AT_SYSINFO_EHDR, vdso);
  if (uint64_t bytes = getauxval(AT_MINSIGSTKSZ); bytes != 0) add(AT_MINSIGSTKSZ, bytes);
  add(AT_HWCAP, getauxval(AT_HWCAP));
  add(AT_PAGESZ, abi::kPageSize);
  add(AT_CLKTCK, kClockTicks);
  add(AT_PHDR, loaded.program.phdr);
  add(AT_PHENT, sizeof(Elf64_Phdr));
  add(AT_PHNUM, elf.header.e_phnum);
  add(AT_BASE, loaded.interpreter_base);
  add(AT_FLAGS, 0);
  add(AT_ENTRY, loaded.program.entry);
  add(AT_UID, identity.uid);
  add(AT_EUID, identity.euid);
  add(AT_GID, identity.gid);
  add(AT_EGID, identity.egid);
  add(AT_SECURE, identity.secure);
  add(AT_RANDOM, 0);
  add(AT_HWCAP2, getauxval(AT_HWCAP2));
  add(AT_EXECFN, 0);
  add(AT_PLATFORM, 0);
  if (request.random) request.random(stack.random.data(), stack.random.size());
  StackImage image = BuildStackImage(stack);
  Result<size_t> copied = mm->CopyOut(image.stack_pointer, image.bytes.data(), image.bytes.size());
  if (!copied.ok() || *copied != image.bytes.size()) return Errno(ENOMEM);

  layout.start_code = loaded.program.start_code;
  layout.end_code = loaded.program.end_code;
  layout.start_data = loaded.program.start_data;
  layout.end_data = loaded.program.end_data;
  uint64_t brk = abi::PageRoundUp(loaded.program.end);
  if (request.randomize) {
    // A static-pie's break goes where programs usually lie, not into the area of mmap.
    if (elf.IsDynamicObject() && !elf.interpreter) brk = abi::PageRoundDown(user_range.end / 3 * 2);
    brk = abi::PageRoundUp(brk + randomizer.Below(kBrkRandomBytes));
  }
  layout.start_brk = layout.brk = brk;
  layout.start_stack = image.stack_pointer;
  layout.arg_start = image.arg_start;
  layout.arg_end = image.arg_end;
  layout.env_start = image.env_start;
  layout.env_end = image.env_end;
  layout.vdso = vdso;
  mm->SetLayout(layout);
  mm->SetAuxv(std::move(image.auxv));
  mm->SetExecutable(request.executable);

  ExecImage result;
  result.mm = std::move(mm);
  result.entry = loaded.entry;
  result.stack_pointer = image.stack_pointer;
  result.comm = CommOf(request.filename);
  result.executable = std::move(request.executable);
  return result;
}

Registers InitialRegisters(const ExecImage& image) {
  Registers regs{};
  regs.rip = image.entry;
  regs.rsp = image.stack_pointer;
  regs.eflags = kEflagsFixed;
  regs.cs = kUserCodeSegment;
  regs.ss = kUserDataSegment;
  regs.orig_rax = ~uint64_t{0};
  return regs;
}

}  // namespace caisson
