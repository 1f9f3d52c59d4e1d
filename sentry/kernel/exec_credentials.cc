// What credentials become over execve(2): set-id bits, file capabilities, ambient capabilities (capabilities(7),
// "Transformation of capabilities during execve()").
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/mount.h>

#include "sentry/kernel/exec.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/vfs.h"

namespace caisson {
namespace {

struct FileCapabilities {
  CapabilitySet permitted = 0, inheritable = 0;
  bool effective = false;
};

uint32_t LittleEndian32(const std::string& bytes, size_t offset) {
  uint32_t value;
  memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

// security.capability of the file; nothing when there is none or it is not for this user namespace. EINVAL: malformed.
Result<bool> ReadFileCapabilities(File& file, const Credentials& creds, FileCapabilities* caps) {
  Result<std::string> value = file.inode().GetXattr("security.capability");
  if (!value.ok()) return false;
  const std::string& bytes = *value;
  if (bytes.size() < sizeof(uint32_t)) return Errno(EINVAL);
  const uint32_t magic = LittleEndian32(bytes, 0);
  uint64_t words = 0;
  switch (magic & VFS_CAP_REVISION_MASK) {
    case VFS_CAP_REVISION_1:
      if (bytes.size() != XATTR_CAPS_SZ_1) return Errno(EINVAL);
      words = 1;
      break;
    case VFS_CAP_REVISION_2:
      if (bytes.size() != XATTR_CAPS_SZ_2) return Errno(EINVAL);
      words = 2;
      break;
    case VFS_CAP_REVISION_3: {
      if (bytes.size() != XATTR_CAPS_SZ_3) return Errno(EINVAL);
      words = 2;
      // They count where the root user of the namespace is the one that the file names.
      const uint32_t root = LittleEndian32(bytes, XATTR_CAPS_SZ_2);
      if (creds.user_ns->UidToKernel(0) != root) return false;
      break;
    }
    default:
      return Errno(EINVAL);
  }
  caps->effective = magic & VFS_CAP_FLAGS_EFFECTIVE;
  for (uint64_t i = 0; i < words; ++i) {
    caps->permitted |= static_cast<uint64_t>(LittleEndian32(bytes, 4 + 8 * i)) << (32 * i);
    caps->inheritable |= static_cast<uint64_t>(LittleEndian32(bytes, 8 + 8 * i)) << (32 * i);
  }
  caps->permitted &= kAllCapabilities;
  caps->inheritable &= kAllCapabilities;
  return true;
}

}  // namespace

Result<ExecCredentials> CredentialsForExec(const Credentials& old, File& file, bool shares_fs) {
  RefPtr<Credentials> creds = old.Clone();
  const InodeAttr attr = TRY(file.inode().GetAttr());
  const bool may_gain = !(file.path().mount->flags() & MS_NOSUID);
  const uid_t root = old.user_ns->UidToKernel(0);

  if (may_gain && !old.no_new_privs && old.user_ns->UidFromKernel(attr.uid) != UINT32_MAX &&
      old.user_ns->GidFromKernel(attr.gid) != UINT32_MAX) {
    if (attr.mode & S_ISUID) creds->euid = attr.uid;
    if ((attr.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP)) creds->egid = attr.gid;
  }

  FileCapabilities file_caps;
  bool has_file_caps = false;
  bool effective = false;
  creds->permitted = 0;
  if (may_gain) {
    has_file_caps = TRY(ReadFileCapabilities(file, old, &file_caps));
    if (has_file_caps) {
      effective = file_caps.effective;
      creds->permitted = (old.bounding & file_caps.permitted) | (old.inheritable & file_caps.inheritable);
      // A program that knows nothing of capabilities would run with less than it needs.
      if (effective && (file_caps.permitted & ~creds->permitted)) return Errno(EPERM);
    }
  }
  if (!(old.securebits & (1u << SECURE_NOROOT)) && root != UINT32_MAX) {
    // A set-user-id-root program with file capabilities gets those alone.
    const bool suid_root = creds->uid != root && creds->euid == root;
    if (!(has_file_caps && suid_root)) {
      if (creds->euid == root || creds->uid == root) creds->permitted = old.bounding | old.inheritable;
      if (creds->euid == root) effective = true;
    }
  }
  const bool gained = creds->permitted & ~old.permitted;
  const bool set_id = creds->euid != old.uid || creds->egid != old.gid;
  ExecCredentials result;
  result.clear_personality = gained || creds->euid != old.euid || creds->egid != old.egid;
  if ((set_id || gained) && (shares_fs || old.no_new_privs)) {
    // Somebody who shares our root directory could feed the program what he likes.
    if (old.no_new_privs || !old.HasCapability(CAP_SETUID)) {
      creds->euid = creds->uid;
      creds->egid = creds->gid;
    }
    creds->permitted &= old.permitted;
  }
  creds->suid = creds->fsuid = creds->euid;
  creds->sgid = creds->fsgid = creds->egid;
  if (has_file_caps || set_id) creds->ambient = 0;
  creds->permitted |= creds->ambient;
  creds->effective = effective ? creds->permitted : creds->ambient;
  creds->keep_caps = false;
  creds->securebits &= ~(1u << SECURE_KEEP_CAPS);
  const bool grew = creds->permitted & ~(old.ambient);
  result.secure = set_id || (creds->uid != root && (effective || grew));
  result.creds = std::move(creds);
  return result;
}

}  // namespace caisson
