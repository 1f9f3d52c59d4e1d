// TCP and UDP over the loopback stack, below the sockets.
#include <netinet/in.h>

#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "sentry/net/inet/loopback/tcp.h"
#include "sentry/net/inet/loopback/udp.h"

namespace caisson {
namespace {

InetAddress Local(uint16_t port) { return InetAddress::V4(INADDR_LOOPBACK, port); }
BindOptions V4() { return {.domain = AF_INET}; }
BindOptions Reuse() { return {.domain = AF_INET, .reuse_address = true}; }

template <typename Endpoint>
Result<size_t> Send(Endpoint& endpoint, std::string text) {
  IoBuffer source(text.data(), text.size());
  return endpoint.Send(source);
}
std::string Receive(TcpEndpoint& endpoint, size_t room, int flags = 0) {
  std::string out(room, '\0');
  IoBuffer destination(out.data(), out.size());
  Result<size_t> n = endpoint.Receive(destination, flags);
  if (!n.ok()) return "errno " + std::to_string(n.error_code());
  out.resize(*n);
  return out;
}
std::string ErrnoText(int code) { return "errno " + std::to_string(code); }

class Tcp : public testing::Test {
 protected:
  RefPtr<LoopbackTcp> New() { return MakeRef<LoopbackTcp>(ports_); }
  RefPtr<LoopbackTcp> NewListener(uint16_t port, int backlog = 5) {
    auto listener = New();
    EXPECT_TRUE(listener->Bind(Local(port), V4()).ok());
    EXPECT_TRUE(listener->Listen(backlog, V4()).ok());
    return listener;
  }
  struct Pair {
    RefPtr<LoopbackTcp> client;
    RefPtr<TcpEndpoint> server;
  };
  Pair Connect() {
    auto listener = NewListener(80);
    Pair pair{New(), nullptr};
    EXPECT_TRUE(pair.client->Connect(Local(80), V4()).ok());
    pair.server = *listener->Accept();
    listener->Close(false);
    return pair;
  }
  PortTable ports_;
};

TEST_F(Tcp, ConnectsAndNamesBothEnds) {
  auto listener = NewListener(80);
  EXPECT_EQ(listener->Accept().error_code(), EAGAIN);
  auto client = New();
  ASSERT_TRUE(client->Connect(Local(80), V4()).ok());
  EXPECT_EQ(client->Poll(), kEventOut);
  EXPECT_EQ(listener->Poll(), kEventIn);
  RefPtr<TcpEndpoint> server = *listener->Accept();
  EXPECT_EQ(*client->remote(), Local(80));
  EXPECT_EQ(server->local(), Local(80));
  EXPECT_EQ(*server->remote(), client->local());
  EXPECT_GE(client->local().port, PortTable::kFirstEphemeral);
  EXPECT_EQ(*Send(*client, "ping"), 4u);
  EXPECT_EQ(server->Poll(), kEventIn | kEventOut);
  EXPECT_EQ(Receive(*server, 10, MSG_PEEK), "ping");
  EXPECT_EQ(Receive(*server, 10), "ping");
  EXPECT_EQ(Receive(*server, 10), ErrnoText(EAGAIN));
}

TEST_F(Tcp, NobodyThereIsRefused) {
  auto client = New();
  EXPECT_EQ(client->Connect(Local(81), V4()).error_code(), ECONNREFUSED);
  EXPECT_TRUE(client->Poll() & EPOLLHUP);
  // The same socket may try again.
  auto listener = NewListener(81);
  EXPECT_TRUE(client->Connect(Local(81), V4()).ok());
}

TEST_F(Tcp, OtherNetworksAreUnreachable) {
  EXPECT_EQ(New()->Connect(InetAddress::V4(0x08080808, 53), V4()).error_code(), ENETUNREACH);
  EXPECT_EQ(New()->Bind(InetAddress::V4(0x0a000001, 80), V4()).error_code(), EADDRNOTAVAIL);
}

TEST_F(Tcp, PortsBelongToOne) {
  auto a = New(), b = New(), c = New(), d = New();
  ASSERT_TRUE(a->Bind(InetAddress::V4(INADDR_ANY, 80), V4()).ok());
  EXPECT_EQ(b->Bind(Local(80), V4()).error_code(), EADDRINUSE);
  EXPECT_EQ(a->Bind(Local(81), V4()).error_code(), EINVAL);
  // With SO_REUSEADDR both may bind, one may listen.
  a->Close(false);
  ASSERT_TRUE(b->Bind(Local(80), Reuse()).ok());
  ASSERT_TRUE(c->Bind(Local(80), Reuse()).ok());
  EXPECT_TRUE(b->Listen(1, Reuse()).ok());
  EXPECT_EQ(c->Listen(1, Reuse()).error_code(), EADDRINUSE);
  EXPECT_EQ(d->Bind(Local(80), Reuse()).error_code(), EADDRINUSE);
}

TEST_F(Tcp, DualStackTakesBothFamilies) {
  BindOptions v6{.domain = AF_INET6}, only{.domain = AF_INET6, .v6_only = true};
  auto dual = New();
  ASSERT_TRUE(dual->Bind(InetAddress(), v6).ok() && dual->Listen(5, v6).ok());
  const uint16_t port = dual->local().port;
  EXPECT_EQ(New()->Bind(Local(port), V4()).error_code(), EADDRINUSE);
  auto client = New();
  EXPECT_TRUE(client->Connect(Local(port), V4()).ok());
  EXPECT_TRUE((*dual->Accept())->local().is_v4());
  // A v6-only listener leaves the v4 port to others.
  auto strict = New(), other = New(), v4_client = New();
  InetAddress any6;
  any6.port = 90;
  ASSERT_TRUE(strict->Bind(any6, only).ok() && strict->Listen(5, only).ok());
  EXPECT_EQ(v4_client->Connect(Local(90), V4()).error_code(), ECONNREFUSED);
  EXPECT_TRUE(other->Bind(Local(90), V4()).ok());
}

TEST_F(Tcp, HalfCloseLetsTheOtherHalfGoOn) {
  Pair pair = Connect();
  ASSERT_TRUE(Send(*pair.client, "request").ok());
  ASSERT_TRUE(pair.client->Shutdown(SHUT_WR).ok());
  EXPECT_EQ(Send(*pair.client, "x").error_code(), EPIPE);
  EXPECT_EQ(Receive(*pair.server, 100), "request");
  EXPECT_EQ(Receive(*pair.server, 100), "");
  EXPECT_TRUE(pair.server->Poll() & EPOLLRDHUP);
  EXPECT_FALSE(pair.server->Poll() & EPOLLHUP);
  EXPECT_EQ(*Send(*pair.server, "answer"), 6u);
  EXPECT_EQ(Receive(*pair.client, 100), "answer");
  pair.server->Close(false);
  EXPECT_EQ(Receive(*pair.client, 100), "");
  EXPECT_TRUE(pair.client->Poll() & EPOLLHUP);
}

TEST_F(Tcp, ClosingWithUnreadDataResets) {
  Pair pair = Connect();
  ASSERT_TRUE(Send(*pair.client, "unread").ok());
  ASSERT_TRUE(Send(*pair.server, "kept").ok());
  pair.server->Close(false);
  EXPECT_TRUE(pair.client->Poll() & EPOLLERR);
  // What had arrived is still read first; the error comes once.
  EXPECT_EQ(Receive(*pair.client, 100), "kept");
  EXPECT_EQ(Receive(*pair.client, 100), ErrnoText(ECONNRESET));
  EXPECT_EQ(Receive(*pair.client, 100), "");
  EXPECT_EQ(Send(*pair.client, "x").error_code(), EPIPE);
}

TEST_F(Tcp, SendingToAClosedPeerFailsTheSecondTime) {
  Pair pair = Connect();
  pair.server->Close(false);
  EXPECT_EQ(*Send(*pair.client, "into the void"), 13u);
  EXPECT_EQ(Send(*pair.client, "x").error_code(), EPIPE);
  EXPECT_EQ(Receive(*pair.client, 100), "");
}

TEST_F(Tcp, AFullQueueMakesConnectorsWait) {
  auto listener = NewListener(80, 0);
  auto first = New(), second = New();
  EXPECT_TRUE(first->Connect(Local(80), V4()).ok());
  EXPECT_EQ(second->Connect(Local(80), V4()).error_code(), EINPROGRESS);
  EXPECT_EQ(second->Connect(Local(80), V4()).error_code(), EALREADY);
  EXPECT_EQ(second->Poll(), 0u);
  EXPECT_TRUE(listener->Accept().ok());
  EXPECT_EQ(second->Poll(), kEventOut);
  EXPECT_TRUE(listener->Accept().ok());
  // Those that wait when the listener goes are refused; those that were connected are reset.
  auto third = New(), fourth = New();
  EXPECT_TRUE(third->Connect(Local(80), V4()).ok());
  EXPECT_EQ(fourth->Connect(Local(80), V4()).error_code(), EINPROGRESS);
  listener->Close(false);
  EXPECT_EQ(third->TakeError(), ECONNRESET);
  EXPECT_EQ(fourth->TakeError(), ECONNREFUSED);
}

TEST_F(Tcp, MegabytesArriveInOrderFromAnotherThread) {
  Pair pair = Connect();
  constexpr size_t kTotal = 32 << 20;
  std::thread writer([&] {
    std::string block(1 << 20, '\0');
    for (size_t i = 0; i < block.size(); ++i) block[i] = static_cast<char>(i % 253);
    for (size_t sent = 0; sent < kTotal;) {
      size_t at = sent % block.size();
      IoBuffer source(block.data() + at, block.size() - at);
      Result<size_t> n = pair.client->Send(source);
      if (n.ok()) sent += *n;
      else std::this_thread::yield();
    }
    pair.client->Shutdown(SHUT_WR).value();
  });
  std::string block(100000, '\0');
  size_t received = 0, wrong = 0;
  while (true) {
    IoBuffer destination(block.data(), block.size());
    Result<size_t> n = pair.server->Receive(destination, 0);
    if (!n.ok()) {
      std::this_thread::yield();
      continue;
    }
    if (*n == 0) break;
    for (size_t i = 0; i < *n; i += 97) wrong += block[i] != static_cast<char>((received + i) % (1 << 20) % 253);
    received += *n;
  }
  writer.join();
  EXPECT_EQ(received, kTotal);
  EXPECT_EQ(wrong, 0u);
}

TEST_F(Tcp, AWriterThatFoundNoRoomIsToldOfSome) {
  Pair pair = Connect();
  std::string megabyte(1 << 20, 'x');
  size_t sent = 0;
  while (true) {
    Result<size_t> n = Send(*pair.client, megabyte);
    if (!n.ok()) {
      EXPECT_EQ(n.error_code(), EAGAIN);
      break;
    }
    sent += *n;
  }
  EXPECT_EQ(pair.client->Poll() & kEventOut, 0u);
  size_t read = 0;
  while (!(pair.client->Poll() & kEventOut)) {
    ASSERT_LT(read, sent);
    read += Receive(*pair.server, 64 << 10).size();
  }
  EXPECT_LT(read, sent);
}

class Udp : public testing::Test {
 protected:
  RefPtr<LoopbackUdp> New() { return MakeRef<LoopbackUdp>(ports_); }
  PortTable ports_;
};

TEST_F(Udp, CarriesDatagramsWithTheirSource) {
  auto a = New(), b = New();
  ASSERT_TRUE(a->Bind(Local(53), V4()).ok());
  InetAddress to = Local(53);
  std::string text = "query";
  IoBuffer source(text.data(), text.size());
  EXPECT_EQ(*b->Send(source, &to, V4()), 5u);
  bool closed;
  Result<Datagram> got = a->Receive(false, &closed);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(std::string(reinterpret_cast<char*>(got->data.get()), got->length), "query");
  EXPECT_EQ(got->from.port, b->local().port);
  EXPECT_TRUE(got->from.is_loopback());
  EXPECT_EQ(a->Receive(false, &closed).error_code(), EAGAIN);
}

TEST_F(Udp, OnlyConnectedSocketsLearnOfRefusal) {
  auto a = New();
  InetAddress to = Local(54);
  std::string text = "x";
  IoBuffer one(text.data(), 1), two(text.data(), 1), three(text.data(), 1);
  EXPECT_EQ(*a->Send(one, &to, V4()), 1u);
  EXPECT_EQ(a->TakeError(), 0);
  ASSERT_TRUE(a->Connect(to, V4()).ok());
  EXPECT_EQ(*a->Send(two, nullptr, V4()), 1u);
  EXPECT_TRUE(a->Poll() & EPOLLERR);
  EXPECT_EQ(a->Send(three, nullptr, V4()).error_code(), ECONNREFUSED);
  EXPECT_EQ(a->TakeError(), 0);
}

TEST_F(Udp, AConnectedSocketTakesItsPeerAlone) {
  auto server = New(), friend_socket = New(), stranger = New();
  ASSERT_TRUE(friend_socket->Bind(Local(1001), V4()).ok());
  ASSERT_TRUE(stranger->Bind(Local(1002), V4()).ok());
  ASSERT_TRUE(server->Bind(Local(1000), V4()).ok());
  ASSERT_TRUE(server->Connect(Local(1001), V4()).ok());
  InetAddress to = Local(1000);
  std::string text = "x";
  IoBuffer one(text.data(), 1), two(text.data(), 1);
  ASSERT_TRUE(stranger->Send(one, &to, V4()).ok());
  bool closed;
  EXPECT_EQ(server->Receive(false, &closed).error_code(), EAGAIN);
  ASSERT_TRUE(friend_socket->Send(two, &to, V4()).ok());
  EXPECT_TRUE(server->Receive(false, &closed).ok());
}

TEST_F(Udp, WhatDoesNotFitIsDropped) {
  auto a = New(), b = New();
  ASSERT_TRUE(a->Bind(Local(53), V4()).ok());
  a->SetReceiveBuffer(4000);
  InetAddress to = Local(53);
  std::string text(1000, 'x');
  for (int i = 0; i < 10; ++i) {
    IoBuffer source(text.data(), text.size());
    EXPECT_TRUE(b->Send(source, &to, V4()).ok());
  }
  EXPECT_EQ(a->dropped(), 8u);
  std::string huge(65508, 'x');
  IoBuffer source(huge.data(), huge.size());
  EXPECT_EQ(b->Send(source, &to, V4()).error_code(), EMSGSIZE);
}

}  // namespace
}  // namespace caisson
