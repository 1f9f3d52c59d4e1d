// The gofer process: the only one of a sandbox that opens host files by path. One serves one container.
//
//   GoferOptions options;
//   options.socket_fd = 3;
//   options.mounts.push_back({.fd = rootfs_fd, .read_only = true});
//   return GoferMain(options);
//
// It treats the sentry, at the other end of the socket, as hostile, and confines itself before it reads the first byte:
// an empty root in its own mount namespace, with each mount cloned so that ".." ends at its root; only the capabilities
// that file ownership and permissions need; no new privileges; no other descriptors; a seccomp allow-list that kills.
#ifndef CAISSON_GOFER_SERVER_GOFER_H_
#define CAISSON_GOFER_SERVER_GOFER_H_

#include <vector>

namespace caisson {

struct GoferMount {
  int fd = -1;  // Of a directory, or of one file (O_PATH suffices). The gofer takes it over.
  bool read_only = false;
  bool connect_uds = false;  // --host-uds=open or all: the sandbox may connect to unix sockets beneath it.
  bool bind_uds = false;     // --host-uds=create or all: … may bind unix sockets beneath it that the host can reach.
};

struct GoferOptions {
  int socket_fd = -1;              // AF_UNIX, SOCK_SEQPACKET, connected to the sentry.
  std::vector<GoferMount> mounts;  // The sentry names them by index.
  int log_fd = -1;                 // Where the process log goes (InitLog was called with it); kept open. -1: none.
  bool die_with_parent = true;     // PR_SET_PDEATHSIG, SIGKILL. False where the parent is short-lived.
  // It was started in mount, IPC, UTS and network namespaces that are not the host's, and no one's who could be reached
  // through them: making others (a network namespace takes milliseconds) would gain nothing.
  bool own_namespaces = false;
  // For tests of the protocol in a process that must go on unconfined afterwards: skips namespaces and the empty root.
  bool skip_namespaces_for_test = false;
};

// Confines the calling process, which must have one thread, and serves until the sentry closes its socket. Returns the
// exit status: 0, or 1 after logging why it could not start.
int GoferMain(const GoferOptions& options);

}  // namespace caisson

#endif  // CAISSON_GOFER_SERVER_GOFER_H_
