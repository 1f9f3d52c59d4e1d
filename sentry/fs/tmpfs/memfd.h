// memfd_create(2): a file of a tmpfs of its own, without a name.
#ifndef CAISSON_SENTRY_FS_TMPFS_MEMFD_H_
#define CAISSON_SENTRY_FS_TMPFS_MEMFD_H_

#include <string_view>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"

namespace caisson {

class Credentials;
class File;
class Kernel;

// Opened for reading and writing. `name` shows as "/memfd:name (deleted)". Without `allow_sealing` it is sealed against
// seals; without `executable` it has mode 0666 and F_SEAL_EXEC's meaning is left to the caller. ENFILE never; ENOMEM.
Result<RefPtr<File>> NewMemfd(Kernel& kernel, const Credentials& creds, std::string_view name, bool allow_sealing,
                              bool executable);

// fcntl(F_GET_SEALS, F_ADD_SEALS): any tmpfs file. EINVAL for others; EPERM, EBUSY as fcntl(2).
Result<int> GetSeals(File& file);
Result<void> AddSeals(File& file, int seals);

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_TMPFS_MEMFD_H_
