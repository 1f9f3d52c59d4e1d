// The answers of NETLINK_ROUTE (rtnetlink(7)) for a namespace whose one interface is lo.
#ifndef CAISSON_SENTRY_NET_NETLINK_ROUTE_H_
#define CAISSON_SENTRY_NET_NETLINK_ROUTE_H_

#include <cstdint>
#include <vector>

#include "sentry/net/netlink/message.h"

namespace caisson {

// What a request is answered with: messages (of a dump all with NLM_F_MULTI), and the error of its acknowledgement.
struct NetlinkAnswer {
  std::vector<uint8_t> messages;
  bool dump = false;  // NLMSG_DONE follows.
  int error = 0;      // Positive errno; then no messages.
};

// `admin`: the sender may change the network. `port`: the sender's, for the answers' headers.
NetlinkAnswer AnswerRouteRequest(const NetlinkRequest& request, bool admin, uint32_t port);

}  // namespace caisson

#endif  // CAISSON_SENTRY_NET_NETLINK_ROUTE_H_
