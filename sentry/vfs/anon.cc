// Paths of what has no place in the tree: pipes, sockets, eventfds, memfds.
#include "absl/synchronization/mutex.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/filesystem_type.h"
#include "sentry/vfs/vfs_impl.h"

namespace caisson {
namespace {

constexpr uint64_t kPipeMagic = 0x50495045, kSocketMagic = 0x534f434b, kAnonMagic = 0x09041934;

class AnonInode final : public Inode {
 public:
  AnonInode(Filesystem& fs, uint32_t mode, uid_t uid, gid_t gid) : Inode(fs, mode) {
    int64_t now = FileTimeNow();
    attr_ = {.mode = mode, .uid = uid, .gid = gid, .ino = fs.NextIno(), .dev = fs.device(),
             .atime_ns = now, .mtime_ns = now, .ctime_ns = now};
  }
  Result<InodeAttr> GetAttr() override {
    absl::MutexLock lock(&attr_mutex_);
    return attr_;
  }
  Result<void> SetAttr(const SetAttrRequest& request) override {
    if (request.mask & SetAttrRequest::kSize) return Errno(EINVAL);
    absl::MutexLock lock(&attr_mutex_);
    if (request.mask & SetAttrRequest::kMode) attr_.mode = (attr_.mode & S_IFMT) | request.mode;
    if (request.mask & SetAttrRequest::kUid) attr_.uid = request.uid;
    if (request.mask & SetAttrRequest::kGid) attr_.gid = request.gid;
    if (request.mask & SetAttrRequest::kAtime) attr_.atime_ns = request.atime_ns;
    if (request.mask & SetAttrRequest::kMtime) attr_.mtime_ns = request.mtime_ns;
    attr_.ctime_ns = FileTimeNow();
    return {};
  }
  // Through /proc/PID/fd. Only a pipe can be opened again.
  Result<RefPtr<File>> Open(const VfsPath& path, int flags) override {
    if (type() != S_IFIFO) return Errno(ENXIO);
    return OpenSpecial(fs().kernel(), *this, path, flags, 0);
  }

 private:
  absl::Mutex attr_mutex_;
  InodeAttr attr_ ABSL_GUARDED_BY(attr_mutex_);
};

class AnonFilesystem final : public Filesystem {
 public:
  AnonFilesystem(Kernel& kernel, const char* name, uint64_t magic)
      : Filesystem(kernel), name_(name), magic_(magic), root_(MakeRef<AnonInode>(*this, S_IFDIR | 0500, 0, 0)) {}
  const char* type_name() const override { return name_; }
  RefPtr<Inode> root() override { return root_; }
  Result<abi::Statfs> Statfs() override {
    abi::Statfs s{};
    s.f_type = static_cast<long>(magic_);
    s.f_bsize = s.f_frsize = abi::kPageSize;
    s.f_namelen = abi::kNameMax;
    return s;
  }

 private:
  const char* const name_;
  const uint64_t magic_;
  const RefPtr<Inode> root_;
};

}  // namespace

VfsImpl::VfsImpl(Kernel& kernel) : kernel_(kernel) {
  auto make = [&](const char* name, uint64_t magic) {
    RefPtr<Filesystem> fs = MakeRef<AnonFilesystem>(kernel_, name, magic);
    RefPtr<Mount> mount = NewMount(fs, 0, name);
    return AnonMount{std::move(fs), std::move(mount)};
  };
  pipes_ = make("pipefs", kPipeMagic);
  sockets_ = make("sockfs", kSocketMagic);
  others_ = make("anon_inodefs", kAnonMagic);
}

VfsImpl::~VfsImpl() = default;

VfsImpl::AnonMount& VfsImpl::AnonMountFor(std::string_view name) {
  if (name == "pipe:") return pipes_;
  if (name == "socket:") return sockets_;
  return others_;
}

VfsPath VfsImpl::AnonPath(std::string_view name, uint32_t mode, const Credentials* creds) {
  AnonMount& anon = AnonMountFor(name);
  auto inode = MakeRef<AnonInode>(*anon.fs, mode, creds ? creds->fsuid : 0, creds ? creds->fsgid : 0);
  return VfsPath(anon.mount, anon.fs->dentries().NewDetached(std::move(inode), name, false));
}

VfsPath VfsImpl::AnonInodePath(RefPtr<Inode> inode, std::string_view name) {
  AnonMount& anon = AnonMountFor(name);
  return VfsPath(anon.mount, anon.fs->dentries().NewDetached(std::move(inode), name, false));
}

RefPtr<Mount> VfsImpl::ShmMount(absl::FunctionRef<RefPtr<Filesystem>()> make) {
  absl::MutexLock lock(&shm_mutex_);
  if (!shm_) shm_ = NewMount(make(), 0, "tmpfs");
  return shm_;
}

VfsPath VfsImpl::DetachedPath(RefPtr<Inode> inode, std::string_view name) {
  RefPtr<Filesystem> fs(&inode->fs());
  DentryTree& tree = fs->dentries();
  RefPtr<Mount> mount = NewMount(std::move(fs), 0, "none");
  return VfsPath(std::move(mount), tree.NewDetached(std::move(inode), name, true));
}

}  // namespace caisson
