#include "sentry/fs/sys/sysfs.h"

#include <linux/magic.h>

#include <algorithm>
#include <string>
#include <utility>

#include "sentry/fs/synthetic/synthetic.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"

namespace caisson {
namespace {

std::string CpuList(int cpus) { return cpus <= 1 ? "0\n" : "0-" + std::to_string(cpus - 1) + "\n"; }

RefPtr<StaticDirectory> NewDirectory(Filesystem& fs) { return MakeRef<StaticDirectory>(fs, 0755); }

// devices/system/cpu: what glibc, the JVM and Go count processors with.
RefPtr<StaticDirectory> NewCpuDirectory(Filesystem& fs, int cpus) {
  RefPtr<StaticDirectory> directory = NewDirectory(fs);
  for (const char* name : {"online", "possible", "present"}) directory->Add(name, NewConstantText(fs, CpuList(cpus)));
  directory->Add("offline", NewConstantText(fs, "\n"));
  directory->Add("isolated", NewConstantText(fs, "\n"));
  directory->Add("kernel_max", NewConstantText(fs, "8191\n"));
  for (int i = 0; i < cpus; ++i) {
    RefPtr<StaticDirectory> cpu = NewDirectory(fs);
    RefPtr<StaticDirectory> topology = NewDirectory(fs);
    topology->Add("core_id", NewConstantText(fs, std::to_string(i) + "\n"));
    topology->Add("physical_package_id", NewConstantText(fs, "0\n"));
    topology->Add("core_siblings_list", NewConstantText(fs, CpuList(cpus)));
    topology->Add("thread_siblings_list", NewConstantText(fs, std::to_string(i) + "\n"));
    cpu->Add("topology", std::move(topology));
    if (i > 0) cpu->Add("online", NewConstantText(fs, "1\n"));
    directory->Add("cpu" + std::to_string(i), std::move(cpu));
  }
  return directory;
}

RefPtr<StaticDirectory> NewNodeDirectory(Filesystem& fs, Kernel& kernel) {
  const int cpus = kernel.options().cpu_count;
  RefPtr<StaticDirectory> directory = NewDirectory(fs);
  for (const char* name : {"online", "possible", "has_cpu", "has_memory", "has_normal_memory"}) {
    directory->Add(name, NewConstantText(fs, "0\n"));
  }
  RefPtr<StaticDirectory> node = NewDirectory(fs);
  node->Add("cpulist", NewConstantText(fs, CpuList(cpus)));
  node->Add("distance", NewConstantText(fs, "10\n"));
  // libnuma warns where it does not find both total and free.
  node->Add("meminfo", NewText(fs, 0444, [&kernel]() -> Result<std::string> {
              const uint64_t total = kernel.options().total_memory_bytes;
              const uint64_t used = std::min(kernel.memory_file()->usage().committed_bytes, total);
              std::string out;
              for (auto [name, bytes] : {std::pair("MemTotal: ", total), {"MemFree:  ", total - used}, {"MemUsed:  ", used}}) {
                out += std::string("Node 0 ") + name + "      " + std::to_string(bytes >> 10) + " kB\n";
              }
              return out;
            }));
  directory->Add("node0", std::move(node));
  return directory;
}

RefPtr<StaticDirectory> NewLoopbackInterface(Filesystem& fs) {
  RefPtr<StaticDirectory> lo = NewDirectory(fs);
  static constexpr std::pair<const char*, const char*> kFiles[] = {
      {"address", "00:00:00:00:00:00\n"}, {"addr_len", "6\n"}, {"broadcast", "00:00:00:00:00:00\n"}, {"carrier", "1\n"},
      {"dev_id", "0x0\n"},                {"flags", "0x9\n"},  {"ifindex", "1\n"},                   {"iflink", "1\n"},
      {"mtu", "65536\n"},                 {"operstate", "unknown\n"}, {"tx_queue_len", "1000\n"},    {"type", "772\n"},
  };
  for (auto [name, text] : kFiles) lo->Add(name, NewConstantText(fs, text));
  return lo;
}


// All processes of the reader's pid namespace: the container is one cgroup.
Result<std::string> Procs() {
  std::string out;
  if (Task* task = Task::Current()) {
    for (const RefPtr<ThreadGroup>& process : task->pid_ns().ThreadGroups()) {
      out += std::to_string(process->TgidIn(task->pid_ns())) + "\n";
    }
  }
  return out;
}

}  // namespace

Result<RefPtr<Filesystem>> NewSysfs(Kernel& kernel, const MountData&) {
  RefPtr<SyntheticFilesystem> fs = MakeRef<SyntheticFilesystem>(kernel, "sysfs", SYSFS_MAGIC, /*caches_names=*/true);
  const int cpus = kernel.options().cpu_count;
  RefPtr<StaticDirectory> root = NewDirectory(*fs);
  for (const char* name : {"block", "bus", "dev", "firmware", "hypervisor", "module", "power"}) root->Add(name, NewDirectory(*fs));

  RefPtr<StaticDirectory> system = NewDirectory(*fs);
  system->Add("cpu", NewCpuDirectory(*fs, cpus));
  system->Add("node", NewNodeDirectory(*fs, kernel));
  RefPtr<StaticDirectory> virtual_net = NewDirectory(*fs);
  virtual_net->Add("lo", NewLoopbackInterface(*fs));
  RefPtr<StaticDirectory> virtual_devices = NewDirectory(*fs);
  virtual_devices->Add("net", std::move(virtual_net));
  RefPtr<StaticDirectory> devices = NewDirectory(*fs);
  devices->Add("system", std::move(system));
  devices->Add("virtual", std::move(virtual_devices));
  root->Add("devices", std::move(devices));

  RefPtr<StaticDirectory> net = NewDirectory(*fs);
  net->Add("lo", NewLink(*fs, []() -> Result<std::string> { return std::string("../../devices/virtual/net/lo"); }));
  RefPtr<StaticDirectory> classes = NewDirectory(*fs);
  classes->Add("net", std::move(net));
  for (const char* name : {"block", "mem", "tty"}) classes->Add(name, NewDirectory(*fs));
  root->Add("class", std::move(classes));

  RefPtr<StaticDirectory> fs_directory = NewDirectory(*fs);
  fs_directory->Add("cgroup", NewDirectory(*fs));
  root->Add("fs", std::move(fs_directory));

  RefPtr<StaticDirectory> hugepage = NewDirectory(*fs);
  hugepage->Add("enabled", NewConstantText(*fs, "always [madvise] never\n"));
  hugepage->Add("defrag", NewConstantText(*fs, "always defer defer+madvise [madvise] never\n"));
  hugepage->Add("hpage_pmd_size", NewConstantText(*fs, "2097152\n"));
  RefPtr<StaticDirectory> mm = NewDirectory(*fs);
  mm->Add("transparent_hugepage", std::move(hugepage));
  RefPtr<StaticDirectory> kernel_directory = NewDirectory(*fs);
  kernel_directory->Add("mm", std::move(mm));
  kernel_directory->Add("debug", NewDirectory(*fs));
  kernel_directory->Add("security", NewDirectory(*fs));
  root->Add("kernel", std::move(kernel_directory));

  fs->SetRoot(std::move(root));
  return RefPtr<Filesystem>(std::move(fs));
}

Result<RefPtr<Filesystem>> NewCgroupfs(Kernel& kernel, const MountData&) {
  RefPtr<SyntheticFilesystem> fs = MakeRef<SyntheticFilesystem>(kernel, "cgroup", CGROUP_SUPER_MAGIC, true);
  RefPtr<StaticDirectory> root = MakeRef<StaticDirectory>(*fs, 0555);
  for (const char* name : {"cgroup.procs", "tasks"}) root->Add(name, NewText(*fs, 0444, &Procs));
  fs->SetRoot(std::move(root));
  return RefPtr<Filesystem>(std::move(fs));
}

Result<RefPtr<Filesystem>> NewCgroup2fs(Kernel& kernel, const MountData&) {
  RefPtr<SyntheticFilesystem> fs = MakeRef<SyntheticFilesystem>(kernel, "cgroup2", CGROUP2_SUPER_MAGIC, true);
  RefPtr<StaticDirectory> root = MakeRef<StaticDirectory>(*fs, 0555);
  root->Add("cgroup.procs", NewText(*fs, 0444, &Procs));
  root->Add("cgroup.controllers", NewConstantText(*fs, "\n"));
  root->Add("cgroup.subtree_control", NewConstantText(*fs, "\n"));
  fs->SetRoot(std::move(root));
  return RefPtr<Filesystem>(std::move(fs));
}

}  // namespace caisson
