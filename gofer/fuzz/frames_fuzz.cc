// Fuzzes both readers of the gofer's protocol: the server with requests, the client with answers.
//
//   bazel run //gofer/fuzz:frames_fuzz -- --seconds=60 --seed=1 gofer/fuzz/seeds/*
//
// Seeds named request_* are frames for the server, answer_* for the client. Each round takes one, changes bytes,
// lengths and handles, and hands it over; any crash, sanitizer report or answer that breaks the protocol fails. Without
// --seconds: 2 for each side, as the test suite runs it. What is printed last reproduces the run.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "gofer/client/client.h"
#include "gofer/client/fake_gofer.h"
#include "gofer/protocol/protocol.h"
#include "gofer/protocol/wire.h"
#include "gofer/server/server.h"
#include "gofer/server/test_gofer.h"
#include "sentry/base/check.h"
#include "sentry/base/log.h"

namespace caisson::gofer {
namespace {

using Bytes = std::vector<uint8_t>;
using Clock = std::chrono::steady_clock;

class Mutator {
 public:
  Mutator(std::vector<Bytes> seeds, uint64_t seed) : seeds_(std::move(seeds)), random_(seed) {}

  uint64_t Below(uint64_t n) { return random_() % n; }

  Bytes Next() {
    Bytes frame = seeds_[Below(seeds_.size())];
    for (uint64_t n = Below(4); n > 0 && !frame.empty(); --n) Change(frame);
    // Mostly a true length, so that what is behind the header gets its turn.
    if (frame.size() >= sizeof(FrameHeader) && Below(8) != 0) {
      uint32_t size = static_cast<uint32_t>(frame.size());
      memcpy(frame.data() + offsetof(FrameHeader, size), &size, sizeof size);
    }
    return frame;
  }

 private:
  void Change(Bytes& frame) {
    static constexpr uint64_t kInteresting[] = {0,      1,      2,          0x7f,       0xff,
                                                0x7fff, 0xffff, 0x7fffffff, 0xffffffff, UINT64_MAX};
    size_t at = Below(frame.size());
    switch (Below(6)) {
      case 0:
        frame[at] ^= 1 << Below(8);
        break;
      case 1:
        frame[at] = static_cast<uint8_t>(random_());
        break;
      case 2: {
        uint64_t value = kInteresting[Below(std::size(kInteresting))];
        memcpy(frame.data() + at, &value, std::min<size_t>(size_t{1} << Below(4), frame.size() - at));
        break;
      }
      case 3:
        frame.resize(at);
        break;
      case 4:
        frame.insert(frame.begin() + at, Below(300), static_cast<uint8_t>(random_()));
        break;
      case 5:
        frame.erase(frame.begin() + at, frame.begin() + std::min(frame.size(), at + Below(16)));
        break;
    }
    if (frame.size() > kMaxFrame) frame.resize(kMaxFrame);
  }

