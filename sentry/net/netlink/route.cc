#include "sentry/net/netlink/route.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>

#include "sentry/net/netdevice.h"

namespace caisson {
namespace {

constexpr unsigned kLowerUp = 1 << 16;  // IFF_LOWER_UP
constexpr uint8_t kLoopback4[4] = {127, 0, 0, 1};
constexpr uint8_t kLoopbackNet4[4] = {127, 0, 0, 0};
constexpr uint8_t kBroadcast4[4] = {127, 255, 255, 255};
constexpr uint8_t kLoopback6[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

struct Context {
  const NetlinkRequest& request;
  uint32_t port;
  uint16_t flags;
  std::vector<uint8_t>* out;
  NetlinkMessage Start(uint16_t type) const { return {type, flags, request.header.nlmsg_seq, port}; }
};

void AppendLink(const Context& context) {
  ::ifinfomsg info{};
  info.ifi_type = ARPHRD_LOOPBACK;
  info.ifi_index = kLoopbackIndex;
  info.ifi_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING | kLowerUp;
  const uint8_t hardware[6] = {};
  const ::rtnl_link_stats64 stats{};
  context.Start(RTM_NEWLINK)
      .Body(info)
      .StringAttribute(IFLA_IFNAME, "lo")
      .Attribute(IFLA_TXQLEN, uint32_t{1000})
      .Attribute(IFLA_OPERSTATE, uint8_t{0})
      .Attribute(IFLA_LINKMODE, uint8_t{0})
      .Attribute(IFLA_MTU, uint32_t{kLoopbackMtu})
      .Attribute(IFLA_GROUP, uint32_t{0})
      .Attribute(IFLA_PROMISCUITY, uint32_t{0})
      .Attribute(IFLA_NUM_TX_QUEUES, uint32_t{1})
      .Attribute(IFLA_NUM_RX_QUEUES, uint32_t{1})
      .Attribute(IFLA_CARRIER, uint8_t{1})
      .StringAttribute(IFLA_QDISC, "noqueue")
      .Attribute(IFLA_ADDRESS, hardware, sizeof hardware)
      .Attribute(IFLA_BROADCAST, hardware, sizeof hardware)
      .Attribute(IFLA_STATS64, stats)
      .AppendTo(context.out);
}

void AppendAddress(const Context& context, int family) {
  ::ifaddrmsg info{};
  info.ifa_family = static_cast<uint8_t>(family);
  info.ifa_prefixlen = family == AF_INET ? 8 : 128;
  info.ifa_flags = IFA_F_PERMANENT;
  info.ifa_scope = RT_SCOPE_HOST;
  info.ifa_index = kLoopbackIndex;
  ::ifa_cacheinfo cache{};
  cache.ifa_prefered = cache.ifa_valid = UINT32_MAX;
  NetlinkMessage message = context.Start(RTM_NEWADDR);
  message.Body(info);
  if (family == AF_INET) {
    message.Attribute(IFA_ADDRESS, kLoopback4).Attribute(IFA_LOCAL, kLoopback4).StringAttribute(IFA_LABEL, "lo");
  } else {
    message.Attribute(IFA_ADDRESS, kLoopback6);
  }
  message.Attribute(IFA_FLAGS, uint32_t{IFA_F_PERMANENT}).Attribute(IFA_CACHEINFO, cache).AppendTo(context.out);
}

void AppendRoute4(const Context& context, const uint8_t (&to)[4], uint8_t prefix, uint8_t type) {
  ::rtmsg info{};
  info.rtm_family = AF_INET;
  info.rtm_dst_len = prefix;
  info.rtm_table = RT_TABLE_LOCAL;
  info.rtm_protocol = RTPROT_KERNEL;
  info.rtm_scope = type == RTN_BROADCAST ? RT_SCOPE_LINK : RT_SCOPE_HOST;
  info.rtm_type = type;
  context.Start(RTM_NEWROUTE)
      .Body(info)
      .Attribute(RTA_TABLE, uint32_t{RT_TABLE_LOCAL})
      .Attribute(RTA_DST, to)
      .Attribute(RTA_PREFSRC, kLoopback4)
      .Attribute(RTA_OIF, uint32_t{kLoopbackIndex})
      .AppendTo(context.out);
}

void AppendRoute6(const Context& context) {
  ::rtmsg info{};
  info.rtm_family = AF_INET6;
  info.rtm_dst_len = 128;
  info.rtm_table = RT_TABLE_LOCAL;
  info.rtm_protocol = RTPROT_KERNEL;
  info.rtm_type = RTN_LOCAL;
  context.Start(RTM_NEWROUTE)
      .Body(info)
      .Attribute(RTA_TABLE, uint32_t{RT_TABLE_LOCAL})
      .Attribute(RTA_DST, kLoopback6)
      .Attribute(RTA_OIF, uint32_t{kLoopbackIndex})
      .AppendTo(context.out);
}

// RTM_GETLINK of one interface, by index or name. Returns an errno.
int AnswerOneLink(const Context& context) {
  ::ifinfomsg asked;
  if (!context.request.Body(&asked)) return EINVAL;
  if (asked.ifi_index != 0) {
    if (asked.ifi_index != kLoopbackIndex) return ENODEV;
  } else {
    auto name = context.request.Attribute(sizeof asked, IFLA_IFNAME);
    if (!name) return EINVAL;
    std::string_view text(reinterpret_cast<const char*>(name->data()), name->size());
    if (text.substr(0, text.find('\0')) != "lo") return ENODEV;
  }
  AppendLink(context);
  return 0;
}

// RTM_GETROUTE of one destination.
int AnswerOneRoute(const Context& context) {
  ::rtmsg asked;
  if (!context.request.Body(&asked)) return EINVAL;
  auto to = context.request.Attribute(sizeof asked, RTA_DST);
  if (!to) return EINVAL;
  if (asked.rtm_family == AF_INET) {
    if (to->size() != 4) return EINVAL;
    if ((*to)[0] != 127) return ENETUNREACH;
    uint8_t address[4];
    memcpy(address, to->data(), sizeof address);
    AppendRoute4(context, address, 32, RTN_LOCAL);
    return 0;
  }
  if (asked.rtm_family != AF_INET6) return EOPNOTSUPP;
  if (to->size() != 16) return EINVAL;
  if (memcmp(to->data(), kLoopback6, sizeof kLoopback6) != 0) return ENETUNREACH;
  AppendRoute6(context);
  return 0;
}

int Dump(const Context& context, int family) {
  const bool v4 = family == AF_UNSPEC || family == AF_INET, v6 = family == AF_UNSPEC || family == AF_INET6;
  switch (context.request.header.nlmsg_type) {
    case RTM_GETLINK:
      AppendLink(context);
      return 0;
    case RTM_GETADDR:
      if (v4) AppendAddress(context, AF_INET);
      if (v6) AppendAddress(context, AF_INET6);
      return 0;
    case RTM_GETROUTE:
      if (v4) {
        AppendRoute4(context, kLoopbackNet4, 8, RTN_LOCAL);
        AppendRoute4(context, kLoopback4, 32, RTN_LOCAL);
        AppendRoute4(context, kBroadcast4, 32, RTN_BROADCAST);
      }
      if (v6) AppendRoute6(context);
      return 0;
    case RTM_GETNEIGH:
    case RTM_GETQDISC:
      return 0;  // There are none.
    default:
      return EOPNOTSUPP;
  }
}

}  // namespace

NetlinkAnswer AnswerRouteRequest(const NetlinkRequest& request, bool admin, uint32_t port) {
  NetlinkAnswer answer;
  const uint16_t type = request.header.nlmsg_type;
  // Each family of messages is new, delete, get, set: all but get change something.
  constexpr int kGet = 2;
  if (((type - RTM_BASE) & 3) != kGet) {
    answer.error = admin ? EOPNOTSUPP : EPERM;
    return answer;
  }
  answer.dump = (request.header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
  Context context{request, port, static_cast<uint16_t>(answer.dump ? NLM_F_MULTI : 0), &answer.messages};
  if (answer.dump) {
    answer.error = Dump(context, request.content.empty() ? AF_UNSPEC : request.content[0]);
  } else if (type == RTM_GETLINK) {
    answer.error = AnswerOneLink(context);
  } else if (type == RTM_GETROUTE) {
    answer.error = AnswerOneRoute(context);
  } else {
    answer.error = EOPNOTSUPP;
  }
  if (answer.error != 0) answer.messages.clear();
  return answer;
}

}  // namespace caisson
