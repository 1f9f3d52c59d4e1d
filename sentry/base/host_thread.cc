#include "sentry/base/host_thread.h"

#include <pthread.h>
#include <signal.h>

#include <memory>

namespace caisson {
namespace {

void* RunBody(void* argument) {
  std::unique_ptr<std::function<void()>> body(static_cast<std::function<void()>*>(argument));
  (*body)();
  return nullptr;
}

}  // namespace

Result<void> StartHostThread(std::function<void()> body) {
  auto owned = std::make_unique<std::function<void()>>(std::move(body));
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kHostThreadStackBytes);
  // Signals that are sent to the sentry as a process are for the thread that waits for them. Those of faults cannot be
  // blocked in earnest, and must reach their handlers.
  sigset_t blocked, before;
  sigfillset(&blocked);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) sigdelset(&blocked, fault);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  pthread_t thread;
  int error = pthread_create(&thread, &attributes, RunBody, owned.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (error != 0) return Errno(EAGAIN);
  owned.release();
  return {};
}

}  // namespace caisson
