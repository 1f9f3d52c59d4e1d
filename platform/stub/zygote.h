// The sentry's side of the zygote.
#ifndef CAISSON_PLATFORM_STUB_ZYGOTE_H_
#define CAISSON_PLATFORM_STUB_ZYGOTE_H_

#include <memory>

#include "absl/synchronization/mutex.h"
#include "platform/platform.h"
#include "platform/stub/control_memory.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson::stub {

class ZygoteProcess final : public Zygote {
 public:
  static Result<std::unique_ptr<ZygoteProcess>> Start(PlatformKind kind, int memory_fd);
  ~ZygoteProcess() override;

  int pid() const override { return pid_; }
  PlatformKind kind() const { return kind_; }
  ControlMemory& control() { return *control_; }

  struct Spawned {
    int pid;
    UniqueFd pidfd;
    UniqueFd socket;    // To the service thread, for descriptors.
    UniqueFd requests;  // An eventfd that wakes it.
    UniqueFd answers;   // A pipe from it: one byte for each request, an errno or 0.
  };
  // A new stub with request page `slot`. EAGAIN, ENOMEM: refused by the host; ESRCH: the zygote is gone.
  Result<Spawned> Spawn(uint32_t slot);
  // Collects a stub that has ended; until then its pid is not used again.
  void Reap(int pid);

 private:
  ZygoteProcess(PlatformKind kind, int pid, UniqueFd channel, std::unique_ptr<ControlMemory> control)
      : kind_(kind), pid_(pid), channel_(std::move(channel)), control_(std::move(control)) {}

  const PlatformKind kind_;
  const int pid_;
  UniqueFd channel_;
  const std::unique_ptr<ControlMemory> control_;
  absl::Mutex mu_;  // Held from a request to its answer.
};

}  // namespace caisson::stub

#endif  // CAISSON_PLATFORM_STUB_ZYGOTE_H_
