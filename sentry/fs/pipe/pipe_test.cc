#include "sentry/fs/pipe/pipe.h"

#include <limits.h>

#include <string>
#include <thread>

#include "gtest/gtest.h"

namespace caisson {
namespace {

RefPtr<Pipe> NewOpenPipe() {
  auto pipe = MakeRef<Pipe>();
  pipe->AddReader();
  pipe->AddWriter();
  return pipe;
}

Result<size_t> Write(Pipe& pipe, std::string text, bool packets = false) {
  IoBuffer source(text.data(), text.size());
  return pipe.Write(source, packets);
}

std::string Read(Pipe& pipe, size_t room) {
  std::string out(room, '\0');
  IoBuffer destination(out.data(), out.size());
  Result<size_t> n = pipe.Read(destination);
  if (!n.ok()) return "errno " + std::to_string(n.error_code());
  out.resize(*n);
  return out;
}

TEST(Pipe, JoinsSmallWritesAndSplitsReads) {
  auto pipe = NewOpenPipe();
  EXPECT_EQ(*Write(*pipe, "hello "), 6u);
  EXPECT_EQ(*Write(*pipe, "world"), 5u);
  EXPECT_EQ(pipe->available(), 11u);
  EXPECT_EQ(Read(*pipe, 3), "hel");
  EXPECT_EQ(Read(*pipe, 100), "lo world");
  EXPECT_EQ(Read(*pipe, 1), "errno " + std::to_string(EAGAIN));
}

TEST(Pipe, HoldsSixteenPagesAndSaysWhenItIsFull) {
  auto pipe = NewOpenPipe();
  EXPECT_EQ(pipe->capacity_bytes(), 65536u);
  EXPECT_EQ(*Write(*pipe, std::string(100000, 'x')), 65536u);
  EXPECT_EQ(Write(*pipe, "y").error_code(), EAGAIN);
  EXPECT_EQ(pipe->Poll(true, true, 0), kEventIn);
  EXPECT_EQ(Read(*pipe, 4095).size(), 4095u);
  // A page that is not empty still takes its slot.
  EXPECT_EQ(Write(*pipe, "y").error_code(), EAGAIN);
  EXPECT_EQ(Read(*pipe, 1), "x");
  EXPECT_EQ(pipe->Poll(true, true, 0), kEventIn | kEventOut);
  EXPECT_EQ(*Write(*pipe, std::string(PIPE_BUF, 'y')), size_t{PIPE_BUF});
}

TEST(Pipe, WritesOfPipeBufAreWhole) {
  auto pipe = NewOpenPipe();
  Write(*pipe, std::string(15 * 4096, 'a')).value();
  Write(*pipe, std::string(4000, 'b')).value();
  // 96 bytes are free behind the last ones: 100 do not fit, and no slot is left.
  EXPECT_EQ(Write(*pipe, std::string(100, 'c')).error_code(), EAGAIN);
  EXPECT_EQ(*Write(*pipe, std::string(96, 'c')), 96u);
}

TEST(Pipe, PacketsKeepTheirBoundaries) {
  auto pipe = NewOpenPipe();
  Write(*pipe, "first", true).value();
  Write(*pipe, "second", true).value();
  EXPECT_EQ(Read(*pipe, 100), "first");
  EXPECT_EQ(Read(*pipe, 3), "sec");  // The rest of the packet is lost.
  EXPECT_EQ(Read(*pipe, 1), "errno " + std::to_string(EAGAIN));
}

TEST(Pipe, EndsTellTheOtherSide) {
  auto pipe = NewOpenPipe();
  Write(*pipe, "last").value();
  pipe->RemoveWriter();
  EXPECT_EQ(pipe->Poll(true, false, 0), kEventIn | EPOLLHUP);
  EXPECT_EQ(Read(*pipe, 100), "last");
  EXPECT_EQ(Read(*pipe, 100), "");
  pipe->AddWriter();
  pipe->RemoveReader();
  EXPECT_EQ(Write(*pipe, "x").error_code(), EPIPE);
  EXPECT_EQ(pipe->Poll(false, true, 0), kEventOut | EPOLLERR);
}

TEST(Pipe, ResizeKeepsWhatIsThere) {
  auto pipe = NewOpenPipe();
  Write(*pipe, std::string(5000, 'x')).value();
  EXPECT_EQ(pipe->Resize(4096, false).error_code(), EBUSY);
  EXPECT_EQ(*pipe->Resize(8193, false), 16384u);
  EXPECT_EQ(pipe->Resize((1 << 20) + 1, false).error_code(), EPERM);
  EXPECT_EQ(*pipe->Resize((1 << 20) + 1, true), size_t{2} << 20);
  EXPECT_EQ(pipe->Resize(uint64_t{1} << 32, true).error_code(), EINVAL);
  EXPECT_EQ(Read(*pipe, 9000), std::string(5000, 'x'));
}

TEST(Pipe, MoveTakesAndTeeShares) {
  auto from = NewOpenPipe(), to = NewOpenPipe();
  Write(*from, "abcdef").value();
  EXPECT_EQ(*Pipe::Move(*from, *to, 100, /*keep=*/true), 6u);
  // Bytes written after a tee are not seen through the shared page.
  Write(*from, "ghi").value();
  EXPECT_EQ(Read(*to, 100), "abcdef");
  EXPECT_EQ(*Pipe::Move(*from, *to, 4, /*keep=*/false), 4u);
  EXPECT_EQ(Read(*to, 100), "abcd");
  EXPECT_EQ(Read(*from, 100), "efghi");
  EXPECT_EQ(Pipe::Move(*from, *to, 1, false).error_code(), EAGAIN);
  from->RemoveWriter();
  EXPECT_EQ(*Pipe::Move(*from, *to, 1, false), 0u);
}

TEST(Pipe, DrainStopsAtAShortCountAndKeepsTheRest) {
  auto pipe = NewOpenPipe();
  Write(*pipe, std::string(4096, 'a') + std::string(4096, 'b')).value();
  std::string got;
  Result<size_t> n = pipe->Drain(8192, [&](const uint8_t* data, size_t size) -> Result<size_t> {
    size = got.empty() ? size : 10;
    got.append(reinterpret_cast<const char*>(data), size);
    return size;
  });
  EXPECT_EQ(*n, 4106u);
  EXPECT_EQ(Read(*pipe, 10000), std::string(4086, 'b'));
}

TEST(Pipe, CarriesBytesBetweenThreadsInOrder) {
  auto pipe = NewOpenPipe();
  constexpr size_t kTotal = 4 << 20;
  std::thread writer([&] {
    std::string block(10007, '\0');
    for (size_t sent = 0; sent < kTotal;) {
      size_t size = std::min(block.size(), kTotal - sent);
      for (size_t i = 0; i < size; ++i) block[i] = static_cast<char>((sent + i) * 31 % 251);
      IoBuffer source(block.data(), size);
      Result<size_t> n = pipe->Write(source, false);
      if (n.ok()) {
        sent += *n;
      } else {
        std::this_thread::yield();
      }
    }
    pipe->RemoveWriter();
  });
  std::string block(6000, '\0');
  size_t received = 0, wrong = 0;
  while (true) {
    IoBuffer destination(block.data(), block.size());
    Result<size_t> n = pipe->Read(destination);
    if (!n.ok()) {
      std::this_thread::yield();
      continue;
    }
    if (*n == 0) break;
    for (size_t i = 0; i < *n; ++i) wrong += block[i] != static_cast<char>((received + i) * 31 % 251);
    received += *n;
  }
  writer.join();
  EXPECT_EQ(received, kTotal);
  EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace caisson
