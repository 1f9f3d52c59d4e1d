#include "runsc/cmd/command.h"

#include <algorithm>

namespace caisson {
namespace {

// Another user's container, or one without cgroups, is no reason to fail for what is best effort anyway.
bool IsTolerant(const GlobalOptions& global, const Container& container) {
  return global.rootless || const_cast<Container&>(container).state().rootless;
}

}  // namespace

OpenedContainer::OpenedContainer(std::unique_ptr<Container> container, bool tolerant)
    : container_(std::move(container)), tolerant_(tolerant), cgroup_(container_->state().cgroups, tolerant) {}

absl::StatusOr<OpenedContainer> OpenedContainer::Open(const GlobalOptions& global, const std::string& id) {
  std::unique_ptr<Container> container = OK_OR_RETURN(Container::Open(global.root, id));
  bool tolerant = IsTolerant(global, *container);
  return OpenedContainer(std::move(container), tolerant);
}

ContainerStatus OpenedContainer::Status() const {
  return container_->Status([this] { return cgroup_.Frozen(); });
}

absl::Status OpenedContainer::Lock(int timeout_ms) {
  OK_OR_RETURN(container_->Lock(timeout_ms));
  cgroup_ = Cgroup(container_->state().cgroups, tolerant_);
  return absl::OkStatus();
}

absl::Status Print(const std::string& text) {
  if (int error = WriteAll(1, text)) return ErrnoErrorF(error, "write standard output");
  return absl::OkStatus();
}

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  constexpr size_t kMinimum = 12, kPadding = 3;
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i + 1 < row.size(); ++i) widths[i] = std::max({widths[i], row[i].size() + kPadding, kMinimum});
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text.append(widths[i] - row[i].size(), ' ');
    }
    text += '\n';
  }
  return text;
}

}  // namespace caisson
