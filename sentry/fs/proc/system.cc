// The files of /proc that are not about a process.
#include <cpuid.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstring>

#include "sentry/fs/proc/internal.h"
#include "sentry/kernel/posix_mq.h"
#include "sentry/kernel/proc_info.h"
#include "sentry/kernel/sysv_ipc.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/time/timers.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson::proc {
namespace {

constexpr unsigned char kKernelConfig[] = {
#include "sentry/fs/proc/kernel_config.inc"
};

struct CpuFacts {
  std::string vendor, model_name, flags;
  unsigned family = 0, model = 0, stepping = 0, physical_bits = 46, virtual_bits = 48, clflush = 64;
};

// CPUID as the guest executes it itself; nothing of the host's /proc is shown.
CpuFacts ReadCpu() {
  CpuFacts facts;
  unsigned a, b, c, d;
  char text[49] = {};
  if (__get_cpuid(0, &a, &b, &c, &d)) {
    memcpy(text, &b, 4);
    memcpy(text + 4, &d, 4);
    memcpy(text + 8, &c, 4);
    facts.vendor = std::string(text, 12);
  }
  unsigned features_c = 0, features_d = 0;
  if (__get_cpuid(1, &a, &b, &features_c, &features_d)) {
    facts.stepping = a & 15;
    facts.family = (a >> 8 & 15) + ((a >> 8 & 15) == 15 ? a >> 20 & 255 : 0);
    facts.model = (a >> 4 & 15) | ((a >> 16 & 15) << 4);
    facts.clflush = (b >> 8 & 255) * 8;
  }
  unsigned extended = 0;
  __get_cpuid(0x80000000, &extended, &b, &c, &d);
  if (extended >= 0x80000004) {
    for (unsigned i = 0; i < 3; ++i) {
      unsigned words[4];
      __get_cpuid(0x80000002 + i, &words[0], &words[1], &words[2], &words[3]);
      memcpy(text + 16 * i, words, 16);
    }
    facts.model_name = text;
  }
  if (extended >= 0x80000008 && __get_cpuid(0x80000008, &a, &b, &c, &d)) {
    facts.physical_bits = a & 255;
    facts.virtual_bits = a >> 8 & 255;
  }
  struct Name {
    int bit;
    const char* name;
  };
  auto add = [&](unsigned word, std::initializer_list<Name> names) {
    for (const Name& n : names) {
      if (word >> n.bit & 1) facts.flags += (facts.flags.empty() ? "" : " ") + std::string(n.name);
    }
  };
  add(features_d, {{0, "fpu"}, {1, "vme"}, {2, "de"}, {3, "pse"}, {4, "tsc"}, {5, "msr"}, {6, "pae"}, {7, "mce"}, {8, "cx8"},
                   {9, "apic"}, {11, "sep"}, {12, "mtrr"}, {13, "pge"}, {14, "mca"}, {15, "cmov"}, {16, "pat"}, {17, "pse36"},
                   {19, "clflush"}, {23, "mmx"}, {24, "fxsr"}, {25, "sse"}, {26, "sse2"}, {27, "ss"}, {28, "ht"}});
  if (extended >= 0x80000001 && __get_cpuid(0x80000001, &a, &b, &c, &d)) {
    add(d, {{11, "syscall"}, {20, "nx"}, {26, "pdpe1gb"}, {27, "rdtscp"}, {29, "lm"}});
    facts.flags += " constant_tsc rep_good nopl";
    const unsigned extended_c = c;
    add(features_c, {{0, "pni"}, {1, "pclmulqdq"}, {9, "ssse3"}, {12, "fma"}, {13, "cx16"}, {19, "sse4_1"}, {20, "sse4_2"},
                     {22, "movbe"}, {23, "popcnt"}, {25, "aes"}, {26, "xsave"}, {28, "avx"}, {29, "f16c"}, {30, "rdrand"},
                     {31, "hypervisor"}});
    add(extended_c, {{0, "lahf_lm"}, {5, "abm"}, {8, "3dnowprefetch"}});
  }
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    add(b, {{0, "fsgsbase"}, {3, "bmi1"}, {5, "avx2"}, {7, "smep"}, {8, "bmi2"}, {9, "erms"}, {16, "avx512f"}, {17, "avx512dq"},
            {18, "rdseed"}, {19, "adx"}, {20, "smap"}, {21, "avx512ifma"}, {23, "clflushopt"}, {24, "clwb"}, {28, "avx512cd"},
            {29, "sha_ni"}, {30, "avx512bw"}, {31, "avx512vl"}});
    add(c, {{1, "avx512vbmi"}, {6, "avx512_vbmi2"}, {8, "gfni"}, {9, "vaes"}, {10, "vpclmulqdq"}, {11, "avx512_vnni"},
            {12, "avx512_bitalg"}, {14, "avx512_vpopcntdq"}, {22, "rdpid"}});
    add(d, {{4, "fsrm"}});
  }
  return facts;
}

