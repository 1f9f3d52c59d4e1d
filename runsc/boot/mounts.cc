#include "runsc/boot/mounts.h"

#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <string>
#include <utility>
#include <vector>

#include "runsc/sandbox/boot_config.pb.h"
#include "sentry/base/log.h"
#include "sentry/fs/gofer/gofer_fs.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {
namespace {

absl::Status Failed(const std::string& what, Errno error) {
  return absl::InternalError(what + ": " + strerror(error.code()));
}

std::string Join(const google::protobuf::RepeatedPtrField<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += (out.empty() ? "" : ",") + item;
  return out;
}

// The work of BuildMounts, with root's credentials in the sandbox's initial user namespace.
class MountBuilder {
 public:
  MountBuilder(Kernel& kernel, RefPtr<GoferClient> gofer, const proto::BootConfig& config)
      : kernel_(kernel),
        vfs_(kernel.vfs()),
        gofer_(std::move(gofer)),
        config_(config),
        creds_(Credentials::Root(kernel.initial_user_ns())) {}

  absl::StatusOr<RefPtr<MountNamespace>> Build() {
    absl::Status status = MountRoot();
    if (!status.ok()) return status;
    for (const proto::Mount& mount : config_.mounts()) {
      status = MountOne(mount);
      if (!status.ok()) return status;
    }
    MakeDefaultDevices();
    for (const proto::Device& device : config_.devices()) {
      status = MakeDevice(device);
      if (!status.ok()) return status;
    }
    for (const std::string& path : config_.masked_paths()) {
      status = Mask(path);
      if (!status.ok()) return status;
    }
    for (const std::string& path : config_.readonly_paths()) {
      status = MakeReadonly(path);
      if (!status.ok()) return status;
    }
    // Last, so that mount points could be made in it.
    if (config_.root().readonly()) {
      Result<void> remounted = vfs_.Remount(ns_->root(), MS_RDONLY);
      if (!remounted.ok()) return Failed("making the root read-only", remounted.error());
    }
    return ns_;
  }

 private:
  WalkContext Walk() const { return {*creds_, ns_->root(), ns_->root()}; }

  absl::StatusOr<RefPtr<Filesystem>> GoferFs(uint32_t root_index, proto::Overlay overlay) {
    GoferFilesystemOptions options;
    options.shared = config_.settings().file_access_shared() && overlay == proto::OVERLAY_NONE;
    Result<RefPtr<Filesystem>> lower = NewGoferFilesystem(kernel_, gofer_, root_index, options);
    if (!lower.ok()) return Failed("attaching to the gofer's root " + std::to_string(root_index), lower.error());
    if (overlay == proto::OVERLAY_NONE) return *lower;
    Result<RefPtr<Filesystem>> upper = NewTmpfs(kernel_, MountData{"overlay-upper", "", *creds_});
    if (!upper.ok()) return Failed("making the upper layer", upper.error());
    Result<RefPtr<Filesystem>> merged = NewOverlay(kernel_, *upper, (*lower)->root());
    if (!merged.ok()) return Failed("making the overlay", merged.error());
    return *merged;
  }

  absl::Status MountRoot() {
    absl::StatusOr<RefPtr<Filesystem>> fs = GoferFs(config_.root().gofer_root(), config_.root().overlay());
    if (!fs.ok()) return fs.status();
    ns_ = vfs_.NewNamespace(vfs_.NewMount(*fs, 0));
    return absl::OkStatus();
  }

  // The mount point, made if missing: a directory with its parents, or an empty file. Symlinks are followed inside the
  // guest's tree, where they cannot lead out.
  Result<VfsPath> MountPoint(const std::string& path, bool is_file) {
    Result<VfsPath> found = vfs_.Resolve(Walk(), path, FollowLast::kYes);
    if (found.ok() || found.error().code() != ENOENT) return found;
    for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
      Result<void> made = vfs_.Mkdir(Walk(), path.substr(0, slash), 0755, 0);
      if (!made.ok() && made.error().code() != EEXIST) return made.error();
    }
    if (is_file) {
      OpenRequest request;
      request.flags = O_CREAT | O_WRONLY;
      request.mode = 0644;
      TRY(vfs_.Open(Walk(), path, request));
    } else {
      Result<void> made = vfs_.Mkdir(Walk(), path, 0755, 0);
      if (!made.ok() && made.error().code() != EEXIST) return made.error();
    }
    return vfs_.Resolve(Walk(), path, FollowLast::kYes);
  }

