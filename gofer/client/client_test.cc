// The client against gofers that lie: each malformed answer is EIO and the end of the connection, never a crash, never
// a hang.
#include "gofer/client/client.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "gofer/client/fake_gofer.h"
#include "gofer/protocol/protocol.h"
#include "gofer/protocol/wire.h"
#include "gtest/gtest.h"

namespace caisson {
namespace {

using gofer::FakeGofer;
using gofer::FrameHeader;
using gofer::Op;
using Bytes = std::vector<uint8_t>;

template <typename... Parts>
Bytes Pack(const Parts&... parts) {
  Bytes bytes(gofer::kMaxFrame);
  gofer::Writer writer(bytes);
  (writer.Put(parts), ...);
  bytes.resize(writer.used());
  return bytes;
}

Op OpOf(std::span<const uint8_t> request) {
  FrameHeader header = {};
  (void)gofer::Reader(request).Get(header);
  return static_cast<Op>(header.op);
}

gofer::Attr GoodAttr(uint32_t mode = S_IFDIR | 0755) {
  gofer::Attr attr = {};
  attr.ino = 7;
  attr.mode = mode;
  attr.nlink = 1;
  return attr;
}

gofer::Node GoodNode(uint32_t mode = S_IFDIR | 0755) { return {.handle = 0x100000001, .attr = GoodAttr(mode)}; }

// A client whose Attach succeeds and whose next answers come from `answerer`.
class Lie {
 public:
  explicit Lie(FakeGofer::Answerer answerer)
      : gofer_([answerer](std::span<const uint8_t> request) -> FakeGofer::Reply {
          if (OpOf(request) != Op::kAttach) return answerer(request);
          return {.frame = FakeGofer::Frame(Op::kAttach, Pack(GoodNode(), uint32_t{0}, uint32_t{0}))};
        }) {
    client = *GoferClient::Connect(gofer_.TakeSocket());
    root = std::move(client->Attach(0)->node);
  }
  // Answers with this body.
  Lie(Op op, Bytes body) : Lie([op, body](std::span<const uint8_t>) -> FakeGofer::Reply {
    return {.frame = FakeGofer::Frame(op, body)};
  }) {}

