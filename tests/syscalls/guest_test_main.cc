// main of every guest test. What it prints is for tests/harness/guest.py:
//   ##count N, ##run NAME, ##ok NAME, ##fail NAME, ##skip NAME REASON, ##end
// --from=N starts at case N: how the harness goes on behind a case that ended the program. --only=NAME runs one.
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

#include <atomic>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace guest {
namespace {

struct Case {
  const char* group;
  const char* name;
  void (*body)();
};
struct Sub {
  const char* name;
  int (*body)(int, char**);
};

std::vector<Case>& Cases() {
  static std::vector<Case> cases;
  return cases;
}
std::vector<Sub>& Subs() {
  static std::vector<Sub> subs;
  return subs;
}

std::atomic<int> g_failures{0};
int g_out = 1;
bool g_skipped = false;
std::string g_skip_reason;
std::string g_self;
std::string g_scratch;

void Line(const std::string& text) {
  std::string line = text + "\n";
  [[maybe_unused]] ssize_t n = write(g_out, line.data(), line.size());
}

std::string Format(const char* format, va_list args) {
  char text[2048];
  vsnprintf(text, sizeof text, format, args);
  return text;
}

int RemoveOne(const char* path, const struct stat*, int, struct FTW*) { return remove(path); }

void RunCase(const Case& test) {
  std::string name = std::string(test.group) + "." + test.name;
  Line("##run " + name);
  g_failures = 0;
  g_skipped = false;
  test.body();
  if (!g_scratch.empty()) {
    if (chdir("/tmp") != 0) EXPECT_OK(chdir("/"));
    nftw(g_scratch.c_str(), RemoveOne, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    g_scratch.clear();
  }
  if (g_failures > 0) {
    Line("##fail " + name);
  } else if (g_skipped) {
    Line("##skip " + name + " " + g_skip_reason);
  } else {
    Line("##ok " + name);
  }
}

}  // namespace

Registration::Registration(const char* group, const char* name, void (*body)()) { Cases().push_back({group, name, body}); }
SubProgram::SubProgram(const char* name, int (*body)(int, char**)) { Subs().push_back({name, body}); }

const char* SelfPath() { return g_self.c_str(); }

bool InSandbox() {
  utsname names;
  return uname(&names) == 0 && (strcasestr(names.release, "caisson") || strcasestr(names.version, "caisson"));
}

const std::string& ScratchDir() {
  if (g_scratch.empty()) {
    for (const char* where : {"/tmp/guest.XXXXXX", "/guest.XXXXXX"}) {
      std::string path = where;
      if (mkdtemp(path.data())) {
        g_scratch = path;
        break;
      }
    }
    if (g_scratch.empty()) Fail(__FILE__, __LINE__, "mkdtemp: %s", ErrnoName(errno).c_str());
  }
  return g_scratch;
}

void* UnmappedAddress() { return reinterpret_cast<void*>(0x10); }
void* KernelAddress() { return reinterpret_cast<void*>(0xffff800000000000); }

char* ReadOnlyPage() {
  static char* const page =
      static_cast<char*>(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  return page;
}

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void SleepMs(int64_t ms) {
  timespec left = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&left, &left) == -1 && errno == EINTR) {
  }
}

std::string ReadFile(const char* path) {
  std::string all;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return all;
  char part[4096];
  for (ssize_t n; (n = read(fd, part, sizeof part)) > 0;) all.append(part, static_cast<size_t>(n));
  close(fd);
  return all;
}

void Fail(const char* file, int line, const char* format, ...) {
  int saved = errno;
  va_list args;
  va_start(args, format);
  std::string text = Format(format, args);
  va_end(args);
  Line("  " + std::string(file) + ":" + std::to_string(line) + ": " + text);
  ++g_failures;
  errno = saved;
}

int FailureCount() { return g_failures; }

void Skip(const char* reason) {
  g_skipped = true;
  g_skip_reason = reason;
}

void Note(const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::string text = Format(format, args);
  va_end(args);
  Line("  " + text);
}

std::string ErrnoName(int code) {
  const char* name = strerrorname_np(code);
  return name ? name : "errno " + std::to_string(code);
}

}  // namespace guest

int main(int argc, char** argv) {
  guest::g_self = argv[0];
  if (guest::g_self.find('/') != 0) {
    char* absolute = realpath(argv[0], nullptr);
    if (absolute) guest::g_self = absolute;
    free(absolute);
  }
  size_t from = 0;
  const char* only = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (strncmp(argv[i], "--sub=", 6) == 0) {
      for (const guest::Sub& sub : guest::Subs()) {
        if (strcmp(sub.name, argv[i] + 6) == 0) return sub.body(argc - i, argv + i);
      }
      return 98;
    }
    if (strncmp(argv[i], "--from=", 7) == 0) from = strtoul(argv[i] + 7, nullptr, 10);
    if (strncmp(argv[i], "--only=", 7) == 0) only = argv[i] + 7;
  }
  // Out of the way of tests that count or close descriptors.
  int out = fcntl(1, F_DUPFD_CLOEXEC, 900);
  if (out >= 0) guest::g_out = out;
  const auto& cases = guest::Cases();
  guest::Line("##count " + std::to_string(cases.size()));
  bool ran = false;
  for (size_t i = from; i < cases.size(); ++i) {
    if (only && std::string(cases[i].group) + "." + cases[i].name != only) continue;
    guest::RunCase(cases[i]);
    ran = true;
  }
  guest::Line("##end");
  return ran || !only ? 0 : 97;
}
