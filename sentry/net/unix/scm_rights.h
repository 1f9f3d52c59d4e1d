// Descriptors in flight (SCM_RIGHTS), their limits, and the collector of cycles: sockets that only messages in each
// other's queues refer to are unreachable and are emptied (Linux's net/unix/garbage.c).
#ifndef CAISSON_SENTRY_NET_UNIX_SCM_RIGHTS_H_
#define CAISSON_SENTRY_NET_UNIX_SCM_RIGHTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/vfs/file.h"

namespace caisson {

class UnixCore;
class UnixSocket;

inline constexpr size_t kMaxRightsPerMessage = 253;  // SCM_MAX_FD

// The files of one message, counted as in flight for as long as this exists.
class RightsInFlight {
 public:
  // ETOOMANYREFS: more than `file_limit` descriptors of user `uid` are in flight, or sockets in flight are nested too deep.
  static Result<std::unique_ptr<RightsInFlight>> New(std::vector<RefPtr<File>> files, uid_t uid, uint64_t file_limit);
  ~RightsInFlight();

  // Takes them out of flight.
  std::vector<RefPtr<File>> Take();
  // MSG_PEEK: they stay in flight.
  const std::vector<RefPtr<File>>& files() const { return files_; }
  int depth() const { return depth_; }

 private:
  RightsInFlight() = default;
  void Land();

  std::vector<RefPtr<File>> files_;
  uid_t uid_ = 0;
  int depth_ = 0;  // 1 + the greatest depth of what sockets among the files hold themselves.
};

// Empties queues that nobody can reach any more. Cheap when no socket is in flight. Not under a lock of a socket.
void CollectUnixCycles();

// Drops files without recursing: a socket among them may hold messages with more sockets. Not under a lock.
void DropFiles(std::vector<RefPtr<File>> files);

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_UNIX_SCM_RIGHTS_H_