  FakeGofer gofer_;
  RefPtr<GoferClient> client;
  GoferNode root;
};

void ExpectEio(Lie& lie, int error) {
  EXPECT_EQ(error, EIO);
  EXPECT_TRUE(lie.client->dead());
  EXPECT_EQ(lie.client->Stat(lie.root.handle).error_code(), EIO);
}

TEST(ClientTest, BelievesWhatIsWellFormed) {
  Lie lie(Op::kStat, Pack(GoodAttr()));
  EXPECT_EQ(lie.client->Stat(lie.root.handle)->ino, 7u);
  EXPECT_FALSE(lie.client->dead());
}

TEST(ClientTest, MalformedAttributes) {
  gofer::Attr attr = GoodAttr();
  attr.mode = 0644;  // No type.
  Lie no_type(Op::kStat, Pack(attr));
  ExpectEio(no_type, no_type.client->Stat(no_type.root.handle).error_code());
  attr = GoodAttr();
  attr.mode |= 0x10000;
  Lie more_bits(Op::kStat, Pack(attr));
  ExpectEio(more_bits, more_bits.client->Stat(more_bits.root.handle).error_code());
  attr = GoodAttr();
  attr.size = UINT64_MAX;
  Lie size(Op::kStat, Pack(attr));
  ExpectEio(size, size.client->Stat(size.root.handle).error_code());
  attr = GoodAttr();
  attr.mtime.nanoseconds = 1'000'000'000;
  Lie time(Op::kStat, Pack(attr));
  ExpectEio(time, time.client->Stat(time.root.handle).error_code());
  Lie shorter(Op::kStat, Bytes(10));
  ExpectEio(shorter, shorter.client->Stat(shorter.root.handle).error_code());
}

TEST(ClientTest, MalformedHeaders) {
  Lie wrong_op(Op::kOpen, Pack(GoodAttr()));
  ExpectEio(wrong_op, wrong_op.client->Stat(wrong_op.root.handle).error_code());
  for (uint32_t error : {134u, 4096u, UINT32_MAX}) {
    Lie lie([error](std::span<const uint8_t>) -> FakeGofer::Reply {
      return {.frame = FakeGofer::Frame(Op::kStat, {}, 0, error)};
    });
    ExpectEio(lie, lie.client->Stat(lie.root.handle).error_code());
  }
  for (uint32_t size : {0u, 15u, static_cast<uint32_t>(gofer::kMaxFrame) + 1, UINT32_MAX}) {
    Lie lie([size](std::span<const uint8_t>) -> FakeGofer::Reply {
      FrameHeader header = {.op = static_cast<uint32_t>(Op::kStat), .size = size};
      return {.frame = Pack(header)};
    });
    ExpectEio(lie, lie.client->Stat(lie.root.handle).error_code());
  }
  Lie body_with_error([](std::span<const uint8_t>) -> FakeGofer::Reply {
    return {.frame = FakeGofer::Frame(Op::kStat, Pack(GoodAttr()), 0, ENOENT)};
  });
  ExpectEio(body_with_error, body_with_error.client->Stat(body_with_error.root.handle).error_code());
  Lie absent_fd([](std::span<const uint8_t>) -> FakeGofer::Reply {
    return {.frame = FakeGofer::Frame(Op::kOpen, {}, 1)};
  });
  ExpectEio(absent_fd, absent_fd.client->Open(absent_fd.root.handle, O_RDONLY).error_code());
  Lie no_fd(Op::kOpen, {});
  ExpectEio(no_fd, no_fd.client->Open(no_fd.root.handle, O_RDONLY).error_code());
}

TEST(ClientTest, UnexpectedDescriptorsAreClosed) {
  Lie lie([](std::span<const uint8_t>) -> FakeGofer::Reply {
    FakeGofer::Reply reply = {.frame = FakeGofer::Frame(Op::kStat, Pack(GoodAttr()), 1)};
    reply.fds.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
    return reply;
  });
  int next = dup(0);
  close(next);
  ExpectEio(lie, lie.client->Stat(lie.root.handle).error_code());
  // The fake gofer's own one goes a moment later.
  int after = -1;
  for (int i = 0; i < 1000 && after != next; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    after = dup(0);
    close(after);
  }
  EXPECT_EQ(next, after);
}

TEST(ClientTest, MalformedWalks) {
  auto walk = [](Bytes body, std::vector<std::string_view> names, std::optional<int> flags = std::nullopt) {
    Lie lie(Op::kWalk, std::move(body));
    ExpectEio(lie, lie.client->Walk(lie.root.handle, names, flags).error_code());
  };
  using R = gofer::WalkReply;
  walk(Pack(R{.count = 2, .error = 0, .open_error = 0, .zero = 0}, GoodNode(), GoodNode()), {"a"});
  walk(Pack(R{.count = 1, .error = 0, .open_error = 0, .zero = 0}), {"a"});
  walk(Pack(R{.count = 0, .error = 0, .open_error = 0, .zero = 0}), {"a"});
  walk(Pack(R{.count = 0, .error = 5000, .open_error = 0, .zero = 0}), {"a"});
  gofer::Node no_handle = GoodNode();
  no_handle.handle = 0;
  walk(Pack(R{.count = 1, .error = 0, .open_error = 0, .zero = 0}, no_handle), {"a"});
  // Through a file; through a symlink.
  walk(Pack(R{.count = 2, .error = 0, .open_error = 0, .zero = 0}, GoodNode(S_IFREG | 0644), GoodNode()), {"a", "b"});
  walk(Pack(R{.count = 2, .error = 0, .open_error = 0, .zero = 0}, GoodNode(S_IFLNK | 0777), GoodNode()), {"a", "b"});
  // Too much, or a target with NUL.
  walk(Pack(R{.count = 1, .error = 0, .open_error = 0, .zero = 0}, GoodNode(), uint8_t{1}), {"a"});
  walk(Pack(R{.count = 1, .error = 0, .open_error = 0, .zero = 0}, GoodNode(S_IFLNK | 0777), uint8_t{'x'}, uint8_t{0}),
       {"a"});
  // Opened, it says, but no descriptor came.
  walk(Pack(R{.count = 1, .error = 0, .open_error = 0, .zero = 0}, GoodNode(S_IFREG | 0644)), {"a"}, O_RDONLY);
}

TEST(ClientTest, MalformedDirectories) {
  auto page = [](uint32_t count, uint64_t next, uint32_t end, std::string_view name, uint32_t type = 8) {
    Bytes bytes(gofer::kMaxFrame);
    gofer::Writer writer(bytes);
    writer.Put(gofer::ReadDirectoryReply{.next = next, .count = count, .end = end});
    writer.Put(gofer::DirentHeader{.ino = 1, .type = type, .has_attr = 0});
    writer.PutString(name);
    bytes.resize(writer.used());
    Lie lie(Op::kReadDirectory, bytes);
    return lie.client->ReadDirectory(lie.root.handle, {}, 0, false).error_code();
  };
  EXPECT_EQ(page(1, 5, 0, "fine"), 0);
  EXPECT_EQ(page(1, 0, 0, "again-and-again"), EIO);
  EXPECT_EQ(page(2, 5, 0, "one"), EIO);
  EXPECT_EQ(page(0, 5, 0, "left-over"), EIO);
  EXPECT_EQ(page(1, 5, 2, "end"), EIO);
  EXPECT_EQ(page(1, 5, 0, "type", 16), EIO);
  const std::string bad[] = {"", ".", "..", "a/b", std::string("a\0b", 3)};
  for (const std::string& name : bad) EXPECT_EQ(page(1, 5, 0, name), EIO);
  EXPECT_EQ(page(1, 5, 0, std::string(256, 'n')), EIO);
}

TEST(ClientTest, OtherMalformedAnswers) {
  Lie link(Op::kReadlink, {});
  ExpectEio(link, link.client->Readlink(link.root.handle).error_code());
  Lie list(Op::kListXattr, {'n', 'o', ' ', 'e', 'n', 'd'});
  ExpectEio(list, list.client->ListXattr(list.root.handle).error_code());
  Lie value(Op::kGetXattr, Bytes(gofer::kMaxXattrValue + 1));
  ExpectEio(value, value.client->GetXattr(value.root.handle, "user.a").error_code());
  Lie kind(Op::kMkdir, Pack(GoodNode(S_IFREG | 0644)));
  ExpectEio(kind, kind.client->Mkdir(kind.root.handle, "d", 0755, {}).error_code());
}

TEST(ClientTest, HangingUpInTheMiddleIsNoHang) {
  Lie lie([](std::span<const uint8_t>) -> FakeGofer::Reply { return {.hang_up = true}; });
  auto start = std::chrono::steady_clock::now();
  ExpectEio(lie, lie.client->Stat(lie.root.handle).error_code());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(ClientTest, ShutdownWakesWhoWaits) {
  std::atomic<bool> asked = false;
  Lie lie([&asked](std::span<const uint8_t>) -> FakeGofer::Reply {
    asked = true;
    std::this_thread::sleep_for(std::chrono::hours(1));
    return {};
  });
  std::thread waiter([&] { EXPECT_EQ(lie.client->Stat(lie.root.handle).error_code(), EIO); });
  while (!asked) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  lie.client->Shutdown();
  waiter.join();
}

TEST(ClientTest, RefusesWhoDoesNotSpeakTheProtocol) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  close(ends[1]);
  EXPECT_EQ(GoferClient::Connect(UniqueFd(ends[0])).error_code(), EPROTO);
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  ASSERT_EQ(write(ends[1], "nonsense", 8), 8);
  EXPECT_EQ(GoferClient::Connect(UniqueFd(ends[0])).error_code(), EPROTO);
  close(ends[1]);
}

TEST(SharedMemoryTest, OnlySealedMemoryOfTheRightSizeIsMapped) {
  UniqueFd unsealed(memfd_create("t", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), gofer::kSharedBytes), 0);
  EXPECT_EQ(gofer::SharedMemory::Map(unsealed).error_code(), EPROTO);
  UniqueFd small(memfd_create("t", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(small.get(), 4096), 0);
  ASSERT_EQ(fcntl(small.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  EXPECT_EQ(gofer::SharedMemory::Map(small).error_code(), EPROTO);
  UniqueFd file(open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(gofer::SharedMemory::Map(file).error_code(), EPROTO);
  UniqueFd good;
  ASSERT_TRUE(gofer::SharedMemory::Create(good).ok());
  EXPECT_TRUE(gofer::SharedMemory::Map(good).ok());
}

}  // namespace
}  // namespace caisson
