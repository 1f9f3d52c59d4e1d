// Confinement of the sentry: what it may still ask of the host once it serves a guest.
#ifndef CAISSON_RUNSC_BOOT_FILTER_H_
#define CAISSON_RUNSC_BOOT_FILTER_H_

#include <vector>

#include "absl/status/status.h"
#include "platform/platform.h"

namespace caisson {

struct SentryFilterOptions {
  std::vector<HostCallRule> platform_calls;  // Platform::SentryHostCalls().
  bool host_network = false;                 // --network=host: adds the calls of host sockets.
};

// The sentry's own allow-list, without the platform's; for the documentation and the test that shows each rule.
std::vector<HostCallRule> SentryHostCalls(const SentryFilterOptions& options);

// Gives up root's identity where it can: groups, uid and gid 65534. Called before the zygote is forked, so that stubs and
// sentry are one user. A no-op when not uid 0 or in a user namespace that does not map the id.
absl::Status DropIdentity();

// Drops every capability, sets no_new_privs, and installs the allow-list (default: kill the process). The caller has one
// thread; those made later inherit it.
absl::Status ConfineSentry(const SentryFilterOptions& options);

}  // namespace caisson

#endif  // CAISSON_RUNSC_BOOT_FILTER_H_
