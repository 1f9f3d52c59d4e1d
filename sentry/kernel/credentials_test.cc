#include "sentry/kernel/credentials.h"

#include <gtest/gtest.h>

namespace caisson {
namespace {

TEST(UserNamespace, TheInitialOneMapsEverybodyToThemselves) {
  RefPtr<UserNamespace> ns = UserNamespace::NewInitial();
  EXPECT_EQ(ns->UidToKernel(0), 0u);
  EXPECT_EQ(ns->UidFromKernel(4294967294u), 4294967294u);
  EXPECT_EQ(ns->UidToKernel(UINT32_MAX), UINT32_MAX);
}

TEST(UserNamespace, MapsByExtents) {
  RefPtr<UserNamespace> ns = MakeRef<UserNamespace>(UserNamespace::NewInitial(), 1000, 1000);
  EXPECT_EQ(ns->UidFromKernelOrOverflow(1000), 65534u);
  EXPECT_FALSE(ns->uid_map_set());
  ns->SetUidMap({{0, 1000, 1}, {1, 100000, 10}});
  EXPECT_EQ(ns->UidFromKernel(1000), 0u);
  EXPECT_EQ(ns->UidToKernel(10), 100009u);
  EXPECT_EQ(ns->UidToKernel(11), UINT32_MAX);
}

TEST(UserNamespace, OfASandboxInOneOfTheHostsKeepsItsOwnIds) {
  RefPtr<UserNamespace> ns = UserNamespace::NewInitial();
  EXPECT_EQ(ns->uid_map_outside()[0].lower_first, 0u);
  ns->SetHostMaps({{0, 100000, 1}, {1, 200001, 10}}, {{0, 300000, 5}});
  EXPECT_EQ(ns->UidToKernel(10), 10u);
  EXPECT_EQ(ns->UidToKernel(11), UINT32_MAX);
  EXPECT_EQ(ns->GidFromKernel(4), 4u);
  EXPECT_EQ(ns->GidFromKernel(5), UINT32_MAX);
  EXPECT_EQ(ns->uid_map_outside()[1].lower_first, 200001u);
  EXPECT_EQ(ns->gid_map_outside()[0].lower_first, 300000u);
  EXPECT_EQ(ns->uid_map()[1].lower_first, 1u);
}

TEST(Credentials, CapabilitiesReachDownwardsOnly) {
  RefPtr<UserNamespace> initial = UserNamespace::NewInitial();
  RefPtr<UserNamespace> child = MakeRef<UserNamespace>(initial, 1000, 1000);
  RefPtr<UserNamespace> grandchild = MakeRef<UserNamespace>(child, 0, 0);
  RefPtr<const Credentials> root = Credentials::Root(initial);
  EXPECT_TRUE(root->HasCapabilityIn(CAP_SYS_ADMIN, *grandchild));
  RefPtr<const Credentials> inside = Credentials::Root(child);
  EXPECT_FALSE(inside->HasCapabilityIn(CAP_SYS_ADMIN, *initial));
  EXPECT_TRUE(inside->HasCapabilityIn(CAP_SYS_ADMIN, *grandchild));
  // The owner of a namespace has everything in it without a capability at home.
  RefPtr<Credentials> owner = Credentials::Root(initial)->Clone();
  owner->effective = 0;
  EXPECT_FALSE(owner->HasCapabilityIn(CAP_KILL, *child));
  owner->euid = 1000;
  EXPECT_TRUE(owner->HasCapabilityIn(CAP_KILL, *child));
  EXPECT_TRUE(owner->HasCapabilityIn(CAP_KILL, *grandchild));
}

}  // namespace
}  // namespace caisson