  const std::vector<Bytes> seeds_;
  std::mt19937_64 random_;
};

// Requests, most of them about handles that exist.
uint64_t FuzzServer(Mutator mutator, double seconds) {
  TempDirectory directory, outside;
  outside.Write("canary", "sings");
  directory.Write("file", "contents");
  CHECK(mkdir(directory.Path("dir").c_str(), 0755) == 0);
  CHECK(symlink(outside.Path().c_str(), directory.Path("link").c_str()) == 0);
  CHECK(symlink(outside.Path("canary").c_str(), directory.Path("dir/canary").c_str()) == 0);
  std::vector<GoferMount> mounts = {{.fd = open(directory.Path().c_str(), O_PATH | O_CLOEXEC)},
                                    {.fd = open(directory.Path().c_str(), O_PATH | O_CLOEXEC), .read_only = true}};
  UniqueFd proc(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
  UniqueFd home(open(".", O_PATH | O_CLOEXEC));
  CHECK(fchdir(proc.get()) == 0);
  Server server(mounts, proc.get());
  Bytes reply(kMaxFrame);
  std::vector<UniqueFd> fds;
  std::vector<uint64_t> closes, handles;
  uint64_t rounds = 0;
  for (auto end = Clock::now() + std::chrono::duration<double>(seconds); Clock::now() < end; ++rounds) {
    Bytes frame = mutator.Next();
    // Handles stand at the start of nearly every body, and in some after it.
    for (size_t at : {sizeof(FrameHeader), sizeof(FrameHeader) + 8}) {
      if (handles.empty() || frame.size() < at + 8 || mutator.Below(at == sizeof(FrameHeader) ? 5 : 2) == 0) continue;
      memcpy(frame.data() + at, &handles[mutator.Below(handles.size())], 8);
    }
    size_t size = server.Serve(frame, reply, fds, closes);
    FrameHeader header;
    memcpy(&header, reply.data(), sizeof header);
    CHECK(size >= sizeof header && size <= kMaxFrame && header.size == size);
    CHECK(header.error <= EHWPOISON && header.closes == 0 && header.fds == fds.size() && fds.size() <= kMaxFds);
    for (const UniqueFd& fd : fds) {
      struct stat st;
      CHECK(fstat(fd.get(), &st) == 0 && S_ISREG(st.st_mode));
      char text[8] = {};
      CHECK(pread(fd.get(), text, 5, 0) < 5 || strcmp(text, "sings") != 0);
    }
    Node node;
    Reader body(std::span<const uint8_t>(reply.data(), size).subspan(sizeof header));
    WalkReply walk;
    if (header.op == static_cast<uint32_t>(Op::kWalk) && !body.Get(walk)) continue;
    if (header.error == 0 && body.Get(node) && server.handles().Get(node.handle).ok()) handles.push_back(node.handle);
    if (handles.size() > 200) {
      closes = handles;
      handles.clear();
    }
    server.Close(closes);
    if (server.handles().size() == 0 || handles.empty()) {
      Bytes attach = FakeGofer::Frame(Op::kAttach, Bytes(4));
      attach[sizeof(FrameHeader)] = static_cast<uint8_t>(mutator.Below(2));
      size = server.Serve(attach, reply, fds, closes);
      CHECK(Reader(std::span<const uint8_t>(reply.data(), size).subspan(sizeof header)).Get(node));
      handles.push_back(node.handle);
    }
  }
  CHECK(fchdir(home.get()) == 0);
  CHECK(outside.Read("canary") == "sings");
  return rounds;
}

void AskSomething(GoferClient& client, const GoferHandle& handle, uint32_t op) {
  std::string_view names[] = {"a", "b"};
  switch (static_cast<Op>(op)) {
    case Op::kAttach:
      (void)client.Attach(0);
      break;
    case Op::kWalk:
      (void)client.Walk(handle, names, O_RDONLY);
      break;
    case Op::kOpen:
      (void)client.Open(handle, O_RDONLY);
      break;
    case Op::kCreate:
      (void)client.Create(handle, "n", O_RDWR, 0644, {});
      break;
    case Op::kSymlink:
      (void)client.Symlink(handle, "n", "t", {});
      break;
    case Op::kReadlink:
      (void)client.Readlink(handle);
      break;
    case Op::kStat:
      (void)client.Stat(handle);
      break;
    case Op::kStatfs:
      (void)client.Statfs(handle);
      break;
    case Op::kReadDirectory:
      (void)client.ReadDirectory(handle, {}, 0, true);
      break;
    case Op::kGetXattr:
      (void)client.GetXattr(handle, "user.a");
      break;
    case Op::kListXattr:
      (void)client.ListXattr(handle);
      break;
    default:
      (void)client.Link(handle, handle, "n");
      break;
  }
}

uint64_t FuzzClient(Mutator mutator, double seconds) {
  uint64_t rounds = 0;
  Bytes next;
  Bytes attach(sizeof(AttachReply));
  AttachReply good = {};
  good.node.handle = 1;
  good.node.attr.mode = S_IFDIR | 0755;
  Writer(attach).Put(good);
  for (auto end = Clock::now() + std::chrono::duration<double>(seconds); Clock::now() < end;) {
    FakeGofer gofer([&](std::span<const uint8_t> request) -> FakeGofer::Reply {
      FrameHeader header = {};
      (void)Reader(request).Get(header);
      if (next.empty()) return {.frame = FakeGofer::Frame(static_cast<Op>(header.op), attach)};
      return {.frame = next};
    });
    next.clear();
    RefPtr<GoferClient> client = *GoferClient::Connect(gofer.TakeSocket());
    GoferNode root = std::move(client->Attach(0)->node);
    for (int i = 0; i < 1000 && !client->dead(); ++i, ++rounds) {
      next = mutator.Next();
      uint32_t op = 0;
      if (next.size() >= 4) memcpy(&op, next.data(), 4);
      if (next.empty()) next.resize(1);
      AskSomething(*client, root.handle, op);
    }
    next.resize(1);
  }
  return rounds;
}

std::vector<Bytes> Load(const std::vector<std::string>& paths, const std::string& prefix) {
  std::vector<Bytes> seeds;
  for (const std::string& path : paths) {
    std::string name = path.substr(path.rfind('/') + 1);
    if (!name.starts_with(prefix)) continue;
    std::ifstream file(path, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return seeds;
}

int Main(int argc, char** argv) {
  double seconds = 2;
  uint64_t seed = static_cast<uint64_t>(Clock::now().time_since_epoch().count());
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument.starts_with("--seconds=")) {
      seconds = atof(argument.c_str() + 10);
    } else if (argument.starts_with("--seed=")) {
      seed = strtoull(argument.c_str() + 7, nullptr, 10);
    } else {
      paths.push_back(argument);
    }
  }
  std::vector<Bytes> requests = Load(paths, "request_"), answers = Load(paths, "answer_");
  if (requests.empty() || answers.empty()) {
    fprintf(stderr, "usage: frames_fuzz [--seconds=N] [--seed=N] seeds/request_* seeds/answer_*\n");
    return 2;
  }
  InitLog(-1, LogFormat::kText, LogLevel::kError, "fuzz");
  printf("--seconds=%g --seed=%llu\n", seconds, static_cast<unsigned long long>(seed));
  fflush(stdout);
  uint64_t served = FuzzServer(Mutator(requests, seed), seconds);
  uint64_t believed = FuzzClient(Mutator(answers, seed), seconds);
  printf("%llu requests, %llu answers\n", static_cast<unsigned long long>(served),
         static_cast<unsigned long long>(believed));
  return served > 100 && believed > 100 ? 0 : 1;
}

}  // namespace
}  // namespace caisson::gofer

int main(int argc, char** argv) { return caisson::gofer::Main(argc, argv); }
