// The sentry's end of the control socket (runsc/sandbox/README.md, "Control socket").
#ifndef CAISSON_RUNSC_BOOT_CONTROL_SERVER_H_
#define CAISSON_RUNSC_BOOT_CONTROL_SERVER_H_

#include <list>
#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "runsc/boot/process.h"
#include "runsc/sandbox/control.pb.h"
#include "sentry/base/unique_fd.h"

namespace caisson {

// One thread accepts; each connection has a thread of its own, since requests block. Connections are few and come from
// runsc alone.
class ControlServer {
 public:
  // `plain_init`: as Settings.plain_init.
  ControlServer(Kernel& kernel, ContainerContext container, RefPtr<ThreadGroup> init, bool plain_init, UniqueFd listener);
  void Start();

  // A signal that the host sent to the sentry itself.
  void ForwardHostSignal(int signo, bool from_terminal);

  // The first process has ended: answers those that wait for it. Returns when their answers are written.
  void FinishPendingWaits();

 private:
  class Connection;

  void AcceptLoop();
  void Serve(int fd);
  // Every request but exec and wait, which are answered later.
  proto::ControlResponse Answer(const proto::ControlRequest& request);
  proto::ControlResponse StartInit();
  proto::ControlResponse Signal(const proto::SignalRequest& request, const RefPtr<ThreadGroup>& process);
  proto::ControlResponse Ps();
  proto::ControlResponse Stats();
  proto::ControlResponse State();
  bool started();

  Kernel& kernel_;
  const ContainerContext container_;
  const RefPtr<ThreadGroup> init_;
  const bool plain_init_;
  UniqueFd listener_;
  absl::Mutex mutex_;
  bool started_ ABSL_GUARDED_BY(mutex_) = false;
  int pending_waits_ ABSL_GUARDED_BY(mutex_) = 0;  // Connections that owe an answer about an ended process.
};

}  // namespace caisson

#endif  // CAISSON_RUNSC_BOOT_CONTROL_SERVER_H_
