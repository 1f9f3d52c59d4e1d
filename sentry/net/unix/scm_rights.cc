#include "sentry/net/unix/scm_rights.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "sentry/net/unix/unix_core.h"
#include "sentry/net/unix/unix_socket.h"

namespace caisson {
namespace {

constexpr int kMaxDepth = 4;  // MAX_RECURSION_LEVEL

struct Flights {
  absl::Mutex mutex;
  std::unordered_map<UnixSocket*, int64_t> sockets ABSL_GUARDED_BY(mutex);  // How often each is in flight.
  std::map<uid_t, uint64_t> per_user ABSL_GUARDED_BY(mutex);
};
Flights& AllFlights() {
  static Flights* const flights = new Flights;
  return *flights;
}

UnixSocket* AsUnixSocket(File& file) { return dynamic_cast<UnixSocket*>(&file); }

}  // namespace

Result<std::unique_ptr<RightsInFlight>> RightsInFlight::New(std::vector<RefPtr<File>> files, uid_t uid,
                                                            uint64_t file_limit) {
  Flights& flights = AllFlights();
  auto rights = std::unique_ptr<RightsInFlight>(new RightsInFlight);
  {
    absl::MutexLock lock(&flights.mutex);
    uint64_t& of_user = flights.per_user[uid];
    if (of_user + files.size() > file_limit) {
      if (of_user == 0) flights.per_user.erase(uid);
      return Errno(ETOOMANYREFS);
    }
    int depth = 0;
    for (const RefPtr<File>& file : files) {
      UnixSocket* socket = AsUnixSocket(*file);
      if (!socket) continue;
      depth = std::max(depth, 1);
      socket->core().ForEachRights([&](RightsInFlight& held) { depth = std::max(depth, held.depth() + 1); });
    }
    if (depth > kMaxDepth) {
      if (of_user == 0) flights.per_user.erase(uid);
      return Errno(ETOOMANYREFS);
    }
    of_user += files.size();
    for (const RefPtr<File>& file : files) {
      if (UnixSocket* socket = AsUnixSocket(*file)) ++flights.sockets[socket];
    }
    rights->uid_ = uid;
    rights->depth_ = depth;
    rights->files_ = std::move(files);
  }
  return rights;
}

RightsInFlight::~RightsInFlight() { DropFiles(Take()); }

std::vector<RefPtr<File>> RightsInFlight::Take() {
  Land();
  return std::exchange(files_, {});
}

void RightsInFlight::Land() {
  if (files_.empty()) return;
  Flights& flights = AllFlights();
  absl::MutexLock lock(&flights.mutex);
  auto user = flights.per_user.find(uid_);
  if (user != flights.per_user.end() && (user->second -= std::min<uint64_t>(user->second, files_.size())) == 0) {
    flights.per_user.erase(user);
  }
  for (const RefPtr<File>& file : files_) {
    UnixSocket* socket = AsUnixSocket(*file);
    if (!socket) continue;
    auto it = flights.sockets.find(socket);
    if (it != flights.sockets.end() && --it->second == 0) flights.sockets.erase(it);
  }
}

void CollectUnixCycles() {
  // What is emptied closes sockets, which would collect again.
  static thread_local bool collecting = false;
  if (collecting) return;
  std::vector<UnixMessage> garbage;
  {
    Flights& flights = AllFlights();
    absl::MutexLock lock(&flights.mutex);
    // Those that only messages refer to. Nobody can take a message out and land its files while the lock is held, so one
    // that has no other reference now gets none before it is released.
    std::unordered_map<UnixSocket*, int64_t> unexplained;
    for (auto& [socket, count] : flights.sockets) {
      if (socket->RefCount() == count) unexplained[socket] = count;
    }
    if (unexplained.empty()) return;
    auto for_each_child = [&](UnixSocket& socket, auto&& visit) {
      socket.core().ForEachRights([&](RightsInFlight& held) {
        for (const RefPtr<File>& file : held.files()) {
          UnixSocket* child = AsUnixSocket(*file);
          if (child && unexplained.contains(child)) visit(*child);
        }
      });
    };
    for (auto& [socket, count] : unexplained) {
      for_each_child(*socket, [&](UnixSocket& child) { --unexplained[&child]; });
    }
    // One with a reference from a message elsewhere can be reached, and so can what its own queue holds.
    std::vector<UnixSocket*> reachable;
    for (auto& [socket, count] : unexplained) {
      if (count > 0) reachable.push_back(socket);
    }
    std::unordered_map<UnixSocket*, bool> alive;
    while (!reachable.empty()) {
      UnixSocket* socket = reachable.back();
      reachable.pop_back();
      if (!alive.emplace(socket, true).second) continue;
      for_each_child(*socket, [&](UnixSocket& child) { reachable.push_back(&child); });
    }
    for (auto& [socket, count] : unexplained) {
      if (!alive.contains(socket)) socket->core().TakeMessagesWithRights(&garbage);
    }
  }
  collecting = true;
  garbage.clear();
  collecting = false;
}

void DropFiles(std::vector<RefPtr<File>> files) {
  static thread_local std::vector<RefPtr<File>>* outermost = nullptr;
  if (outermost) {
    std::move(files.begin(), files.end(), std::back_inserter(*outermost));
    return;
  }
  outermost = &files;
  while (!files.empty()) {
    RefPtr<File> file = std::move(files.back());
    files.pop_back();
  }
  outermost = nullptr;
}

}  // namespace caisson
