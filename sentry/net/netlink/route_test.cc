#include "sentry/net/netlink/route.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <random>

#include "gtest/gtest.h"

namespace caisson {
namespace {

NetlinkRequest Request(uint16_t type, uint16_t flags, std::span<const uint8_t> content) {
  NetlinkRequest request;
  request.header = {static_cast<uint32_t>(sizeof(::nlmsghdr) + content.size()), type, flags, 7, 0};
  request.content = content;
  return request;
}

// The types of the messages in an answer; fails when they do not fill it exactly.
std::vector<int> Types(const std::vector<uint8_t>& bytes) {
  std::vector<int> types;
  size_t at = 0;
  while (at < bytes.size()) {
    ::nlmsghdr header;
    EXPECT_LE(at + sizeof header, bytes.size());
    memcpy(&header, bytes.data() + at, sizeof header);
    EXPECT_EQ(header.nlmsg_seq, 7u);
    EXPECT_LE(at + header.nlmsg_len, bytes.size());
    types.push_back(header.nlmsg_type);
    at += NetlinkAlign(header.nlmsg_len);
  }
  EXPECT_EQ(at, bytes.size());
  return types;
}

TEST(Route, DumpsWhatThereIs) {
  const uint8_t any[1] = {AF_UNSPEC};
  EXPECT_EQ(Types(AnswerRouteRequest(Request(RTM_GETLINK, NLM_F_DUMP, any), false, 1).messages),
            std::vector<int>{RTM_NEWLINK});
  EXPECT_EQ(Types(AnswerRouteRequest(Request(RTM_GETADDR, NLM_F_DUMP, any), false, 1).messages),
            (std::vector<int>{RTM_NEWADDR, RTM_NEWADDR}));
  EXPECT_EQ(Types(AnswerRouteRequest(Request(RTM_GETROUTE, NLM_F_DUMP, any), false, 1).messages).size(), 4u);
  NetlinkAnswer none = AnswerRouteRequest(Request(RTM_GETNEIGH, NLM_F_DUMP, any), false, 1);
  EXPECT_TRUE(none.dump && none.error == 0 && none.messages.empty());
}

TEST(Route, ChangesTakePrivilegeAndAreHonest) {
  EXPECT_EQ(AnswerRouteRequest(Request(RTM_NEWADDR, 0, {}), false, 1).error, EPERM);
  EXPECT_EQ(AnswerRouteRequest(Request(RTM_NEWADDR, 0, {}), true, 1).error, EOPNOTSUPP);
  EXPECT_EQ(AnswerRouteRequest(Request(RTM_GETLINK, 0, {}), true, 1).error, EINVAL);
}

TEST(Route, SurvivesArbitraryRequests) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::vector<uint8_t> content(random() % 96);
    for (uint8_t& byte : content) byte = static_cast<uint8_t>(random() % 4 ? random() % 24 : random());
    NetlinkAnswer answer = AnswerRouteRequest(
        Request(static_cast<uint16_t>(RTM_BASE + random() % 100), static_cast<uint16_t>(random()), content), random() & 1, 1);
    if (answer.error == 0) {
      Types(answer.messages);
    } else {
      EXPECT_TRUE(answer.messages.empty());
    }
  }
}

}  // namespace
}  // namespace caisson