std::string Cpuinfo(Kernel& kernel) {
  static const CpuFacts facts = ReadCpu();
  std::string out;
  const int cpus = kernel.options().cpu_count;
  for (int i = 0; i < cpus; ++i) {
    out += Format("processor\t: %d\nvendor_id\t: %s\ncpu family\t: %u\nmodel\t\t: %u\nmodel name\t: %s\nstepping\t: %u\n", i,
                  facts.vendor.c_str(), facts.family, facts.model, facts.model_name.c_str(), facts.stepping);
    out += Format("cpu MHz\t\t: 2000.000\nphysical id\t: 0\nsiblings\t: %d\ncore id\t\t: %d\ncpu cores\t: %d\napicid\t\t: %d\n"
                  "initial apicid\t: %d\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 13\nwp\t\t: yes\n",
                  cpus, i, cpus, i, i);
    out += "flags\t\t: " + facts.flags + "\n";
    out += Format("bugs\t\t:\nbogomips\t: 4000.00\nclflush size\t: %u\ncache_alignment\t: %u\n"
                  "address sizes\t: %u bits physical, %u bits virtual\npower management:\n\n",
                  facts.clflush, facts.clflush, facts.physical_bits, facts.virtual_bits);
  }
  return out;
}

std::string Meminfo(Kernel& kernel) {
  const uint64_t total = kernel.options().total_memory_bytes;
  const MemoryFile::Usage usage = kernel.memory_file()->usage();
  const uint64_t used = std::min(usage.committed_bytes, total);
  const unsigned long total_kib = total >> 10, free_kib = (total - used) >> 10;
  std::string out;
  auto row = [&out](const char* name, unsigned long kib) { out += Format("%-16s%8lu kB\n", name, kib); };
  row("MemTotal:", total_kib);
  row("MemFree:", free_kib);
  row("MemAvailable:", free_kib);
  for (const char* name : {"Buffers:", "Cached:", "SwapCached:"}) row(name, 0);
  row("Active:", used >> 10);
  row("Inactive:", 0);
  row("Active(anon):", used >> 10);
  for (const char* name : {"Inactive(anon):", "Active(file):", "Inactive(file):", "Unevictable:", "Mlocked:", "SwapTotal:",
                           "SwapFree:", "Dirty:", "Writeback:"}) {
    row(name, 0);
  }
  row("AnonPages:", used >> 10);
  for (const char* name : {"Mapped:", "Shmem:", "KReclaimable:", "Slab:", "SReclaimable:", "SUnreclaim:", "KernelStack:",
                           "PageTables:", "NFS_Unstable:", "Bounce:", "WritebackTmp:"}) {
    row(name, 0);
  }
  row("CommitLimit:", total_kib);
  row("Committed_AS:", used >> 10);
  row("VmallocTotal:", 34359738367);
  for (const char* name : {"VmallocUsed:", "VmallocChunk:", "Percpu:", "AnonHugePages:", "ShmemHugePages:", "ShmemPmdMapped:"}) {
    row(name, 0);
  }
  out += "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n";
  row("Hugepagesize:", 2048);
  row("Hugetlb:", 0);
  return out;
}

int64_t BootTimeSeconds(Kernel& kernel) {
  return (RealtimeNow() - (MonotonicNow() - kernel.boot_monotonic_ns())) / abi::kNanosPerSecond;
}

std::string SystemStat(Kernel& kernel) {
  const int cpus = kernel.options().cpu_count;
  const long total = (MonotonicNow() - kernel.boot_monotonic_ns()) / 10'000'000 * cpus;
  const long busy = std::min<long>(TotalCpuTime(kernel) / 10'000'000, total);
  std::string out = Format("cpu  %ld 0 0 %ld 0 0 0 0 0 0\n", busy, total - busy);
  for (int i = 0; i < cpus; ++i) out += Format("cpu%d %ld 0 0 %ld 0 0 0 0 0 0\n", i, busy / cpus, (total - busy) / cpus);
  int running = 0, processes = 0;
  for (const RefPtr<Task>& task : kernel.Tasks()) {
    ++processes;
    if (TaskStateLetter(*task) == 'R') ++running;
  }
  out += Format("intr 0\nctxt 0\nbtime %ld\nprocesses %d\nprocs_running %d\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
                static_cast<long>(BootTimeSeconds(kernel)), processes, std::max(running, 1));
  return out;
}

