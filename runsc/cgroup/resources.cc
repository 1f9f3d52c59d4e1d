#include "runsc/cgroup/resources.h"

#include <errno.h>

#include <algorithm>

#include "runsc/base/files.h"
#include "sentry/base/log.h"

namespace caisson {

std::string CgroupWriter::PathOf(const std::string& controller, const std::string& file) const {
  const ContainerState::CgroupDirectory* unified = nullptr;
  for (const auto& directory : directories_) {
    std::vector<std::string> controllers = Split(directory.controllers, ',');
    if (directory.controllers.empty()) {
      unified = &directory;
    } else if (std::find(controllers.begin(), controllers.end(), controller) != controllers.end()) {
      return directory.path + "/" + file;
    }
  }
  return unified != nullptr && directories_.size() == 1 ? unified->path + "/" + file : "";
}

bool CgroupWriter::Exists(const char* controller, const std::string& file) const {
  std::string path = PathOf(controller, file);
  return !path.empty() && PathExists(path);
}

std::string CgroupWriter::Read(const char* controller, const std::string& file) const {
  absl::StatusOr<std::string> text = ReadFile(PathOf(controller, file), 1 << 20);
  return text.ok() ? std::string(Trim(*text)) : "";
}

int CgroupWriter::TryWrite(const char* controller, const std::string& file, const std::string& value) {
  std::string path = PathOf(controller, file);
  int error = path.empty() ? ENOENT : WriteControlFile(path, value);
  if (error != 0) LOG_DEBUG("write \"%s\" to %s: %s", value.c_str(), path.c_str(), ErrnoText(error).c_str());
  return error;
}

void CgroupWriter::Fail(const std::string& message) {
  if (tolerant_) {
    LOG_WARNING("%s", message.c_str());
  } else if (status_.ok()) {
    status_ = absl::UnknownError(message);
  }
}

void CgroupWriter::Write(const char* field, const char* controller, const std::string& file, const std::string& value) {
  if (!status_.ok()) return;
  std::string prefix = std::string("linux.resources.") + field + ": ";
  if (PathOf(controller, file).empty()) {
    return Fail(prefix + "there is no cgroup with the " + controller + " controller");
  }
  int error = TryWrite(controller, file, value);
  if (error == 0) return;
  Fail(prefix + "write \"" + value + "\" to " + PathOf(controller, file) + ": " + ErrnoText(error));
}

uint64_t WeightFromShares(uint64_t shares) {
  shares = std::clamp<uint64_t>(shares, 2, 262144);
  return 1 + (shares - 2) * 9999 / 262142;
}

uint64_t IoWeightFromBlkio(uint64_t weight) {
  weight = std::clamp<uint64_t>(weight, 10, 1000);
  return 1 + (weight - 10) * 9999 / 990;
}

}  // namespace caisson
