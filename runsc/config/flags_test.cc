#include "runsc/config/flags.h"

#include "gtest/gtest.h"
#include "runsc/config/options.h"

namespace caisson {
namespace {

constexpr FlagSpec kTable[] = {
    {"bundle", 'b', FlagKind::kString, "", "path to the bundle"},
    {"detach", 'd', FlagKind::kBool, "", "go on alone"},
    {"preserve-fds", 0, FlagKind::kInt, "0", "more descriptors"},
    {"env", 'e', FlagKind::kList, "", "variables"},
    {"no-subreaper", 0, FlagKind::kBool, "", nullptr},
};

absl::StatusOr<Flags> Parse(std::vector<std::string> arguments) { return Flags::Parse(arguments, kTable); }

TEST(FlagsTest, EverySpelling) {
  for (std::vector<std::string> arguments : std::vector<std::vector<std::string>>{
           {"--bundle", "/x", "id"}, {"--bundle=/x", "id"}, {"-bundle", "/x", "id"}, {"-b", "/x", "id"}, {"-b=/x", "id"}}) {
    absl::StatusOr<Flags> flags = Parse(arguments);
    ASSERT_TRUE(flags.ok());
    EXPECT_EQ(flags->String("bundle"), "/x");
    EXPECT_EQ(flags->arguments(), std::vector<std::string>{"id"});
  }
  EXPECT_TRUE(Parse({"-no-subreaper", "x"})->Bool("no-subreaper"));
  EXPECT_FALSE(Parse({"--detach=false"})->Bool("detach"));
  EXPECT_EQ(Parse({"--bundle", "-d"})->String("bundle"), "-d");
  EXPECT_EQ(Parse({"-e", "A=1", "--env=B=2"})->List("env"), (std::vector<std::string>{"A=1", "B=2"}));
  EXPECT_EQ(Parse({})->Int("preserve-fds"), 0);
}

TEST(FlagsTest, EndAtTheFirstArgument) {
  absl::StatusOr<Flags> flags = Parse({"-d", "id", "-d", "--unknown"});
  ASSERT_TRUE(flags.ok());
  EXPECT_EQ(flags->arguments(), (std::vector<std::string>{"id", "-d", "--unknown"}));
  EXPECT_EQ(Parse({"--", "-d"})->arguments(), std::vector<std::string>{"-d"});
  EXPECT_EQ(Parse({"-"})->arguments(), std::vector<std::string>{"-"});
}

TEST(FlagsTest, Mistakes) {
  EXPECT_EQ(MessageOf(Parse({"--nothing"}).status()), "flag provided but not defined: -nothing");
  EXPECT_EQ(MessageOf(Parse({"--bundle"}).status()), "flag needs an argument: -bundle");
  EXPECT_FALSE(Parse({"--detach=maybe"}).ok());
  EXPECT_FALSE(Parse({"--preserve-fds", "x"}).ok());
  EXPECT_TRUE(Parse({"--help"})->help());
}

TEST(FlagsTest, Format) {
  EXPECT_EQ(FormatFlags(kTable),
            "   --bundle value, -b value  path to the bundle\n"
            "   --detach, -d              go on alone\n"
            "   --preserve-fds value      more descriptors (default: 0)\n"
            "   --env value, -e value     variables\n");
}

TEST(OptionsTest, ChecksValues) {
  auto options = [](std::vector<std::string> arguments) {
    return GlobalOptionsFrom(*Flags::Parse(arguments, GlobalFlagTable()));
  };
  EXPECT_EQ(options({"--root", "/a/../b"})->root, "/b");
  EXPECT_EQ(options({"--platform=ptrace"})->platform, PlatformOption::kPtrace);
  EXPECT_EQ(options({"--log-format=json"})->log_format, LogFormat::kJson);
  EXPECT_EQ(MessageOf(options({"--platform=x"}).status()), "invalid platform: x (known: systrap, ptrace)");
  for (const char* bad : {"--root=", "--log-format=x", "--network=x", "--overlay2=x", "--rootless=x", "--host-uds=x",
                          "--file-access=x", "--strace-log-size=-1"}) {
    EXPECT_FALSE(options({bad}).ok()) << bad;
  }
  EXPECT_TRUE(options({"--rootless=true"})->rootless);
  EXPECT_FALSE(options({"--overlay2=none"})->overlay_root);
}

}  // namespace
}  // namespace caisson
