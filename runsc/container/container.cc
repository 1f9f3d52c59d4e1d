#include "runsc/container/container.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

namespace caisson {
namespace {

constexpr size_t kMaxStateBytes = 16 << 20;
constexpr size_t kMaxIdLength = 255;

std::vector<std::string> Entries(const std::string& directory) {
  std::vector<std::string> names;
  DIR* dir = opendir(directory.c_str());
  if (dir == nullptr) return names;
  while (dirent* entry = readdir(dir)) {
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) names.push_back(entry->d_name);
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

// The directory and what is in it, two levels deep, which is all that a container has. Follows no symlink.
int RemoveDirectory(const std::string& directory, int depth) {
  for (const std::string& name : Entries(directory)) {
    std::string path = directory + "/" + name;
    if (unlink(path.c_str()) == 0 || errno == ENOENT) continue;
    int error = errno;
    if (error != EISDIR && error != EPERM) return error;
    if (depth == 0) return error;
    if (int inner = RemoveDirectory(path, depth - 1)) return inner;
  }
  return rmdir(directory.c_str()) == 0 || errno == ENOENT ? 0 : errno;
}

}  // namespace

absl::Status CheckContainerId(const std::string& id) {
  if (id.empty()) return ErrorF("container id cannot be empty");
  bool valid = id != "." && id != ".." && id.size() <= kMaxIdLength;
  for (char c : id) {
    valid &= (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '+' ||
             c == '-' || c == '.';
  }
  if (!valid) return ErrorF("invalid container ID format");
  return absl::OkStatus();
}

Container::Container(const std::string& root, const std::string& id) : id_(id), directory_(root + "/" + id) {}

absl::StatusOr<std::unique_ptr<Container>> Container::Create(const std::string& root, const ContainerState& state) {
  OK_OR_RETURN(CheckContainerId(state.id));
  OK_OR_RETURN(MakeDirectories(root, 0711));
  std::unique_ptr<Container> container(new Container(root, state.id));
  if (mkdir(container->directory_.c_str(), 0700) < 0) {
    if (errno == EEXIST) return absl::AlreadyExistsError("container with given ID already exists");
    return ErrnoErrorF(errno, "mkdir %s", container->directory_.c_str());
  }
  container->state_ = state;
  // A failure from here on leaves nothing behind.
  absl::Status status = [&]() -> absl::Status {
    std::string lock = container->directory_ + "/lock";
    container->lock_.Reset(open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!container->lock_.valid()) return ErrnoErrorF(errno, "open %s", lock.c_str());
    if (flock(container->lock_.get(), LOCK_EX | LOCK_NB) < 0) return ErrnoErrorF(errno, "lock %s", lock.c_str());
    OK_OR_RETURN(container->Save());
    std::string execs = container->directory_ + "/exec";
    if (mkdir(execs.c_str(), 0700) < 0) return ErrnoErrorF(errno, "mkdir %s", execs.c_str());
    return absl::OkStatus();
  }();
  if (!status.ok()) {
    RemoveDirectory(container->directory_, 1);
    return status;
  }
  return container;
}

absl::StatusOr<std::unique_ptr<Container>> Container::Open(const std::string& root, const std::string& id) {
  OK_OR_RETURN(CheckContainerId(id));
  std::unique_ptr<Container> container(new Container(root, id));
  struct stat st;
  if (lstat(container->directory_.c_str(), &st) < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return absl::NotFoundError("container does not exist");
    return ErrnoErrorF(errno, "stat %s", container->directory_.c_str());
  }
  if (!S_ISDIR(st.st_mode)) return absl::NotFoundError("container does not exist");
  container->Load();
  return container;
}

std::vector<std::string> Container::List(const std::string& root) {
  std::vector<std::string> ids;
  for (const std::string& name : Entries(root)) {
    struct stat st;
    if (CheckContainerId(name).ok() && lstat((root + "/" + name).c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
      ids.push_back(name);
    }
  }
  return ids;
}

void Container::Load() {
  absl::StatusOr<std::string> json = ReadFile(directory_ + "/state.json", kMaxStateBytes);
  absl::StatusOr<ContainerState> state = json.ok() ? ParseState(*json) : json.status();
  if (state.ok() && state->id != id_) state = ErrorF("state.json: is of container %s", state->id.c_str());
  broken_ = state.status();
  if (state.ok()) state_ = *std::move(state);
}

absl::Status Container::Save() { return WriteFileAtomic(directory_ + "/state.json", SerializeState(state_), 0600); }

absl::Status Container::Lock(int timeout_ms) {
  std::string path = directory_ + "/lock";
  // Made here too: a create that was killed early may have left none.
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) {
    if (errno == ENOENT) return absl::NotFoundError("container does not exist");
    return ErrnoErrorF(errno, "open %s", path.c_str());
  }
  constexpr int kStepMs = 5;
  for (int waited = 0; flock(fd.get(), LOCK_EX | LOCK_NB) < 0; waited += kStepMs) {
    if (errno != EWOULDBLOCK && errno != EINTR) return ErrnoErrorF(errno, "lock %s", path.c_str());
    if (waited >= timeout_ms) return absl::UnavailableError("container " + id_ + " is in use by another command");
    timespec step = {0, kStepMs * 1000000L};
    nanosleep(&step, nullptr);
  }
  // The lock of a container that was deleted meanwhile, and perhaps made anew, is a lock on nothing.
  struct stat held, named;
  if (fstat(fd.get(), &held) < 0 || stat(path.c_str(), &named) < 0 || held.st_ino != named.st_ino ||
      held.st_dev != named.st_dev) {
    return absl::NotFoundError("container does not exist");
  }
  lock_ = std::move(fd);
  Load();
  return absl::OkStatus();
}

ContainerStatus Container::Status(const std::function<bool()>& frozen) const {
  if (!broken_.ok()) return ContainerStatus::kStopped;
  if (state_.recorded == ContainerStatus::kCreating) {
    return ProcessAlive(state_.creator) ? ContainerStatus::kCreating : ContainerStatus::kStopped;
  }
  if (!ProcessAlive(state_.init)) return ContainerStatus::kStopped;
  if (state_.paused_by_sentry || frozen()) return ContainerStatus::kPaused;
  return state_.recorded;
}

absl::Status Container::Remove() {
  // state.json goes last but for the directories: until then a second `delete` can go on where this one stopped.
  for (const std::string& name : Entries(directory_)) {
    if (name == "state.json" || name == "exec" || name == "lock") continue;
    unlink((directory_ + "/" + name).c_str());
  }
  if (int error = RemoveDirectory(directory_, 1)) return ErrnoErrorF(error, "remove %s", directory_.c_str());
  return absl::OkStatus();
}

absl::Status Container::RegisterExec(const Exec& exec) {
  return WriteFileAtomic(directory_ + "/exec/" + std::to_string(exec.host.pid),
                         std::to_string(exec.host.start_time) + " " + std::to_string(exec.guest_pid), 0600);
}

void Container::UnregisterExec(pid_t host_pid) { unlink((directory_ + "/exec/" + std::to_string(host_pid)).c_str()); }

std::vector<Container::Exec> Container::Execs() const {
  std::vector<Exec> execs;
  for (const std::string& name : Entries(directory_ + "/exec")) {
    auto pid = ParseInt(name);
    absl::StatusOr<std::string> text = ReadFile(directory_ + "/exec/" + name, 64);
    std::vector<std::string> words = SplitWords(text.value_or(""));
    if (!pid || words.size() != 2) continue;
    Exec exec{{static_cast<pid_t>(*pid), ParseUint(words[0]).value_or(0)}, 0};
    exec.guest_pid = static_cast<pid_t>(ParseInt(words[1]).value_or(0));
    if (ProcessAlive(exec.host)) execs.push_back(exec);
  }
  return execs;
}

}  // namespace caisson