std::string Uptime(Kernel& kernel) {
  const int64_t up = MonotonicNow() - kernel.boot_monotonic_ns();
  const int64_t idle = std::max<int64_t>(0, up * kernel.options().cpu_count - TotalCpuTime(kernel));
  return Format("%ld.%02ld %ld.%02ld\n", static_cast<long>(up / abi::kNanosPerSecond), static_cast<long>(up / 10'000'000 % 100),
                static_cast<long>(idle / abi::kNanosPerSecond), static_cast<long>(idle / 10'000'000 % 100));
}

std::string Loadavg(ProcFilesystem& fs) {
  int running = 0, total = 0;
  pid_t last = 0;
  for (const RefPtr<Task>& task : fs.kernel().Tasks()) {
    ++total;
    if (TaskStateLetter(*task) == 'R') ++running;
    last = std::max(last, fs.pid_ns().TidOf(*task));
  }
  return Format("0.00 0.00 0.00 %d/%d %d\n", std::max(running, 1), total, last);
}

std::string FilesystemsText() {
  std::string out;
  for (const FilesystemType& type : FilesystemTypes()) out += std::string(type.needs_device ? "" : "nodev") + "\t" + type.name + "\n";
  return out;
}

}  // namespace

void AddSystemFiles(ProcFilesystem& fs, StaticDirectory& root) {
  Kernel& kernel = fs.kernel();
  auto text = [&](const char* name, TextGenerator generate) { root.Add(name, NewText(fs, 0444, std::move(generate))); };
  text("cpuinfo", [&kernel]() -> Result<std::string> { return Cpuinfo(kernel); });
  text("meminfo", [&kernel]() -> Result<std::string> { return Meminfo(kernel); });
  text("stat", [&kernel]() -> Result<std::string> { return SystemStat(kernel); });
  text("uptime", [&kernel]() -> Result<std::string> { return Uptime(kernel); });
  text("loadavg", [&fs]() -> Result<std::string> { return Loadavg(fs); });
  text("filesystems", []() -> Result<std::string> { return FilesystemsText(); });
  text("version", []() -> Result<std::string> {
    return Format("Linux version %s (caisson) %s\n", kLinuxRelease, kLinuxVersion);
  });
  root.Add("cmdline", NewConstantText(fs, "BOOT_IMAGE=/vmlinuz-caisson quiet\n"));
  root.Add("devices", NewConstantText(fs, "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n"
                                          "136 pts\n\nBlock devices:\n"));
  RefPtr<StaticDirectory> sysvipc = MakeRef<StaticDirectory>(fs);
  auto ipc = [&](const char* name, std::string (*show)(Task& reader)) {
    sysvipc->Add(name, NewText(fs, 0444, [show]() -> Result<std::string> {
                   Task* reader = Task::Current();
                   if (!reader) return std::string();
                   return show(*reader);
                 }));
  };
  ipc("msg", [](Task& t) { return t.ipc_ns().tables().messages.Text(*t.creds().user_ns, t.pid_ns()); });
  ipc("sem", [](Task& t) { return t.ipc_ns().tables().sem.Text(*t.creds().user_ns); });
  ipc("shm", [](Task& t) { return t.ipc_ns().tables().shm.Text(*t.creds().user_ns, t.pid_ns()); });
  root.Add("sysvipc", sysvipc);
  root.Add("config.gz", NewConstantText(fs, std::string(reinterpret_cast<const char*>(kKernelConfig), sizeof kKernelConfig)));
  root.Add("swaps", NewConstantText(fs, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"));
  root.Add("partitions", NewConstantText(fs, "major minor  #blocks  name\n\n"));
  root.Add("diskstats", NewConstantText(fs, ""));
  root.Add("modules", NewConstantText(fs, ""));
  root.Add("locks", NewConstantText(fs, ""));
  root.Add("misc", NewConstantText(fs, ""));
  root.Add("cgroups", NewConstantText(fs, "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"));
  root.Add("vmstat", NewConstantText(fs, "nr_free_pages 0\npgpgin 0\npgpgout 0\npswpin 0\npswpout 0\npgfault 0\npgmajfault 0\n"));
  root.Add("interrupts", NewConstantText(fs, "            CPU0\n"));
  root.Add("buddyinfo", NewConstantText(fs, ""));
  RefPtr<StaticDirectory> tty = MakeRef<StaticDirectory>(fs);
  tty->Add("drivers", NewConstantText(fs, "/dev/tty             /dev/tty        5       0 system:/dev/tty\n"
                                          "/dev/ptmx            /dev/ptmx       5       2 system\n"
                                          "pty_slave            /dev/pts      136 0-1048575 pty:slave\n"
                                          "pty_master           /dev/ptm      128 0-1048575 pty:master\n"));
  root.Add("tty", std::move(tty));
}

}  // namespace caisson::proc