  absl::Status MountOne(const proto::Mount& mount) {
    const std::string what = "mounting " + mount.type() + " at \"" + mount.destination() + "\"";
    Result<VfsPath> at = MountPoint(mount.destination(), mount.is_file());
    if (!at.ok()) return Failed(what + ": making the mount point", at.error());
    RefPtr<Filesystem> fs;
    if (mount.type() == "bind" || mount.has_gofer_root()) {
      absl::StatusOr<RefPtr<Filesystem>> gofer_fs = GoferFs(mount.gofer_root(), mount.overlay());
      if (!gofer_fs.ok()) return absl::InternalError(what + ": " + std::string(gofer_fs.status().message()));
      fs = *gofer_fs;
    } else {
      const FilesystemType* type = FindFilesystemType(mount.type());
      if (type == nullptr || type->factory == nullptr) return absl::InvalidArgumentError(what + ": unknown file system type");
      Result<RefPtr<Filesystem>> made = type->factory(kernel_, MountData{mount.source(), Join(mount.data()), *creds_});
      if (!made.ok()) return Failed(what, made.error());
      fs = *made;
    }
    if (mount.copy_up() && at->dentry->inode()->IsDirectory()) {
      // tmpcopyup: what the image has there shows through, and is copied when it is written to.
      Result<RefPtr<Filesystem>> merged = NewOverlay(kernel_, fs, RefPtr<Inode>(at->dentry->inode()));
      if (!merged.ok()) return Failed(what + ": copying up", merged.error());
      fs = *merged;
    }
    Result<void> attached = vfs_.Attach(*ns_, vfs_.NewMount(fs, mount.flags()), *at);
    if (!attached.ok()) return Failed(what, attached.error());
    return absl::OkStatus();
  }

  struct Node {
    const char* path;
    uint32_t mode;
    unsigned major, minor;
  };

