// What an open /proc/PID/ns/* is: a reference to a namespace (namespaces(7)), which setns(2) enters and ioctl_ns(2) asks.
#ifndef CAISSON_SENTRY_KERNEL_NAMESPACE_FILE_H_
#define CAISSON_SENTRY_KERNEL_NAMESPACE_FILE_H_

#include <utility>

#include "sentry/base/refs.h"
#include "sentry/vfs/file.h"

namespace caisson {

class NamespaceFile : public File {
 public:
  // `type`: one of CLONE_NEW*; `ns` is of the class for that type (UserNamespace, PidNamespace, MountNamespace, …).
  NamespaceFile(VfsPath path, int flags, int type, RefPtr<RefCounted> ns)
      : File(std::move(path), flags), type_(type), ns_(std::move(ns)) {}
  int type() const { return type_; }
  const RefPtr<RefCounted>& ns() const { return ns_; }

 private:
  const int type_;
  const RefPtr<RefCounted> ns_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_NAMESPACE_FILE_H_
