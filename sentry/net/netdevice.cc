#include "sentry/net/netdevice.h"

#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>

#include <cstring>

#include "sentry/kernel/task.h"
#include "sentry/net/network_namespace.h"

namespace caisson {
namespace {

using Ifreq = struct ::ifreq;
static_assert(sizeof(Ifreq) == 40);

struct Ifconf {  // struct ifconf
  int32_t length;
  int32_t pad;
  uint64_t buffer;
};

sockaddr Inet(uint32_t address) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(address);
  sockaddr out;
  static_assert(sizeof in == sizeof out);
  memcpy(&out, &in, sizeof out);
  return out;
}

Result<int64_t> ListInterfaces(Task& task, uint64_t argument) {
  Ifconf conf = TRY(task.CopyIn(UserPtr<Ifconf>{argument}));
  Ifreq lo{};
  strcpy(lo.ifr_name, "lo");
  lo.ifr_addr = Inet(INADDR_LOOPBACK);
  if (conf.buffer == 0) {
    conf.length = sizeof lo;
  } else if (conf.length >= static_cast<int32_t>(sizeof lo)) {
    TRY(task.CopyOut(UserPtr<Ifreq>{conf.buffer}, lo));
    conf.length = sizeof lo;
  } else {
    conf.length = 0;
  }
  TRY(task.CopyOut(UserPtr<Ifconf>{argument}, conf));
  return int64_t{0};
}

}  // namespace

Result<int64_t> NetdeviceIoctl(Task& task, NetworkNamespace& ns, unsigned command, uint64_t argument) {
  if (command == SIOCGIFCONF) return ListInterfaces(task, argument);
  switch (command) {
    case SIOCGIFFLAGS: case SIOCGIFADDR: case SIOCGIFINDEX: case SIOCGIFNAME: case SIOCGIFMTU: case SIOCGIFHWADDR:
    case SIOCGIFNETMASK: case SIOCGIFBRDADDR: case SIOCGIFDSTADDR: case SIOCGIFMETRIC: case SIOCGIFTXQLEN:
      break;
    case SIOCSIFFLAGS: case SIOCSIFADDR: case SIOCSIFNETMASK: case SIOCSIFMTU: case SIOCSIFNAME: case SIOCSIFHWADDR:
    case SIOCSIFBRDADDR: case SIOCSIFDSTADDR: case SIOCSIFMETRIC: case SIOCSIFTXQLEN: case SIOCADDRT: case SIOCDELRT:
      if (!task.creds().HasCapabilityIn(CAP_NET_ADMIN, ns.owner())) return Errno(EPERM);
      return Errno(EOPNOTSUPP);
    default:
      return Errno(ENOTTY);
  }
  Ifreq request = TRY(task.CopyIn(UserPtr<Ifreq>{argument}));
  request.ifr_name[IFNAMSIZ - 1] = '\0';
  if (command == SIOCGIFNAME) {
    if (request.ifr_ifindex != kLoopbackIndex) return Errno(ENODEV);
    memset(request.ifr_name, 0, sizeof request.ifr_name);
    strcpy(request.ifr_name, "lo");
  } else if (strcmp(request.ifr_name, "lo") != 0) {
    return Errno(ENODEV);
  }
  switch (command) {
    case SIOCGIFFLAGS:
      request.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
      break;
    case SIOCGIFADDR:
    case SIOCGIFDSTADDR:
      request.ifr_addr = Inet(INADDR_LOOPBACK);
      break;
    case SIOCGIFNETMASK:
      request.ifr_netmask = Inet(0xff000000);
      break;
    case SIOCGIFBRDADDR:
      request.ifr_broadaddr = Inet(0);
      break;
    case SIOCGIFINDEX:
      request.ifr_ifindex = kLoopbackIndex;
      break;
    case SIOCGIFMTU:
      request.ifr_mtu = kLoopbackMtu;
      break;
    case SIOCGIFHWADDR:
      memset(&request.ifr_hwaddr, 0, sizeof request.ifr_hwaddr);
      request.ifr_hwaddr.sa_family = ARPHRD_LOOPBACK;
      break;
    case SIOCGIFMETRIC:
      request.ifr_metric = 0;
      break;
    case SIOCGIFTXQLEN:
      request.ifr_qlen = 1000;
      break;
    default:
      break;
  }
  TRY(task.CopyOut(UserPtr<Ifreq>{argument}, request));
  return int64_t{0};
}

}  // namespace caisson
