// /proc/sys: kernel parameters. Each is a row of a table: a constant, a value with bounds, or a function.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <utility>
#include <variant>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/fs/proc/internal.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/posix_mq.h"
#include "sentry/kernel/sysv_ipc.h"

namespace caisson {
namespace proc {
namespace {

enum class Kind : uint8_t {
  kConstant,  // Never changes: writes are EACCES by mode 0444.
  kInteger,   // One or more integers within bounds, separated by tabs.
  kText,
  kHostname,
  kDomainname,
  kUuid,  // A new one at each read.
  kIpc,   // Integers that live in the IPC namespace of who asks.
};

struct Row {
  const char* name;  // "kernel.hostname" with slashes: "kernel/hostname".
  Kind kind;
  const char* value;  // The default.
  int64_t minimum = 0;
  int64_t maximum = INT32_MAX;
};

// Defaults are those of Linux 6.1 (Debian's where it has an opinion).
constexpr Row kRows[] = {
    {"fs/aio-max-nr", Kind::kInteger, "65536", 0, INT64_MAX},
    {"fs/aio-nr", Kind::kConstant, "0"},
    {"fs/dentry-state", Kind::kConstant, "0\t0\t45\t0\t0\t0"},
    {"fs/epoll/max_user_watches", Kind::kInteger, "5048320", 0, INT64_MAX},
    {"fs/file-max", Kind::kInteger, "9223372036854775807", 0, INT64_MAX},
    {"fs/file-nr", Kind::kConstant, "0\t0\t9223372036854775807"},
    {"fs/inode-nr", Kind::kConstant, "0\t0"},
    {"fs/inotify/max_queued_events", Kind::kInteger, "16384"},
    {"fs/inotify/max_user_instances", Kind::kInteger, "128"},
    {"fs/inotify/max_user_watches", Kind::kInteger, "189920"},
    {"fs/lease-break-time", Kind::kInteger, "45"},
    {"fs/leases-enable", Kind::kInteger, "1", 0, 1},
    {"fs/mount-max", Kind::kInteger, "100000", 1},
    {"fs/mqueue/msg_default", Kind::kIpc, "10", 1, 65536},
    {"fs/mqueue/msg_max", Kind::kIpc, "10", 1, 65536},
    {"fs/mqueue/msgsize_default", Kind::kIpc, "8192", 128, 16777216},
    {"fs/mqueue/msgsize_max", Kind::kIpc, "8192", 128, 16777216},
    {"fs/mqueue/queues_max", Kind::kIpc, "256"},
    {"fs/nr_open", Kind::kInteger, "1048576", 64, 2147483584},
    {"fs/overflowgid", Kind::kInteger, "65534", 0, 65535},
    {"fs/overflowuid", Kind::kInteger, "65534", 0, 65535},
    {"fs/pipe-max-size", Kind::kInteger, "1048576", 4096},
    {"fs/pipe-user-pages-hard", Kind::kInteger, "0"},
    {"fs/pipe-user-pages-soft", Kind::kInteger, "16384"},
    {"fs/protected_fifos", Kind::kInteger, "1", 0, 2},
    {"fs/protected_hardlinks", Kind::kInteger, "1", 0, 1},
    {"fs/protected_regular", Kind::kInteger, "2", 0, 2},
    {"fs/protected_symlinks", Kind::kInteger, "1", 0, 1},
    {"fs/suid_dumpable", Kind::kInteger, "0", 0, 2},
    {"kernel/auto_msgmni", Kind::kInteger, "0", 0, 1},
    {"kernel/cap_last_cap", Kind::kConstant, "40"},
    {"kernel/core_pattern", Kind::kText, "core"},
    {"kernel/core_pipe_limit", Kind::kInteger, "0"},
    {"kernel/core_uses_pid", Kind::kInteger, "0", 0, 1},
    {"kernel/dmesg_restrict", Kind::kInteger, "1", 0, 1},
    {"kernel/domainname", Kind::kDomainname, ""},
    {"kernel/hostname", Kind::kHostname, ""},
    {"kernel/keys/maxbytes", Kind::kInteger, "20000"},
    {"kernel/keys/maxkeys", Kind::kInteger, "200"},
    {"kernel/kptr_restrict", Kind::kInteger, "2", 0, 2},
    {"kernel/msgmax", Kind::kIpc, "8192"},
    {"kernel/msgmnb", Kind::kIpc, "16384"},
    {"kernel/msgmni", Kind::kIpc, "32000", 0, 8388608},
    {"kernel/ngroups_max", Kind::kConstant, "65536"},
    {"kernel/osrelease", Kind::kConstant, kLinuxRelease},
    {"kernel/ostype", Kind::kConstant, "Linux"},
    {"kernel/overflowgid", Kind::kInteger, "65534", 0, 65535},
    {"kernel/overflowuid", Kind::kInteger, "65534", 0, 65535},
    {"kernel/panic", Kind::kInteger, "0", INT32_MIN},
    {"kernel/panic_on_oops", Kind::kInteger, "0", 0, 1},
    {"kernel/perf_event_paranoid", Kind::kInteger, "3", -1, 4},
    {"kernel/pid_max", Kind::kInteger, "4194304", 301, 4194304},
    {"kernel/printk", Kind::kInteger, "4\t4\t1\t7"},
    {"kernel/random/boot_id", Kind::kConstant, nullptr},
    {"kernel/random/entropy_avail", Kind::kConstant, "256"},
    {"kernel/random/poolsize", Kind::kConstant, "256"},
    {"kernel/random/uuid", Kind::kUuid, nullptr},
    {"kernel/randomize_va_space", Kind::kInteger, "2", 0, 2},
    {"kernel/sched_child_runs_first", Kind::kInteger, "0", 0, 1},
    {"kernel/sched_rr_timeslice_ms", Kind::kInteger, "100"},
    {"kernel/sched_rt_period_us", Kind::kInteger, "1000000"},
    {"kernel/sched_rt_runtime_us", Kind::kInteger, "950000", -1},
    {"kernel/sem", Kind::kIpc, "32000\t1024000000\t500\t32000"},
    {"kernel/shm_rmid_forced", Kind::kInteger, "0", 0, 1},
    {"kernel/shmall", Kind::kIpc, "18446744073692774399", 0, -1},
    {"kernel/shmmax", Kind::kIpc, "18446744073692774399", 0, -1},
    {"kernel/shmmni", Kind::kIpc, "4096", 0, 32768},
    {"kernel/sysrq", Kind::kInteger, "0", 0, 511},
    {"kernel/tainted", Kind::kConstant, "0"},
    {"kernel/threads-max", Kind::kInteger, "126000", 20},
    {"kernel/unprivileged_bpf_disabled", Kind::kConstant, "2"},
    {"kernel/unprivileged_userns_clone", Kind::kInteger, "1", 0, 1},
    {"kernel/version", Kind::kConstant, kLinuxVersion},
    {"net/core/default_qdisc", Kind::kText, "pfifo_fast"},
    {"net/core/netdev_max_backlog", Kind::kInteger, "1000"},
    {"net/core/optmem_max", Kind::kInteger, "20480"},
    {"net/core/rmem_default", Kind::kInteger, "212992", 2304},
    {"net/core/rmem_max", Kind::kInteger, "212992", 2304},
    {"net/core/somaxconn", Kind::kInteger, "4096"},
    {"net/core/wmem_default", Kind::kInteger, "212992", 4608},
    {"net/core/wmem_max", Kind::kInteger, "212992", 4608},
    {"net/ipv4/conf/all/forwarding", Kind::kInteger, "0", 0, 1},
    {"net/ipv4/conf/default/forwarding", Kind::kInteger, "0", 0, 1},
    {"net/ipv4/conf/lo/forwarding", Kind::kInteger, "0", 0, 1},
    {"net/ipv4/icmp_echo_ignore_all", Kind::kInteger, "0", 0, 1},
    {"net/ipv4/ip_default_ttl", Kind::kInteger, "64", 1, 255},
    {"net/ipv4/ip_forward", Kind::kInteger, "0", 0, 1},
    {"net/ipv4/ip_local_port_range", Kind::kInteger, "32768\t60999", 1, 65535},
    {"net/ipv4/ip_nonlocal_bind", Kind::kInteger, "0", 0, 1},
    {"net/ipv4/ip_unprivileged_port_start", Kind::kInteger, "1024", 0, 65535},
    {"net/ipv4/ping_group_range", Kind::kInteger, "1\t0"},
    {"net/ipv4/tcp_congestion_control", Kind::kText, "cubic"},
    {"net/ipv4/tcp_available_congestion_control", Kind::kConstant, "cubic"},
    {"net/ipv4/tcp_allowed_congestion_control", Kind::kConstant, "cubic"},
    {"net/ipv4/tcp_fin_timeout", Kind::kInteger, "60"},
    {"net/ipv4/tcp_keepalive_intvl", Kind::kInteger, "75"},
    {"net/ipv4/tcp_keepalive_probes", Kind::kInteger, "9", 0, 127},
    {"net/ipv4/tcp_keepalive_time", Kind::kInteger, "7200"},
    {"net/ipv4/tcp_max_syn_backlog", Kind::kInteger, "1024"},
    {"net/ipv4/tcp_rmem", Kind::kInteger, "4096\t131072\t6291456"},
    {"net/ipv4/tcp_sack", Kind::kInteger, "1", 0, 1},
    {"net/ipv4/tcp_syncookies", Kind::kInteger, "1", 0, 2},
    {"net/ipv4/tcp_timestamps", Kind::kInteger, "1", 0, 2},
    {"net/ipv4/tcp_tw_reuse", Kind::kInteger, "2", 0, 2},
    {"net/ipv4/tcp_window_scaling", Kind::kInteger, "1", 0, 1},
    {"net/ipv4/tcp_wmem", Kind::kInteger, "4096\t16384\t4194304"},
    {"net/ipv6/bindv6only", Kind::kInteger, "0", 0, 1},
    {"net/ipv6/conf/all/disable_ipv6", Kind::kInteger, "0", 0, 1},
    {"net/ipv6/conf/all/forwarding", Kind::kInteger, "0", 0, 1},
    {"net/ipv6/conf/default/disable_ipv6", Kind::kInteger, "0", 0, 1},
    {"net/ipv6/conf/lo/disable_ipv6", Kind::kInteger, "0", 0, 1},
    {"net/unix/max_dgram_qlen", Kind::kInteger, "512"},
    {"user/max_user_namespaces", Kind::kInteger, "63000"},
    {"vm/dirty_background_ratio", Kind::kInteger, "10", 0, 100},
    {"vm/dirty_ratio", Kind::kInteger, "20", 0, 100},
    {"vm/drop_caches", Kind::kInteger, "0", 0, 4},
    {"vm/max_map_count", Kind::kInteger, "65530"},
    {"vm/min_free_kbytes", Kind::kInteger, "67584"},
    {"vm/mmap_min_addr", Kind::kInteger, "65536", 0, INT64_MAX},
    {"vm/nr_hugepages", Kind::kInteger, "0"},
    {"vm/overcommit_kbytes", Kind::kInteger, "0"},
    {"vm/overcommit_memory", Kind::kInteger, "0", 0, 2},
    {"vm/overcommit_ratio", Kind::kInteger, "50"},
    {"vm/swappiness", Kind::kInteger, "60", 0, 200},
    {"vm/vfs_cache_pressure", Kind::kInteger, "100"},
};

// What was set, by row; one for the sandbox.
absl::Mutex g_mutex;
std::map<const Row*, std::string> g_values ABSL_GUARDED_BY(g_mutex);

std::string NewUuid() {
  uint8_t bytes[16];
  for (size_t i = 0; i < sizeof bytes; i += 8) {
    uint64_t word = 0;
    // RDRAND may fail a few times in a row; it never fails ten times on a working CPU.
    for (int tries = 0; tries < 10; ++tries) {
      unsigned char ok;
      asm volatile("rdrand %0; setc %1" : "=r"(word), "=qm"(ok));
      if (ok) break;
    }
    memcpy(bytes + i, &word, 8);
  }
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  std::string out;
  for (size_t i = 0; i < sizeof bytes; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += Format("%02x", bytes[i]);
  }
  return out;
}

// Where a row of kind kIpc has its values.
std::vector<std::variant<std::atomic<int>*, std::atomic<int64_t>*, std::atomic<uint64_t>*>> IpcValues(const Row& row,
                                                                                                     IpcNamespace& ns) {
  IpcNamespace::Tables& tables = ns.tables();
  const std::string_view name = row.name;
  if (name == "fs/mqueue/msg_default") return {&tables.mqueues->default_messages};
  if (name == "fs/mqueue/msg_max") return {&tables.mqueues->max_messages};
  if (name == "fs/mqueue/msgsize_default") return {&tables.mqueues->default_size};
  if (name == "fs/mqueue/msgsize_max") return {&tables.mqueues->max_size};
  if (name == "fs/mqueue/queues_max") return {&tables.mqueues->max_queues};
  if (name == "kernel/msgmax") return {&tables.messages.max_message};
  if (name == "kernel/msgmnb") return {&tables.messages.max_queue_bytes};
  if (name == "kernel/msgmni") return {&tables.messages.max_queues};
  if (name == "kernel/shmall") return {&tables.shm.max_pages};
  if (name == "kernel/shmmax") return {&tables.shm.max_bytes};
  if (name == "kernel/shmmni") return {&tables.shm.max_segments};
  return {&tables.sem.max_per_set, &tables.sem.max_total, &tables.sem.max_operations, &tables.sem.max_sets};
}

std::string ReadIpc(const Row& row, IpcNamespace& ns) {
  std::string out;
  for (auto& value : IpcValues(row, ns)) {
    if (!out.empty()) out += '\t';
    out += std::visit([](auto* v) { return std::to_string(v->load()); }, value);
  }
  return out;
}

// `text` has been checked and brought into form.
void StoreIpc(const Row& row, IpcNamespace& ns, std::string_view text) {
  const char* at = text.data();
  for (auto& value : IpcValues(row, ns)) {
    if (at >= text.data() + text.size()) return;
    std::visit(
        [&](auto* v) {
          auto number = v->load();
          at = std::from_chars(at, text.data() + text.size(), number).ptr + 1;
          v->store(number);
        },
        value);
  }
}

std::string Read(const Row& row) {
  Task* task = Task::Current();
  switch (row.kind) {
    case Kind::kHostname:
      return task ? task->uts_ns().hostname() : "";
    case Kind::kDomainname:
      return task ? task->uts_ns().domainname() : "";
    case Kind::kUuid:
      return NewUuid();
    case Kind::kIpc:
      if (task) return ReadIpc(row, task->ipc_ns());
      break;
    default:
      break;
  }
  if (row.value == nullptr) {
    static const std::string boot_id = NewUuid();
    return boot_id;
  }
  absl::MutexLock lock(&g_mutex);
  auto it = g_values.find(&row);
  return it == g_values.end() ? row.value : it->second;
}

// As many integers as the default has, each within bounds (proc_dointvec_minmax).
Result<std::string> NormalizeIntegers(const Row& row, std::string_view text) {
  std::string out;
  size_t count = 0;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (;;) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n')) ++at;
    if (at == end) break;
    if (row.maximum < row.minimum) {  // Unsigned 64 bits.
      uint64_t value = 0;
      auto [next, error] = std::from_chars(at, end, value);
      if (error != std::errc()) return Errno(EINVAL);
      at = next;
      out += (count ? "\t" : "") + std::to_string(value);
    } else {
      int64_t value = 0;
      auto [next, error] = std::from_chars(at, end, value);
      if (error != std::errc() || value < row.minimum || value > row.maximum) return Errno(EINVAL);
      at = next;
      out += (count ? "\t" : "") + std::to_string(value);
    }
    if (at < end && *at != ' ' && *at != '\t' && *at != '\n') return Errno(EINVAL);
    ++count;
  }
  const std::string_view value = row.value;
  const size_t wanted = 1 + std::count(value.begin(), value.end(), '\t');
  if (count == 0 || count > wanted) return Errno(EINVAL);
  return out;
}

Result<void> Write(const Row& row, std::string_view text, Task* writer) {
  while (!text.empty() && (text.back() == '\n' || text.back() == 0)) text.remove_suffix(1);
  switch (row.kind) {
    case Kind::kConstant:
    case Kind::kUuid:
      return Errno(EPERM);
    case Kind::kHostname:
    case Kind::kDomainname:
      if (writer == nullptr) return Errno(EPERM);
      if (!writer->creds().HasCapabilityIn(CAP_SYS_ADMIN, writer->uts_ns().owner())) return Errno(EPERM);
      if (row.kind == Kind::kHostname) {
        writer->uts_ns().SetHostname(std::string(text.substr(0, 64)));
      } else {
        writer->uts_ns().SetDomainname(std::string(text.substr(0, 64)));
      }
      return {};
    case Kind::kIpc: {
      const std::string value = TRY(NormalizeIntegers(row, text));
      if (writer) {
        StoreIpc(row, writer->ipc_ns(), value);
        return {};
      }
      // Before the first process: what new namespaces of the container start with.
      absl::MutexLock lock(&g_mutex);
      g_values[&row] = value;
      return {};
    }
    case Kind::kInteger: {
      std::string value = TRY(NormalizeIntegers(row, text));
      absl::MutexLock lock(&g_mutex);
      g_values[&row] = std::move(value);
      return {};
    }
    case Kind::kText: {
      if (text.size() > 127) return Errno(EINVAL);
      absl::MutexLock lock(&g_mutex);
      g_values[&row] = std::string(text);
      return {};
    }
  }
  return {};
}

bool IsWritable(const Row& row) { return row.kind != Kind::kConstant && row.kind != Kind::kUuid; }

}  // namespace

RefPtr<Inode> NewSysctlDirectory(ProcFilesystem& fs) {
  RefPtr<StaticDirectory> root = MakeRef<StaticDirectory>(fs);
  std::map<std::string, RefPtr<StaticDirectory>> directories;
  for (const Row& row : kRows) {
    std::string path = row.name;
    RefPtr<StaticDirectory> parent = root;
    size_t start = 0;
    for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', start)) {
      RefPtr<StaticDirectory>& directory = directories[path.substr(0, slash)];
      if (!directory) {
        directory = MakeRef<StaticDirectory>(fs);
        parent->Add(path.substr(start, slash - start), directory);
      }
      parent = directory;
      start = slash + 1;
    }
    TextStore store;
    if (IsWritable(row)) store = [&row](Task& writer, std::string_view text) { return Write(row, text, &writer); };
    parent->Add(path.substr(start), NewText(fs, IsWritable(row) ? 0644 : 0444,
                                            [&row]() -> Result<std::string> { return Read(row) + "\n"; }, std::move(store)));
  }
  return root;
}

}  // namespace proc

void ApplyIpcSysctls(IpcNamespace& ns) {
  for (const proc::Row& row : proc::kRows) {
    if (row.kind != proc::Kind::kIpc) continue;
    std::string value;
    {
      absl::MutexLock lock(&proc::g_mutex);
      auto it = proc::g_values.find(&row);
      if (it != proc::g_values.end()) value = it->second;
    }
    if (!value.empty()) proc::StoreIpc(row, ns, value);
  }
}

Result<void> SetSysctl(Kernel&, std::string_view name, std::string_view value) {
  for (const proc::Row& row : proc::kRows) {
    std::string dotted = row.name;
    for (char& c : dotted) c = c == '/' ? '.' : c;
    if (dotted == name) return proc::Write(row, value, nullptr);
  }
  return Errno(ENOENT);
}

}  // namespace caisson