  // What every container has (OCI runtime-spec, "Default Devices"); an image's own entries are left alone.
  void MakeDefaultDevices() {
    static constexpr Node kNodes[] = {
        {"/dev/null", S_IFCHR | 0666, 1, 3},   {"/dev/zero", S_IFCHR | 0666, 1, 5}, {"/dev/full", S_IFCHR | 0666, 1, 7},
        {"/dev/random", S_IFCHR | 0666, 1, 8}, {"/dev/urandom", S_IFCHR | 0666, 1, 9}, {"/dev/tty", S_IFCHR | 0666, 5, 0},
    };
    vfs_.Mkdir(Walk(), "/dev", 0755, 0).error_code();
    for (const Node& node : kNodes) EnsureNode(node.path, node.mode, makedev(node.major, node.minor), 0, 0);
    static constexpr std::pair<const char*, const char*> kLinks[] = {
        {"/proc/self/fd", "/dev/fd"},         {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"}, {"pts/ptmx", "/dev/ptmx"},
    };
    for (auto [target, path] : kLinks) {
      Result<void> made = vfs_.Symlink(Walk(), target, path);
      if (!made.ok() && made.error().code() != EEXIST) LOG_DEBUG("%s: %s", path, strerror(made.error().code()));
    }
  }

  // A node of that kind at `path`; what stands there instead is replaced. False with a warning when that fails.
  bool EnsureNode(const std::string& path, uint32_t mode, uint64_t rdev, uint32_t uid, uint32_t gid) {
    Result<VfsPath> existing = vfs_.Resolve(Walk(), path, FollowLast::kNo);
    if (existing.ok()) {
      Result<InodeAttr> attr = vfs_.Stat(*existing);
      if (attr.ok() && (attr->mode & S_IFMT) == (mode & S_IFMT) && attr->rdev == rdev) return true;
      vfs_.Unlink(Walk(), path).error_code();
    }
    Result<void> made = vfs_.Mknod(Walk(), path, mode, rdev, 0);
    if (!made.ok()) {
      LOG_WARNING("making device %s: %s", path.c_str(), strerror(made.error().code()));
      return false;
    }
    if (uid != 0 || gid != 0) {
      Result<VfsPath> node = vfs_.Resolve(Walk(), path, FollowLast::kNo);
      SetAttrRequest owner;
      owner.mask = SetAttrRequest::kUid | SetAttrRequest::kGid;
      owner.uid = uid;
      owner.gid = gid;
      if (node.ok()) vfs_.SetAttr(*creds_, *node, owner).error_code();
    }
    return true;
  }

  absl::Status MakeDevice(const proto::Device& device) {
    size_t slash = device.path().rfind('/');
    if (slash != std::string::npos && slash > 0) {
      Result<VfsPath> parent = MountPoint(device.path().substr(0, slash), false);
      if (!parent.ok()) return Failed("making the parent of device \"" + device.path() + "\"", parent.error());
    }
    if (!EnsureNode(device.path(), device.type() | device.mode(), makedev(device.major(), device.minor()), device.uid(),
                    device.gid())) {
      return absl::InternalError("making device \"" + device.path() + "\" failed");
    }
    return absl::OkStatus();
  }

  // OCI maskedPaths: a directory becomes an empty read-only tmpfs, anything else /dev/null; missing paths are fine.
  absl::Status Mask(const std::string& path) {
    Result<VfsPath> target = vfs_.Resolve(Walk(), path, FollowLast::kYes);
    if (!target.ok()) {
      if (target.error().code() == ENOENT || target.error().code() == ENOTDIR) return absl::OkStatus();
      return Failed("masking \"" + path + "\"", target.error());
    }
    if (target->dentry->inode()->IsDirectory()) {
      Result<RefPtr<Filesystem>> empty = NewTmpfs(kernel_, MountData{"tmpfs", "mode=755", *creds_});
      if (!empty.ok()) return Failed("masking \"" + path + "\"", empty.error());
      Result<void> attached = vfs_.Attach(*ns_, vfs_.NewMount(*empty, MS_RDONLY), *target);
      if (!attached.ok()) return Failed("masking \"" + path + "\"", attached.error());
      return absl::OkStatus();
    }
    Result<VfsPath> null = vfs_.Resolve(Walk(), "/dev/null", FollowLast::kYes);
    if (!null.ok()) return Failed("masking \"" + path + "\": /dev/null", null.error());
    Result<void> bound = vfs_.Bind(*ns_, *null, *target, false, 0);
    if (!bound.ok()) return Failed("masking \"" + path + "\"", bound.error());
    return absl::OkStatus();
  }

  absl::Status MakeReadonly(const std::string& path) {
    Result<VfsPath> target = vfs_.Resolve(Walk(), path, FollowLast::kYes);
    if (!target.ok()) {
      if (target.error().code() == ENOENT || target.error().code() == ENOTDIR) return absl::OkStatus();
      return Failed("making \"" + path + "\" read-only", target.error());
    }
    const uint64_t flags = target->mount->flags() | MS_RDONLY;
    Result<void> bound = vfs_.Bind(*ns_, *target, *target, true, 0);
    if (!bound.ok()) return Failed("making \"" + path + "\" read-only", bound.error());
    Result<VfsPath> covered = vfs_.Resolve(Walk(), path, FollowLast::kYes);
    if (!covered.ok()) return Failed("making \"" + path + "\" read-only", covered.error());
    Result<void> remounted = vfs_.Remount(*covered, flags);
    if (!remounted.ok()) return Failed("making \"" + path + "\" read-only", remounted.error());
    return absl::OkStatus();
  }

  Kernel& kernel_;
  Vfs& vfs_;
  RefPtr<GoferClient> gofer_;
  const proto::BootConfig& config_;
  RefPtr<const Credentials> creds_;
  RefPtr<MountNamespace> ns_;
};

}  // namespace

absl::StatusOr<RefPtr<MountNamespace>> BuildMounts(Kernel& kernel, RefPtr<GoferClient> gofer,
                                                   const proto::BootConfig& config) {
  return MountBuilder(kernel, std::move(gofer), config).Build();
}

}  // namespace caisson
