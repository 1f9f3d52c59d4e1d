#include "sentry/net/proc_net.h"

#include <stdio.h>

#include "sentry/net/network_namespace.h"
#include "sentry/net/socket.h"

namespace caisson {
namespace {

// One line per socket that has one in `file`, numbered as Linux numbers hash slots.
std::string Sockets(NetworkNamespace& ns, const char* file, const char* header, bool numbered, size_t width) {
  std::string out = header;
  int index = 0;
  ns.ForEachSocket([&](Socket& socket) {
    std::string line = socket.ProcLine(file);
    if (line.empty()) return;
    if (numbered) {
      char number[16];
      snprintf(number, sizeof number, "%4d: ", index++);
      line = number + line;
    }
    if (line.size() < width) line.resize(width, ' ');
    out += line + "\n";
  });
  return out;
}

constexpr char kTcpHeader[] =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    "                                                     \n";
constexpr char kTcp6Header[] =
    "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when"
    " retrnsmt   uid  timeout inode\n";
constexpr char kUdpHeader[] =
    "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops"
    "             \n";
constexpr char kUdp6Header[] =
    "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when"
    " retrnsmt   uid  timeout inode ref pointer drops\n";

std::string Tcp(NetworkNamespace& ns) { return Sockets(ns, "tcp", kTcpHeader, true, 149); }
std::string Tcp6(NetworkNamespace& ns) { return Sockets(ns, "tcp6", kTcp6Header, true, 0); }
std::string Udp(NetworkNamespace& ns) { return Sockets(ns, "udp", kUdpHeader, true, 127); }
std::string Udp6(NetworkNamespace& ns) { return Sockets(ns, "udp6", kUdp6Header, true, 0); }
std::string Unix(NetworkNamespace& ns) {
  return Sockets(ns, "unix", "Num       RefCount Protocol Flags    Type St Inode Path\n", false, 0);
}

std::string Dev(NetworkNamespace&) {
  return "Inter-|   Receive                                                |  Transmit\n"
         " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier "
         "compressed\n"
         "    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0  "
         "        0\n";
}

// The main table is empty: nothing but the namespace itself can be reached.
std::string Route(NetworkNamespace&) {
  std::string line = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
  line.resize(127, ' ');
  return line + "\n";
}
std::string IfInet6(NetworkNamespace&) { return "00000000000000000000000000000001 01 80 10 80       lo\n"; }
std::string Ipv6Route(NetworkNamespace&) {
  return "00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 "
         "00000001 00000000 80200001       lo\n";
}
std::string Arp(NetworkNamespace&) {
  return "IP address       HW type     Flags       HW address            Mask     Device\n";
}
std::string Packet(NetworkNamespace&) { return "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n"; }
std::string Raw(NetworkNamespace&) { return kUdpHeader; }
std::string Netlink(NetworkNamespace&) {
  return "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";
}
std::string Protocols(NetworkNamespace&) {
  return "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em\n";
}

constexpr ProcNetFile kFiles[] = {
    {"arp", &Arp},         {"dev", &Dev},       {"if_inet6", &IfInet6}, {"ipv6_route", &Ipv6Route}, {"netlink", &Netlink},
    {"packet", &Packet},   {"protocols", &Protocols}, {"raw", &Raw},    {"route", &Route},          {"tcp", &Tcp},
    {"tcp6", &Tcp6},       {"udp", &Udp},       {"udp6", &Udp6},        {"unix", &Unix},
};

}  // namespace

std::span<const ProcNetFile> ProcNetFiles() { return kFiles; }

}  // namespace caisson
