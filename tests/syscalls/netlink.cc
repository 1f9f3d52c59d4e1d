// AF_NETLINK with NETLINK_ROUTE (rtnetlink(7)), and the interface ioctls (netdevice(7)).
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {

struct Request {
  nlmsghdr header;
  rtgenmsg body;
};

int OpenRoute() {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  sockaddr_nl name{};
  name.nl_family = AF_NETLINK;
  EXPECT_OK(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name));
  return fd;
}

void Ask(int fd, uint16_t type, uint16_t flags, uint8_t family = AF_UNSPEC) {
  Request request{};
  request.header.nlmsg_len = NLMSG_LENGTH(sizeof request.body);
  request.header.nlmsg_type = type;
  request.header.nlmsg_flags = NLM_F_REQUEST | flags;
  request.header.nlmsg_seq = 77;
  request.body.rtgen_family = family;
  EXPECT_EQ(send(fd, &request, request.header.nlmsg_len, 0), static_cast<ssize_t>(request.header.nlmsg_len));
}

// All messages up to the end of the dump or an error, by a callback.
template <typename Visit>
bool Collect(int fd, Visit visit) {
  std::vector<char> buffer(65536);
  while (true) {
    ssize_t n = recv(fd, buffer.data(), buffer.size(), 0);
    if (n <= 0) return false;
    int left = static_cast<int>(n);
    for (auto* h = reinterpret_cast<nlmsghdr*>(buffer.data()); NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
      EXPECT_EQ(h->nlmsg_seq, 77u);
      if (h->nlmsg_type == NLMSG_DONE) return true;
      visit(h);
      if (h->nlmsg_type == NLMSG_ERROR) return true;
    }
  }
}

}  // namespace

GUEST_TEST(Netlink, DumpOfLinksHasLoopback) {
  int fd = OpenRoute();
  Ask(fd, RTM_GETLINK, NLM_F_DUMP);
  bool found = false;
  EXPECT_TRUE(Collect(fd, [&](nlmsghdr* h) {
    if (h->nlmsg_type != RTM_NEWLINK) return;
    auto* info = static_cast<ifinfomsg*>(NLMSG_DATA(h));
    int left = static_cast<int>(IFLA_PAYLOAD(h));
    for (rtattr* a = IFLA_RTA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
      if (a->rta_type == IFLA_IFNAME && std::string(static_cast<char*>(RTA_DATA(a))) == "lo") {
        found = true;
        EXPECT_TRUE(info->ifi_flags & IFF_LOOPBACK);
        EXPECT_EQ(info->ifi_index, 1);
      }
    }
  }));
  EXPECT_TRUE(found);
  close(fd);
}

GUEST_TEST(Netlink, DumpOfAddressesAndRoutesEnds) {
  int fd = OpenRoute(), addresses = 0;
  Ask(fd, RTM_GETADDR, NLM_F_DUMP, AF_INET);
  EXPECT_TRUE(Collect(fd, [&](nlmsghdr* h) {
    if (h->nlmsg_type != RTM_NEWADDR) return;
    auto* info = static_cast<ifaddrmsg*>(NLMSG_DATA(h));
    EXPECT_EQ(info->ifa_family, AF_INET);
    ++addresses;
  }));
  EXPECT_GE(addresses, guest::InSandbox() ? 1 : 0);
  Ask(fd, RTM_GETROUTE, NLM_F_DUMP);
  EXPECT_TRUE(Collect(fd, [](nlmsghdr*) {}));
  close(fd);
}

GUEST_TEST(Netlink, NamesAcksAndErrors) {
  int fd = OpenRoute();
  sockaddr_nl name{};
  socklen_t length = sizeof name;
  EXPECT_OK(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length));
  EXPECT_EQ(length, sizeof name);
  EXPECT_NE(name.nl_pid, 0u);
  // A type that there is not is an error that carries the request's header.
  Ask(fd, 0x7f0, 0);
  int error = 0;
  EXPECT_TRUE(Collect(fd, [&](nlmsghdr* h) {
    if (h->nlmsg_type == NLMSG_ERROR) error = static_cast<nlmsgerr*>(NLMSG_DATA(h))->error;
  }));
  EXPECT_EQ(error, -EOPNOTSUPP);
  // Too short to be a message: taken, and not answered.
  EXPECT_EQ(send(fd, "xx", 2, 0), 2);
  pollfd p{fd, POLLIN | POLLOUT, 0};
  EXPECT_EQ(poll(&p, 1, 0), 1);
  EXPECT_EQ(p.revents, POLLOUT);
  char byte;
  EXPECT_ERRNO(recv(fd, &byte, 1, MSG_DONTWAIT), EAGAIN);
  EXPECT_ERRNO(socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE), ESOCKTNOSUPPORT);
  EXPECT_ERRNO(socket(AF_NETLINK, SOCK_RAW, 100), EPROTONOSUPPORT);
  close(fd);
}

GUEST_TEST(Netlink, TruncationIsTold) {
  int fd = OpenRoute();
  Ask(fd, RTM_GETLINK, NLM_F_DUMP);
  char head[16];
  ssize_t all = recv(fd, head, sizeof head, MSG_PEEK | MSG_TRUNC);
  EXPECT_GT(all, static_cast<ssize_t>(sizeof head));
  EXPECT_TRUE(Collect(fd, [](nlmsghdr*) {}));
  close(fd);
}

GUEST_TEST(Netlink, UeventsStaySilent) {
  int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
  ASSERT_OK(fd);
  sockaddr_nl name{};
  name.nl_family = AF_NETLINK;
  name.nl_groups = 1;
  EXPECT_OK(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name));
  char byte;
  EXPECT_ERRNO(recv(fd, &byte, 1, 0), EAGAIN);
  close(fd);
}

GUEST_TEST(Netdevice, NamesAndNumbers) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  ifreq request{};
  strcpy(request.ifr_name, "lo");
  EXPECT_OK(ioctl(fd, SIOCGIFINDEX, &request));
  EXPECT_EQ(request.ifr_ifindex, 1);
  request = ifreq{};
  request.ifr_ifindex = 1;
  EXPECT_OK(ioctl(fd, SIOCGIFNAME, &request));
  EXPECT_EQ(std::string(request.ifr_name), "lo");
  EXPECT_OK(ioctl(fd, SIOCGIFMTU, &request));
  EXPECT_EQ(request.ifr_mtu, 65536);
  strcpy(request.ifr_name, "eth77");
  EXPECT_ERRNO(ioctl(fd, SIOCGIFFLAGS, &request), ENODEV);
  EXPECT_ERRNO(ioctl(fd, SIOCGIFFLAGS, guest::UnmappedAddress()), EFAULT);
  EXPECT_EQ(if_nametoindex("lo"), 1u);
  close(fd);
}
