// Descriptors that one thread replaces and closes while others use them: each use finds one description or none.
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <atomic>
#include <vector>

#include "tests/syscalls/guest_test.h"

namespace {

constexpr int kFd = 50;
std::atomic<bool> g_stop;
std::atomic<long> g_odd, g_found, g_missing;
int g_files[2];
ino_t g_inodes[2];

void* Replace(void*) {
  while (!g_stop) {
    dup2(g_files[0], kFd);
    dup2(g_files[1], kFd);
    close(kFd);
  }
  return nullptr;
}

void* Use(void*) {
  while (!g_stop) {
    struct stat info;
    if (fstat(kFd, &info) == 0) {
      ++g_found;
      if (info.st_ino != g_inodes[0] && info.st_ino != g_inodes[1]) ++g_odd;
    } else if (errno == EBADF) {
      ++g_missing;
    } else {
      ++g_odd;
    }
    int copy = dup(kFd);
    if (copy >= 0) close(copy);
  }
  return nullptr;
}

}  // namespace

GUEST_TEST(FdRace, ReplacingClosingAndUsing) {
  for (int i = 0; i < 2; ++i) {
    std::string path = guest::ScratchDir() + "/" + std::to_string(i);
    g_files[i] = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_OK(g_files[i]);
    struct stat info;
    ASSERT_OK(fstat(g_files[i], &info));
    g_inodes[i] = info.st_ino;
  }
  std::vector<pthread_t> threads(5);
  for (size_t i = 0; i < threads.size(); ++i) pthread_create(&threads[i], nullptr, i < 2 ? Replace : Use, nullptr);
  guest::SleepMs(1500);
  g_stop = true;
  for (pthread_t thread : threads) pthread_join(thread, nullptr);
  EXPECT_EQ(g_odd.load(), 0);
  EXPECT_GT(g_found.load(), 0);
  // Nothing was lost and nothing is held: both files still answer, and closing them frees them.
  struct stat info;
  EXPECT_OK(fstat(g_files[0], &info));
  EXPECT_OK(fstat(g_files[1], &info));
  close(kFd);
  EXPECT_ERRNO(fstat(kFd, &info), EBADF);
}

GUEST_TEST(FdRace, LowestNumberAndHoles) {
  constexpr int kFrom = 300;  // Above whatever is open already.
  auto next = [] { return fcntl(0, F_DUPFD, kFrom); };
  int fds[200];
  for (int i = 0; i < 200; ++i) {
    fds[i] = next();
    EXPECT_EQ(fds[i], kFrom + i);
  }
  close(fds[70]);
  close(fds[7]);
  EXPECT_EQ(next(), fds[7]);
  EXPECT_EQ(next(), fds[70]);
  EXPECT_EQ(fcntl(0, F_DUPFD, kFrom + 300), kFrom + 300);
  close(kFrom + 300);
  EXPECT_OK(syscall(SYS_close_range, fds[0], fds[199], 0));
  EXPECT_EQ(next(), fds[0]);
  close(fds[0]);
}
