#include "sentry/loader/loader.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <functional>
#include <map>
#include <string>

#include "sentry/loader/script.h"
#include "sentry/loader/vdso.h"
#include "sentry/mm/fake_platform.h"
#include "sentry/mm/mm_test_util.h"
#include "sentry/vfs/file.h"

namespace caisson {
namespace {

// A file that is a string, mapped page by page from the memory file.
class StringFile final : public File {
 public:
  StringFile(RefPtr<MemoryFile> memory, std::string bytes)
      : File(VfsPath(), O_RDONLY), bytes_(std::move(bytes)), pages_(MakeRef<FakeFile>(memory, bytes_.size())) {
    for (size_t i = 0; i < bytes_.size(); ++i) *pages_->Byte(i) = static_cast<uint8_t>(bytes_[i]);
  }
  Result<size_t> Pread(Task&, IoBuffer& to, int64_t offset, int) override {
    if (static_cast<uint64_t>(offset) >= bytes_.size()) return size_t{0};
    return to.CopyOut(bytes_.data() + offset, std::min(to.remaining(), bytes_.size() - offset));
  }
  Result<void> PrepareMmap(MmapRequest& request) override {
    request.mappable = pages_;
    return {};
  }

 private:
  std::string bytes_;
  RefPtr<FakeFile> pages_;
};

template <typename T>
void Append(std::string& to, const T& value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

struct ElfBuilder {
  Elf64_Ehdr header{};
  std::vector<Elf64_Phdr> segments;
  size_t file_bytes = 0x3000;

  ElfBuilder() {
    memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_entry = 0x401000;
    header.e_phoff = sizeof header;
    header.e_ehsize = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    Load(0, 0x400000, 0x1000, 0x1000, PF_R);
    Load(0x1000, 0x401000, 0x800, 0x800, PF_R | PF_X);
    Load(0x2000, 0x402000, 0x10, 0x3000, PF_R | PF_W);
  }
  void Load(uint64_t offset, uint64_t address, uint64_t filesz, uint64_t memsz, uint32_t flags) {
    segments.push_back({PT_LOAD, flags, offset, address, address, filesz, memsz, 0x1000});
  }
  std::string Build(const std::string& interpreter = "") const {
    Elf64_Ehdr h = header;
    std::vector<Elf64_Phdr> all = segments;
    if (!interpreter.empty()) {
      all.push_back({PT_INTERP, PF_R, 0x900, 0x400900, 0x400900, interpreter.size() + 1, interpreter.size() + 1, 1});
    }
    if (h.e_phnum == 0) h.e_phnum = all.size();
    std::string out;
    Append(out, h);
    for (const Elf64_Phdr& s : all) Append(out, s);
    out.resize(file_bytes, '\x7a');
    if (!interpreter.empty()) out.replace(0x900, interpreter.size() + 1, std::string(interpreter.c_str(), interpreter.size() + 1));
    return out;
  }
};

class LoaderTest : public MmTest {
 protected:
  Result<ExecImage> Run(const std::string& path, std::vector<std::string> argv, bool randomize = false,
                        RefPtr<Vdso> vdso = nullptr) {
    LoadRequest request{.task = *reinterpret_cast<Task*>(task_),
                        .platform = platform_,
                        .memory_file = memory_,
                        .vdso = std::move(vdso),
                        .executable = files_.at(path),
                        .filename = path,
                        .argv = std::move(argv),
                        .envp = {"HOME=/", "A=b"},
                        .limits = limits_,
                        .randomize = randomize};
    request.open_executable = [this](const std::string& name) -> Result<RefPtr<File>> {
      auto it = files_.find(name);
      if (it == files_.end()) return Errno(ENOENT);
      return it->second;
    };
    request.prepare_identity = [](File&) -> Result<LoadRequest::Identity> {
      return LoadRequest::Identity{.uid = 1, .euid = 2, .gid = 3, .egid = 4, .secure = true};
    };
    request.random = [this](void* to, size_t length) {
      for (size_t i = 0; i < length; ++i) static_cast<uint8_t*>(to)[i] = static_cast<uint8_t>(++random_ * 37);
    };
    return LoadProgram(std::move(request));
  }
  int Errno_(const std::string& path) { return Run(path, {"x"}).error_code(); }
  void Add(const std::string& path, std::string bytes) { files_[path] = MakeRef<StringFile>(memory_, std::move(bytes)); }
  void TearDown() override {
    files_.clear();
    MmTest::TearDown();
  }
  uint64_t Word(MemoryManager& mm, uint64_t address) {
    uint64_t word = 0;
    EXPECT_EQ(mm.CopyIn(address, &word, 8).value_or(0), 8u);
    return word;
  }
  // argv strings off the new stack.
  std::vector<std::string> Args(const ExecImage& image) {
    std::vector<std::string> args;
    uint64_t argc = Word(*image.mm, image.stack_pointer);
    for (uint64_t i = 0; i < argc && i < 100; ++i) {
      args.push_back(image.mm->CopyInString(Word(*image.mm, image.stack_pointer + 8 + 8 * i), 1000).value());
    }
    return args;
  }
  std::map<uint64_t, uint64_t> Auxv(const ExecImage& image) {
    uint64_t position = image.stack_pointer + 8 + 8 * (Word(*image.mm, image.stack_pointer) + 1);
    while (Word(*image.mm, position) != 0) position += 8;
    std::map<uint64_t, uint64_t> auxv;
    for (position += 8; Word(*image.mm, position) != AT_NULL; position += 16) {
      auxv[Word(*image.mm, position)] = Word(*image.mm, position + 8);
    }
    return auxv;
  }

  std::map<std::string, RefPtr<File>> files_;
  alignas(64) char task_[64] = {};  // Never looked into.
  int random_ = 0;
};

TEST_F(LoaderTest, StaticProgram) {
  Add("/bin/prog", ElfBuilder().Build());
  ExecImage image = Run("/bin/prog", {"prog", "", "two words"}).value();
  EXPECT_EQ(image.entry, 0x401000u);
  EXPECT_EQ(image.comm, "prog");
  EXPECT_EQ(image.stack_pointer % 16, 0u);
  EXPECT_EQ(Args(image), (std::vector<std::string>{"prog", "", "two words"}));
  EXPECT_EQ(Word(*image.mm, 0x401000), 0x7a7a7a7a7a7a7a7au);
  EXPECT_EQ(Word(*image.mm, 0x402008), 0x7a7a7a7a7a7a7a7au);
  EXPECT_EQ(Word(*image.mm, 0x402010), 0u);  // bss in the file's last page,
  EXPECT_EQ(Word(*image.mm, 0x404ff8), 0u);  // and behind it.
  uint64_t word = 1;
  EXPECT_FALSE(image.mm->CopyOut(0x401000, &word, 8).ok());
  EXPECT_TRUE(image.mm->CopyOut(0x404ff8, &word, 8).ok());
  auto auxv = Auxv(image);
  EXPECT_EQ(auxv[AT_PHDR], 0x400040u);
  EXPECT_EQ(auxv[AT_PHNUM], 3u);
  EXPECT_EQ(auxv[AT_ENTRY], 0x401000u);
  EXPECT_EQ(auxv[AT_BASE], 0u);
  EXPECT_EQ(auxv[AT_EUID], 2u);
  EXPECT_EQ(auxv[AT_SECURE], 1u);
  EXPECT_EQ(auxv[AT_HWCAP], getauxval(AT_HWCAP));
  EXPECT_EQ(image.mm->CopyInString(auxv[AT_PLATFORM], 10).value(), "x86_64");
  EXPECT_EQ(image.mm->CopyInString(auxv[AT_EXECFN], 20).value(), "/bin/prog");
  auto layout = image.mm->layout();
  EXPECT_EQ(layout.start_brk, 0x405000u);
  EXPECT_EQ(image.mm->CopyInString(layout.arg_start, 10).value(), "prog");
  EXPECT_EQ(image.mm->CopyInString(layout.env_start, 10).value(), "HOME=/");
  EXPECT_EQ(image.mm->Brk(0x406001, limits_).value(), 0x406001u);
  std::string names;
  for (const auto& vma : image.mm->Vmas(false)) names += vma.name;
  EXPECT_EQ(names, "[heap][stack]");
  Registers regs = InitialRegisters(image);
  EXPECT_EQ(regs.rip, image.entry);
  EXPECT_EQ(regs.rsp, image.stack_pointer);
}

TEST_F(LoaderTest, DynamicProgramWithInterpreter) {
  ElfBuilder program, linker;
  program.header.e_type = linker.header.e_type = ET_DYN;
  for (auto* elf : {&program, &linker}) {
    elf->header.e_entry = 0x1010;
    for (auto& s : elf->segments) s.p_vaddr -= 0x400000;
  }
  Add("/bin/prog", program.Build("/lib/ld.so"));
  Add("/lib/ld.so", linker.Build());
  ExecImage image = Run("/bin/prog", {"prog"}).value();
  auto auxv = Auxv(image);
  EXPECT_NE(auxv[AT_BASE], 0u);
  EXPECT_EQ(image.entry, auxv[AT_BASE] + 0x1010);
  EXPECT_EQ(auxv[AT_ENTRY] % 0x1000, 0x10u);
  EXPECT_EQ(auxv[AT_PHDR], auxv[AT_ENTRY] - 0x1010 + 0x40);
  // ASLR moves everything.
  ExecImage again = Run("/bin/prog", {"prog"}, true).value();
  auto other = Auxv(again);
  EXPECT_NE(other[AT_BASE], auxv[AT_BASE]);
  EXPECT_NE(other[AT_ENTRY], auxv[AT_ENTRY]);
  EXPECT_NE(again.stack_pointer, image.stack_pointer);
}

TEST_F(LoaderTest, InterpreterErrors) {
  ElfBuilder program;
  Add("/bin/none", program.Build("/lib/none"));
  EXPECT_EQ(Errno_("/bin/none"), ENOENT);
  Add("/bin/bad", program.Build("/lib/bad"));
  Add("/lib/bad", std::string(4096, 'x'));
  EXPECT_EQ(Errno_("/bin/bad"), ELIBBAD);
  Add("/bin/short", program.Build("/lib/short"));
  Add("/lib/short", "\x7f" "ELF");
  EXPECT_EQ(Errno_("/bin/short"), EIO);
}

TEST_F(LoaderTest, Scripts) {
  Add("/bin/prog", ElfBuilder().Build());
  Add("/s", "#! /bin/prog  -x y \t\nrest");
  EXPECT_EQ(Args(Run("/s", {"zero", "one"}).value()),
            (std::vector<std::string>{"/bin/prog", "-x y", "/s", "one"}));
  EXPECT_EQ(Run("/s", {"zero"}).value().comm, "s");
  Add("/s1", "#!/s");
  EXPECT_EQ(Args(Run("/s1", {"a"}).value()), (std::vector<std::string>{"/bin/prog", "-x y", "/s", "/s1"}));
  std::string previous = "/bin/prog";
  for (int i = 0; i < 6; ++i) {
    std::string name = "/deep" + std::to_string(i);
    Add(name, "#!" + previous + "\n");
    previous = name;
  }
  EXPECT_TRUE(Run("/deep4", {"a"}).ok());
  EXPECT_EQ(Errno_("/deep5"), ELOOP);
  Add("/empty", "#!\n");
  EXPECT_EQ(Errno_("/empty"), ENOEXEC);
  Add("/blank", "#!   \n");
  EXPECT_EQ(Errno_("/blank"), ENOEXEC);
  Add("/missing", "#!/none\n");
  EXPECT_EQ(Errno_("/missing"), ENOENT);
  Add("/long", "#!/" + std::string(300, 'a') + "\n");
  EXPECT_EQ(Errno_("/long"), ENOEXEC);
  Add("/longarg", "#!/bin/prog " + std::string(300, 'a') + "\n");
  EXPECT_EQ(Args(Run("/longarg", {"a"}).value())[1].size(), 256u - 12);
}

TEST_F(LoaderTest, NotPrograms) {
  Add("/nothing", "");
  EXPECT_EQ(Errno_("/nothing"), ENOEXEC);
  Add("/text", "hello, world");
  EXPECT_EQ(Errno_("/text"), ENOEXEC);
  for (auto [name, spoil] : std::map<std::string, std::function<void(ElfBuilder&)>>{
           {"class", [](ElfBuilder& e) { e.header.e_ident[EI_CLASS] = ELFCLASS32; }},
           {"order", [](ElfBuilder& e) { e.header.e_ident[EI_DATA] = ELFDATA2MSB; }},
           {"machine", [](ElfBuilder& e) { e.header.e_machine = EM_AARCH64; }},
           {"type", [](ElfBuilder& e) { e.header.e_type = ET_REL; }},
           {"phentsize", [](ElfBuilder& e) { e.header.e_phentsize = 55; }},
           {"phnum", [](ElfBuilder& e) { e.header.e_phnum = 65535; }},
           {"phoff", [](ElfBuilder& e) { e.header.e_phoff = UINT64_MAX - 8; }},
           {"phoff2", [](ElfBuilder& e) { e.header.e_phoff = 1 << 20; }},
       }) {
    ElfBuilder elf;
    spoil(elf);
    Add("/" + name, elf.Build());
    EXPECT_EQ(Errno_("/" + name), ENOEXEC) << name;
  }
}

TEST_F(LoaderTest, HostileSegments) {
  for (auto [name, spoil] : std::map<std::string, std::function<void(ElfBuilder&)>>{
           {"filesz over memsz", [](ElfBuilder& e) { e.segments[1].p_filesz = 0x10000; }},
           {"memsz", [](ElfBuilder& e) { e.segments[2].p_memsz = UINT64_MAX; }},
           {"memsz2", [](ElfBuilder& e) { e.segments[2].p_memsz = UINT64_MAX - 0x402000; }},
           {"vaddr", [](ElfBuilder& e) { e.segments[1].p_vaddr = UINT64_MAX - 0xfff; }},
           {"kernel", [](ElfBuilder& e) { e.segments[1].p_vaddr = 0xffff800000000000; }},
           {"offset", [](ElfBuilder& e) { e.segments[1].p_offset = UINT64_MAX; }},
           {"misaligned", [](ElfBuilder& e) { e.segments[1].p_offset = 0x1010; }},
           {"null", [](ElfBuilder& e) { e.segments[0].p_vaddr = 0; }},
           {"none", [](ElfBuilder& e) { e.segments.clear(); e.segments.resize(1); }},
           {"align", [](ElfBuilder& e) {
              e.header.e_type = ET_DYN;
              e.segments[0].p_align = uint64_t{1} << 63;
            }},
       }) {
    ElfBuilder elf;
    spoil(elf);
    Add("/x", elf.Build());
    Result<ExecImage> result = Run("/x", {"x"});
    EXPECT_FALSE(result.ok()) << name;
  }
  // Segments over each other, or an entry into nowhere, hurt nobody but the program.
  ElfBuilder overlap;
  overlap.segments[2].p_vaddr = 0x401000;
  overlap.header.e_entry = 0x123456;
  Add("/x", overlap.Build());
  EXPECT_TRUE(Run("/x", {"x"}).ok());
}

TEST_F(LoaderTest, ArgumentLimits) {
  Add("/bin/prog", ElfBuilder().Build());
  EXPECT_EQ(MaxArgumentBytes(8 << 20), 2u << 20);
  EXPECT_EQ(MaxArgumentBytes(RLIM_INFINITY), 6u << 20);
  EXPECT_EQ(MaxArgumentBytes(0), 128u << 10);
  EXPECT_TRUE(Run("/bin/prog", {"x", std::string(kMaxArgumentString - 1, 'a')}).ok());
  EXPECT_EQ(Run("/bin/prog", {"x", std::string(kMaxArgumentString, 'a')}).error_code(), E2BIG);
  EXPECT_EQ(Run("/bin/prog", std::vector<std::string>(20, std::string(120000, 'a'))).error_code(), E2BIG);
  EXPECT_EQ(Run("/bin/prog", std::vector<std::string>(300000)).error_code(), E2BIG);
  EXPECT_TRUE(Run("/bin/prog", std::vector<std::string>(100000)).ok());
  EXPECT_EQ(Args(Run("/bin/prog", {}).value()), std::vector<std::string>{""});
}

TEST_F(LoaderTest, RandomBytesNeverBreakIt) {
  const std::string good = ElfBuilder().Build("/lib/ld.so");
  Add("/lib/ld.so", ElfBuilder().Build());
  uint32_t seed = 12345;
  for (int i = 0; i < 1000; ++i) {
    std::string bytes = good.substr(0, 0x1000);
    for (int change = 0; change < 1 + i % 4; ++change) {
      seed = seed * 1103515245 + 12345;
      bytes[(seed >> 8) % 300] = static_cast<char>(seed >> 20);
    }
    Add("/x", bytes);
    Run("/x", {"x"}).ok();
  }
}

// The vDSO's code runs in this process as well as in a guest.
class VdsoTest : public MmTest {};

TEST_F(VdsoTest, TellsTheTimeAsTheHostDoes) {
  RefPtr<Vdso> vdso = Vdso::New(memory_, 2).value();
  uint64_t base = vdso->MapInto(*mm_, 0).value();
  // Put what the guest would see where this process can run it.
  uint8_t image[4096];
  ASSERT_EQ(mm_->CopyIn(base, image, sizeof image).value(), sizeof image);
  EXPECT_EQ(memcmp(image, ELFMAG, SELFMAG), 0);
  char byte = 0;
  EXPECT_FALSE(mm_->CopyOut(base - kPage, &byte, 1).ok());
  EXPECT_FALSE(mm_->CopyOut(base, &byte, 1).ok());
  EXPECT_EQ(mm_->Mprotect(base - kPage, kPage, PROT_READ | PROT_WRITE, false, false).error_code(), EACCES);

  void* room = mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  auto* code = static_cast<uint8_t*>(room) + kPage;
  memcpy(code, image, sizeof image);
  ASSERT_EQ(mprotect(code, kPage, PROT_READ | PROT_EXEC), 0);
  auto* header = reinterpret_cast<Elf64_Ehdr*>(code);
  auto* segments = reinterpret_cast<Elf64_Phdr*>(code + header->e_phoff);
  const Elf64_Sym* symbols = nullptr;
  const char* names = nullptr;
  const uint32_t* hash = nullptr;
  for (int i = 0; i < header->e_phnum; ++i) {
    if (segments[i].p_type != PT_DYNAMIC) continue;
    for (auto* d = reinterpret_cast<Elf64_Dyn*>(code + segments[i].p_vaddr); d->d_tag != DT_NULL; ++d) {
      if (d->d_tag == DT_SYMTAB) symbols = reinterpret_cast<Elf64_Sym*>(code + d->d_un.d_ptr);
      if (d->d_tag == DT_STRTAB) names = reinterpret_cast<char*>(code + d->d_un.d_ptr);
      if (d->d_tag == DT_HASH) hash = reinterpret_cast<uint32_t*>(code + d->d_un.d_ptr);
    }
  }
  ASSERT_TRUE(symbols && names && hash);
  std::map<std::string, void*> found;
  for (uint32_t i = 0; i < hash[1]; ++i) {
    if (symbols[i].st_shndx != SHN_UNDEF) found[names + symbols[i].st_name] = code + symbols[i].st_value;
  }
  auto gettime = reinterpret_cast<int (*)(int, timespec*)>(found["__vdso_clock_gettime"]);
  auto getcpu = reinterpret_cast<long (*)(unsigned*, unsigned*, void*)>(found["__vdso_getcpu"]);
  ASSERT_TRUE(gettime && getcpu && found["__vdso_gettimeofday"] && found["__vdso_time"] && found["__vdso_clock_getres"]);
  EXPECT_EQ(found["__caisson_rt_sigreturn"], code + (vdso->SigreturnAddress(base) - base));

  auto refresh = [&] {
    vdso->Refresh();
    ASSERT_EQ(mm_->CopyIn(base - kPage, room, kPage).value(), kPage);
  };
  unsigned cpu = 999, node = 999;
  EXPECT_EQ(getcpu(&cpu, &node, nullptr), 0);
  EXPECT_EQ(node, 0u);
  EXPECT_LT(cpu, 2u);
  int64_t last = 0, last_sentry = 0, worst = 0;
  int64_t start = vdso->MonotonicNow();
  while (vdso->MonotonicNow() - start < 300'000'000) {
    refresh();
    for (int i = 0; i < 1000; ++i) {
      timespec host_before, guest, host_after;
      clock_gettime(CLOCK_MONOTONIC, &host_before);
      ASSERT_EQ(gettime(CLOCK_MONOTONIC, &guest), 0);
      clock_gettime(CLOCK_MONOTONIC, &host_after);
      int64_t now = abi::ToNanos(guest);
      ASSERT_GE(now, last);
      last = now;
      worst = std::max({worst, abi::ToNanos(host_before) - now, now - abi::ToNanos(host_after)});
      int64_t sentry = vdso->MonotonicNow();
      ASSERT_GE(sentry, last_sentry);
      last_sentry = sentry;
    }
  }
  EXPECT_LT(worst, 100'000) << "nanoseconds off the host's clock";
  timespec guest, host;
  ASSERT_EQ(gettime(CLOCK_REALTIME, &guest), 0);
  clock_gettime(CLOCK_REALTIME, &host);
  EXPECT_LT(std::abs(abi::ToNanos(host) - abi::ToNanos(guest)), 10'000'000);
  RecordProperty("worst_ns", static_cast<int>(worst));
  printf("worst difference %ld ns\n", worst);
  munmap(room, 2 * kPage);
}

}  // namespace
}  // namespace caisson
