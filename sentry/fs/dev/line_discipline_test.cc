#include "sentry/fs/dev/line_discipline.h"

#include <signal.h>

#include <string>

#include "gtest/gtest.h"

namespace caisson {
namespace {

class LineDisciplineTest : public testing::Test {
 protected:
  LineDisciplineTest() { line_.SlaveOpened(); }

  // What is typed at the terminal.
  void Type(std::string text) {
    IoBuffer source(text.data(), text.size());
    Result<size_t> written = line_.MasterWrite(source, &signals_);
    ASSERT_TRUE(written.ok());
    EXPECT_EQ(*written, text.size());
  }
  // What the terminal shows.
  std::string Screen() {
    std::string out;
    char chunk[256];
    for (;;) {
      IoBuffer destination(chunk, sizeof chunk);
      Result<size_t> got = line_.MasterRead(destination);
      if (!got.ok()) return out;
      out.append(chunk, *got);
    }
  }
  // What the program reads; "<EAGAIN>" when it would block.
  std::string Read(size_t length = 256) {
    std::string chunk(length, 0);
    IoBuffer destination(chunk.data(), chunk.size());
    Result<size_t> got = line_.SlaveRead(destination);
    if (!got.ok()) return got.error_code() == EAGAIN ? "<EAGAIN>" : "<error>";
    chunk.resize(*got);
    return chunk;
  }
  void Print(std::string text) {
    IoBuffer source(text.data(), text.size());
    ASSERT_TRUE(line_.SlaveWrite(source).ok());
  }
  void SetLocal(tcflag_t set, tcflag_t clear) {
    KernelTermios termios = line_.termios();
    termios.c_lflag = (termios.c_lflag & ~clear) | set;
    line_.SetTermios(termios, false);
  }

  LineDiscipline line_;
  LineDiscipline::Signals signals_;
};

TEST_F(LineDisciplineTest, GivesALineWhenItIsComplete) {
  Type("ec");
  EXPECT_EQ(Read(), "<EAGAIN>");
  Type("ho\r");
  EXPECT_EQ(Read(), "echo\n");
  EXPECT_EQ(Read(), "<EAGAIN>");
  EXPECT_EQ(Screen(), "echo\r\n");
}

TEST_F(LineDisciplineTest, ReadsOneLineAtATimeAndPartsOfIt) {
  Type("one\ntwo\n");
  EXPECT_EQ(Read(2), "on");
  EXPECT_EQ(Read(), "e\n");
  EXPECT_EQ(Read(), "two\n");
}

TEST_F(LineDisciplineTest, ErasesCharactersWordsAndLines) {
  Type("ab\x7f" "c\n");
  EXPECT_EQ(Read(), "ac\n");
  EXPECT_EQ(Screen(), "ab\b \bc\r\n");
  Type("two words\x17" "x\n");
  EXPECT_EQ(Read(), "two x\n");
  Type("gone\x15kept\n");
  EXPECT_EQ(Read(), "kept\n");
}

TEST_F(LineDisciplineTest, EndOfFileEndsARead) {
  Type("\x04");
  EXPECT_EQ(Read(), "");
  Type("abc\x04");
  EXPECT_EQ(Read(), "abc");
  EXPECT_EQ(Read(), "<EAGAIN>");
}

TEST_F(LineDisciplineTest, RaisesSignalsAndFlushes) {
  Type("lost\x03");
  EXPECT_EQ(signals_, LineDiscipline::Signals{SIGINT});
  Type("\n");
  EXPECT_EQ(Read(), "\n");
  signals_.clear();
  Type("\x1c\x1a");
  EXPECT_EQ(signals_, (LineDiscipline::Signals{SIGQUIT, SIGTSTP}));
  signals_.clear();
  SetLocal(0, ISIG);
  Type("\x03\n");
  EXPECT_TRUE(signals_.empty());
  EXPECT_EQ(Read(), "\x03\n");
}

TEST_F(LineDisciplineTest, LiteralNextTakesSpecialCharacters) {
  Type("\x16\x03\n");
  EXPECT_TRUE(signals_.empty());
  EXPECT_EQ(Read(), "\x03\n");
}

TEST_F(LineDisciplineTest, RawModeGivesBytesAtOnce) {
  SetLocal(0, ICANON | ECHO | ISIG);
  Type("a\x04");
  EXPECT_EQ(Read(), "a\x04");
  EXPECT_EQ(Screen(), "");
}

TEST_F(LineDisciplineTest, LeavingCanonicalModeMakesTheLineReadable) {
  Type("part");
  SetLocal(0, ICANON);
  EXPECT_EQ(Read(), "part");
}

TEST_F(LineDisciplineTest, ProcessesOutput) {
  Print("a\nb\tc\n");
  EXPECT_EQ(Screen(), "a\r\nb\tc\r\n");
  KernelTermios termios = line_.termios();
  termios.c_oflag |= XTABS;
  line_.SetTermios(termios, false);
  Print("b\tc");
  EXPECT_EQ(Screen(), "b       c");
  termios.c_oflag = 0;
  line_.SetTermios(termios, false);
  Print("a\n");
  EXPECT_EQ(Screen(), "a\n");
}

TEST_F(LineDisciplineTest, StopAndStartHoldOutput) {
  Type("\x13");
  std::string text = "held";
  IoBuffer source(text.data(), text.size());
  EXPECT_EQ(line_.SlaveWrite(source).error_code(), EAGAIN);
  EXPECT_FALSE(line_.SlavePoll() & kEventOut);
  Type("\x11");
  Print("free");
  EXPECT_EQ(Screen(), "free");
}

TEST_F(LineDisciplineTest, LongLinesAreCutNotLost) {
  Type(std::string(5000, 'x') + "\n");
  // termios(3): a line holds 4096 bytes with its newline.
  const std::string line = Read(8192);
  EXPECT_EQ(line.size(), 4096u);
  EXPECT_EQ(line.back(), '\n');
}

TEST_F(LineDisciplineTest, ClosingASideIsSeenByTheOther) {
  line_.SlaveClosed();
  EXPECT_TRUE(line_.MasterPoll() & EPOLLHUP);
  char c;
  IoBuffer destination(&c, 1);
  EXPECT_EQ(line_.MasterRead(destination).error_code(), EIO);
  line_.MasterClosed();
  EXPECT_TRUE(line_.SlavePoll() & EPOLLHUP);
  EXPECT_EQ(line_.SlaveRead(destination).value_or(1), 0u);
  std::string text = "x";
  IoBuffer source(text.data(), 1);
  EXPECT_EQ(line_.SlaveWrite(source).error_code(), EIO);
}

TEST_F(LineDisciplineTest, PacketModeTellsOfFlushes) {
  line_.SetPacketMode(true);
  Print("x");
  char chunk[8];
  IoBuffer destination(chunk, sizeof chunk);
  ASSERT_EQ(line_.MasterRead(destination).value(), 2u);
  EXPECT_EQ(chunk[0], TIOCPKT_DATA);
  EXPECT_EQ(chunk[1], 'x');
  ASSERT_TRUE(line_.Flush(TCIFLUSH, /*from_master=*/false).ok());
  IoBuffer status(chunk, sizeof chunk);
  ASSERT_EQ(line_.MasterRead(status).value(), 1u);
  EXPECT_EQ(chunk[0], TIOCPKT_FLUSHREAD);
}

}  // namespace
}  // namespace caisson
