#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"

namespace caisson {

// The System V and POSIX message queue tables of a namespace; none of those objects exists yet.
struct IpcNamespace::Tables {};

IpcNamespace::IpcNamespace(Kernel& kernel, RefPtr<UserNamespace> owner)
    : id_(kernel.NextId()), owner_(std::move(owner)), tables_(new Tables) {}
IpcNamespace::~IpcNamespace() = default;

}  // namespace caisson
