#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "sentry/base/log.h"
#include "sentry/base/refs.h"
#include "sentry/base/result.h"
#include "sentry/base/unique_fd.h"

namespace caisson {
namespace {

Result<int> Half(int n) {
  if (n % 2) return Errno(EINVAL);
  return n / 2;
}
Result<int> Quarter(int n) { return Half(TRY(Half(n))); }
Result<void> CheckQuarter(int n) {
  TRY(Quarter(n));
  return {};
}

TEST(ResultTest, TryReturnsTheFirstError) {
  EXPECT_EQ(Quarter(8).value(), 2);
  EXPECT_EQ(Quarter(6).error_code(), EINVAL);
  EXPECT_EQ(Quarter(6).error(), EINVAL);
  EXPECT_TRUE(CheckQuarter(4).ok());
  EXPECT_EQ(CheckQuarter(3).error_code(), EINVAL);
  EXPECT_EQ(Quarter(3).value_or(7), 7);
}

TEST(ResultTest, ErrnoRemembersWhereItWasMade) {
  Errno error(ENOENT);
  int line = __LINE__ - 1;
  EXPECT_EQ(error.line(), line);
  EXPECT_NE(std::string(error.file()).find("base_test"), std::string::npos);
  EXPECT_FALSE(error.IsRestart());
  EXPECT_TRUE(Errno(kErestartSys).IsRestart());
}

TEST(ResultTest, CarriesMoveOnlyValues) {
  auto make = []() -> Result<std::unique_ptr<int>> { return std::make_unique<int>(5); };
  Result<std::unique_ptr<int>> moved = make();
  Result<std::unique_ptr<int>> again = std::move(moved);
  EXPECT_EQ(**again, 5);
  again = Errno(EIO);
  EXPECT_EQ(again.error_code(), EIO);
}

TEST(ResultDeathTest, ValueOfAnErrorIsACheckFailure) { EXPECT_DEATH(Quarter(3).value(), "CHECK failed: ok_"); }

TEST(ResultTest, HostResultTakesErrno) {
  EXPECT_EQ(HostResult(close(-1)).error_code(), EBADF);
  EXPECT_EQ(HostResult(7).value(), 7);
}

struct Counted : RefCounted {
  explicit Counted(int* deaths) : deaths(deaths) {}
  ~Counted() override { ++*deaths; }
  int* deaths;
};

TEST(RefPtrTest, LastReferenceDeletes) {
  int deaths = 0;
  RefPtr<Counted> a = MakeRef<Counted>(&deaths);
  {
    RefPtr<Counted> b = a;
    EXPECT_EQ(a->RefCount(), 2);
    RefPtr<RefCounted> base = std::move(b);
    EXPECT_EQ(a->RefCount(), 2);
    EXPECT_EQ(b, nullptr);  // NOLINT: moved from on purpose.
  }
  EXPECT_EQ(a->RefCount(), 1);
  EXPECT_TRUE(a->TryIncRef());
  a->DecRef();
  EXPECT_EQ(deaths, 0);
  a = nullptr;
  EXPECT_EQ(deaths, 1);
}

TEST(UniqueFdTest, ClosesOnce) {
  int raw = open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(raw, 0);
  {
    UniqueFd a(raw);
    UniqueFd b = std::move(a);
    EXPECT_FALSE(a.valid());  // NOLINT: moved from on purpose.
    EXPECT_EQ(b.get(), raw);
  }
  EXPECT_EQ(fcntl(raw, F_GETFD), -1);
}

class LogTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    read_end_.Reset(ends[0]);
    write_end_.Reset(ends[1]);
  }
  void TearDown() override { InitLog(2, LogFormat::kText, LogLevel::kWarning, "test"); }
  std::string Written() {
    write_end_.Reset();
    std::string all;
    char part[4096];
    for (ssize_t n; (n = read(read_end_.get(), part, sizeof part)) > 0;) all.append(part, static_cast<size_t>(n));
    return all;
  }
  UniqueFd read_end_, write_end_;
};

TEST_F(LogTest, JsonLinesEscape) {
  InitLog(write_end_.get(), LogFormat::kJson, LogLevel::kInfo, "sentry");
  LOG_DEBUG("not %s", "written");
  LOG_ERROR("open \"%s\"\n", "a\tb");
  std::string text = Written();
  EXPECT_NE(text.find(R"("level":"error")"), std::string::npos) << text;
  EXPECT_NE(text.find(R"(open \"a\u0009b\")"), std::string::npos) << text;
  EXPECT_EQ(text.find("written"), std::string::npos) << text;
  EXPECT_EQ(text.find('\n'), text.size() - 1) << text;
}

TEST(JsonQuoteTest, EscapesControlsAndInvalidUtf8) {
  EXPECT_EQ(JsonQuote("plain"), "\"plain\"");
  EXPECT_EQ(JsonQuote("\x01\\"), "\"\\u0001\\\\\"");
  std::string bad = JsonQuote("\xff");
  EXPECT_EQ(bad.find('\xff'), std::string::npos);
}

}  // namespace
}  // namespace caisson
