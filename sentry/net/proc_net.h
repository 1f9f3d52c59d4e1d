// The files of /proc/net, made from a network namespace (proc(5)).
#ifndef CAISSON_SENTRY_NET_PROC_NET_H_
#define CAISSON_SENTRY_NET_PROC_NET_H_

#include <span>
#include <string>

namespace caisson {

class NetworkNamespace;

struct ProcNetFile {
  const char* name;  // "tcp", "unix" …
  std::string (*generate)(NetworkNamespace& ns);
};

// dev, tcp, tcp6, udp, udp6, unix, route, if_inet6, …
std::span<const ProcNetFile> ProcNetFiles();

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_PROC_NET_H_
