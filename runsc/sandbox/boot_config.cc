#include "runsc/sandbox/boot_config.h"

#include <sys/mount.h>
#include <sys/stat.h>

#include "runsc/base/files.h"
#include "runsc/spec/seccomp.h"

namespace caisson {
namespace {

proto::Settings SettingsProto(const GlobalOptions& options) {
  proto::Settings settings;
  settings.set_platform(options.platform == PlatformOption::kPtrace ? proto::Settings::PTRACE
                                                                  : proto::Settings::SYSTRAP);
  settings.set_network(options.network == NetworkOption::kHost      ? proto::Settings::HOST
                       : options.network == NetworkOption::kSandbox ? proto::Settings::SANDBOX
                                                                  : proto::Settings::NONE);
  settings.set_debug(options.debug);
  settings.set_strace(options.strace);
  for (const std::string& name : options.strace_syscalls) settings.add_strace_syscalls(name);
  settings.set_strace_log_size(options.strace_log_size);
  settings.set_file_access_shared(options.file_access_shared);
  settings.set_host_uds(options.host_uds == HostUdsOption::kOpen     ? proto::Settings::HOST_UDS_OPEN
                        : options.host_uds == HostUdsOption::kCreate ? proto::Settings::HOST_UDS_CREATE
                        : options.host_uds == HostUdsOption::kAll    ? proto::Settings::HOST_UDS_ALL
                                                               : proto::Settings::HOST_UDS_NONE);
  settings.set_log_json(options.log_format == LogFormat::kJson);
  settings.set_rootless(options.rootless);
  return settings;
}

void AddIdMappings(const std::vector<IdMappingSpec>& from, google::protobuf::RepeatedPtrField<proto::IdMapping>* to) {
  for (const IdMappingSpec& mapping : from) {
    proto::IdMapping* out = to->Add();
    out->set_container_id(mapping.container_id);
    out->set_host_id(mapping.host_id);
    out->set_size(mapping.size);
  }
}

proto::Cgroup CgroupProto(const ResourcesSpec& resources) {
  proto::Cgroup cgroup;
  cgroup.set_path("/");
  if (resources.memory.limit && *resources.memory.limit > 0) cgroup.set_memory_limit_bytes(*resources.memory.limit);
  if (resources.cpu.quota && *resources.cpu.quota > 0) {
    constexpr uint64_t kDefaultPeriodUs = 100000;
    uint64_t period = resources.cpu.period.value_or(0);
    cgroup.set_cpus(static_cast<double>(*resources.cpu.quota) / (period != 0 ? period : kDefaultPeriodUs));
  }
  if (resources.pids_limit && *resources.pids_limit > 0) cgroup.set_pids_limit(*resources.pids_limit);
  return cgroup;
}

absl::StatusOr<bool> IsFile(const GoferRoot& root) {
  struct stat st;
  if (stat(root.path.c_str(), &st) < 0) return ErrnoErrorF(errno, "%s: stat %s", root.field.c_str(), root.path.c_str());
  return !S_ISDIR(st.st_mode);
}

absl::Status AddMounts(const Spec& spec, const GlobalOptions& options, const std::string& bundle, SandboxPlan* plan) {
  for (size_t i = 0; i < spec.mounts.size(); ++i) {
    const MountSpec& mount = spec.mounts[i];
    proto::Mount* out = plan->config.add_mounts();
    out->set_destination(mount.destination);
    out->set_type(mount.type);
    out->set_source(mount.source.empty() ? mount.type : mount.source);
    out->set_flags(mount.flags);
    for (const std::string& option : mount.data) out->add_data(option);
    out->set_propagation(mount.propagation);
    out->set_copy_up(mount.copy_up);
    if (mount.type != "bind") continue;
    GoferRoot root;
    root.path = mount.source[0] == '/' ? mount.source : bundle + "/" + mount.source;
    root.field = "mounts[" + std::to_string(i) + "].source";
    root.is_file = OK_OR_RETURN(IsFile(root));
    // What the sandbox keeps in memory, the gofer need not be able to write.
    bool overlay = options.overlay_mounts && !(mount.flags & MS_RDONLY) && !root.is_file;
    root.read_only = (mount.flags & MS_RDONLY) || overlay;
    out->set_gofer_root(static_cast<uint32_t>(plan->gofer_roots.size()));
    out->set_is_file(root.is_file);
    out->set_overlay(overlay ? proto::OVERLAY_MEMORY : proto::OVERLAY_NONE);
    out->set_source(mount.destination);  // Paths of the host stay with the gofer.
    plan->gofer_roots.push_back(std::move(root));
  }
  return absl::OkStatus();
}

}  // namespace

proto::Process ProcessProto(const ProcessSpec& process) {
  proto::Process out;
  for (const std::string& argument : process.args) out.add_args(argument);
  for (const std::string& variable : process.env) out.add_env(variable);
  out.set_cwd(process.cwd);
  out.mutable_user()->set_uid(process.user.uid);
  out.mutable_user()->set_gid(process.user.gid);
  if (process.user.umask) out.mutable_user()->set_umask(*process.user.umask);
  for (uint32_t gid : process.user.additional_gids) out.mutable_user()->add_additional_gids(gid);
  if (process.capabilities) {
    proto::Capabilities* capabilities = out.mutable_capabilities();
    capabilities->set_bounding(process.capabilities->bounding);
    capabilities->set_effective(process.capabilities->effective);
    capabilities->set_inheritable(process.capabilities->inheritable);
    capabilities->set_permitted(process.capabilities->permitted);
    capabilities->set_ambient(process.capabilities->ambient);
  }
  for (const RlimitSpec& limit : process.rlimits) {
    proto::Rlimit* rlimit = out.add_rlimits();
    rlimit->set_resource(limit.resource);
    rlimit->set_soft(limit.soft);
    rlimit->set_hard(limit.hard);
  }
  out.set_no_new_privileges(process.no_new_privileges);
  out.set_terminal(process.terminal);
  out.set_console_rows(process.console_rows);
  out.set_console_columns(process.console_columns);
  if (process.oom_score_adj) out.set_oom_score_adj(*process.oom_score_adj);
  return out;
}

absl::StatusOr<SandboxPlan> MakeSandboxPlan(const Spec& spec, const GlobalOptions& options, const std::string& id,
                                            const std::string& bundle, const std::string& rootfs) {
  SandboxPlan plan;
  proto::BootConfig& config = plan.config;
  config.set_container_id(id);
  config.set_oci_version(spec.oci_version);
  *config.mutable_process() = ProcessProto(spec.process);

  GoferRoot root{.path = rootfs, .field = "root.path"};
  if (OK_OR_RETURN(IsFile(root))) return ErrnoErrorF(ENOTDIR, "root.path: %s", rootfs.c_str());
  // A read-only root too: missing mount points are made in the upper layer before it becomes read-only.
  bool overlay = options.overlay_root;
  root.read_only = spec.root_readonly || overlay;
  config.mutable_root()->set_gofer_root(0);
  config.mutable_root()->set_readonly(spec.root_readonly);
  config.mutable_root()->set_overlay(overlay ? proto::OVERLAY_MEMORY : proto::OVERLAY_NONE);
  plan.gofer_roots.push_back(std::move(root));
  OK_OR_RETURN(AddMounts(spec, options, bundle, &plan));

  config.set_hostname(spec.hostname);
  config.set_domainname(spec.domainname);
  for (const DeviceSpec& device : spec.linux_.devices) {
    proto::Device* out = config.add_devices();
    out->set_path(device.path);
    out->set_type(device.type);
    out->set_major(device.major);
    out->set_minor(device.minor);
    out->set_mode(device.mode);
    out->set_uid(device.uid);
    out->set_gid(device.gid);
  }
  for (const std::string& path : spec.linux_.masked_paths) config.add_masked_paths(path);
  for (const std::string& path : spec.linux_.readonly_paths) config.add_readonly_paths(path);
  for (const auto& [name, value] : spec.linux_.sysctl) (*config.mutable_sysctl())[name] = value;
  for (const NamespaceSpec& space : spec.linux_.namespaces) {
    proto::Namespace* out = config.add_namespaces();
    out->set_type(space.type);
    out->set_joined(!space.path.empty());
  }
  if (spec.linux_.seccomp.present) {
    config.mutable_seccomp()->set_program(OK_OR_RETURN(CompileSeccomp(spec.linux_.seccomp)));
    config.mutable_seccomp()->set_log(spec.linux_.seccomp.log);
  }
  for (const auto& [name, value] : spec.annotations) (*config.mutable_annotations())[name] = value;
  *config.mutable_cgroup() = CgroupProto(spec.linux_.resources);
  *config.mutable_settings() = SettingsProto(options);
  AddIdMappings(spec.linux_.uid_mappings, config.mutable_uid_mappings());
  AddIdMappings(spec.linux_.gid_mappings, config.mutable_gid_mappings());
  return plan;
}

}  // namespace caisson
