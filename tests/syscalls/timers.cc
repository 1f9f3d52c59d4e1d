// clock_gettime(2), nanosleep(2), clock_nanosleep(2), timer_create(2), setitimer(2), timerfd_create(2), the vDSO.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

#include "tests/syscalls/guest_test.h"

namespace {
volatile sig_atomic_t g_hits;
volatile int g_value;
void Count(int, siginfo_t* info, void*) {
  g_hits = g_hits + 1;
  g_value = info->si_value.sival_int;
}
void Handle(int number) {
  struct sigaction action = {};
  action.sa_sigaction = Count;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(number, &action, nullptr);
  g_hits = 0;
}
int64_t Ns(const timespec& t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }
}  // namespace

GUEST_TEST(Clock, MonotonicNeverGoesBackAndMatchesTheCall) {
  timespec a, b;
  int64_t last = 0;
  for (int i = 0; i < 2000; ++i) {
    ASSERT_OK(clock_gettime(CLOCK_MONOTONIC, &a));
    ASSERT_OK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b));
    ASSERT_GE(Ns(a), last);
    ASSERT_GE(Ns(b), Ns(a));
    ASSERT_LT(Ns(b) - Ns(a), 1000000000);
    last = Ns(b);
  }
}

GUEST_TEST(Clock, AllClocks) {
  for (int clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW,
                    CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI}) {
    timespec t = {-1, -1};
    EXPECT_OK(syscall(SYS_clock_gettime, clock, &t));
    EXPECT_GE(t.tv_nsec, 0);
    EXPECT_LT(t.tv_nsec, 1000000000);
    EXPECT_OK(clock_getres(clock, &t));
  }
  timespec t;
  EXPECT_ERRNO(syscall(SYS_clock_gettime, 99, &t), EINVAL);
  EXPECT_ERRNO(syscall(SYS_clock_gettime, CLOCK_REALTIME, guest::UnmappedAddress()), EFAULT);
  timeval tv;
  EXPECT_OK(gettimeofday(&tv, nullptr));
  time_t now = time(nullptr);
  EXPECT_LE(now - tv.tv_sec, 1);
  EXPECT_GT(now, 1600000000);
  unsigned cpu = 99999;
  EXPECT_OK(syscall(SYS_getcpu, &cpu, nullptr, nullptr));
  EXPECT_LT(cpu, 4096u);
}

GUEST_TEST(Clock, CpuTimeAdvancesWithWorkOnly) {
  timespec a, b, c;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
  guest::SleepMs(60);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
  EXPECT_LT(Ns(b) - Ns(a), 50000000);
  int64_t end = guest::NowMs() + 60;
  while (guest::NowMs() < end) {
  }
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &c);
  EXPECT_GT(Ns(c) - Ns(b), 3000000);
}

GUEST_TEST(Nanosleep, TakesItsTimeAndChecks) {
  int64_t start = guest::NowMs();
  timespec t = {0, 40000000};
  EXPECT_OK(nanosleep(&t, nullptr));
  EXPECT_GE(guest::NowMs() - start, 39);
  t.tv_nsec = 1000000000;
  EXPECT_ERRNO(nanosleep(&t, nullptr), EINVAL);
  t = {-1, 0};
  EXPECT_ERRNO(nanosleep(&t, nullptr), EINVAL);
  EXPECT_ERRNO(syscall(SYS_nanosleep, guest::UnmappedAddress(), nullptr), EFAULT);
  timespec when;
  clock_gettime(CLOCK_MONOTONIC, &when);
  when.tv_sec -= 10;
  EXPECT_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, nullptr), 0);
  clock_gettime(CLOCK_REALTIME, &when);
  when.tv_nsec += 30000000;
  if (when.tv_nsec >= 1000000000) {
    ++when.tv_sec;
    when.tv_nsec -= 1000000000;
  }
  EXPECT_EQ(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &when, nullptr), 0);
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  EXPECT_GE(Ns(now), Ns(when));
  EXPECT_EQ(clock_nanosleep(99, 0, &when, nullptr), EINVAL);
}

GUEST_TEST(Itimer, RealVirtualAndRemaining) {
  Handle(SIGALRM);
  itimerval timer = {{0, 10000}, {0, 10000}};
  ASSERT_OK(setitimer(ITIMER_REAL, &timer, nullptr));
  while (g_hits < 3) pause();
  itimerval left;
  EXPECT_OK(getitimer(ITIMER_REAL, &left));
  EXPECT_EQ(left.it_interval.tv_usec, 10000);
  timer = {};
  EXPECT_OK(setitimer(ITIMER_REAL, &timer, &left));
  Handle(SIGVTALRM);
  timer.it_value.tv_usec = 20000;
  ASSERT_OK(setitimer(ITIMER_VIRTUAL, &timer, nullptr));
  int64_t end = guest::NowMs() + 10000;
  volatile unsigned spin = 0;
  while (g_hits == 0 && guest::NowMs() < end) {
    for (int i = 0; i < 10000; ++i) spin = spin + 1;
  }
  EXPECT_EQ(g_hits, 1);
  timer.it_value.tv_usec = 2000000;
  EXPECT_ERRNO(setitimer(ITIMER_REAL, &timer, nullptr), EINVAL);
  EXPECT_ERRNO(getitimer(static_cast<__itimer_which>(9), &left), EINVAL);
  EXPECT_EQ(alarm(100), 0u);
  unsigned rest = alarm(0);
  EXPECT_TRUE(rest == 100 || rest == 99);
}

GUEST_TEST(PosixTimer, SignalsWithItsValue) {
  Handle(SIGRTMIN);
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN;
  event.sigev_value.sival_int = 4242;
  timer_t timer;
  ASSERT_OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
  itimerspec spec = {{0, 10000000}, {0, 10000000}};
  ASSERT_OK(timer_settime(timer, 0, &spec, nullptr));
  while (g_hits < 3) pause();
  EXPECT_EQ(g_value, 4242);
  itimerspec now;
  EXPECT_OK(timer_gettime(timer, &now));
  EXPECT_EQ(now.it_interval.tv_nsec, 10000000);
  EXPECT_OK(timer_delete(timer));
  EXPECT_ERRNO(syscall(SYS_timer_delete, 999), EINVAL);
  EXPECT_ERRNO(syscall(SYS_timer_gettime, 999, &now), EINVAL);
  EXPECT_ERRNO(syscall(SYS_timer_create, 99, &event, &timer), EINVAL);
}

GUEST_TEST(PosixTimer, OverrunsAreCounted) {
  Handle(SIGUSR1);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  timer_t timer;
  ASSERT_OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
  itimerspec spec = {{0, 5000000}, {0, 5000000}};
  ASSERT_OK(timer_settime(timer, 0, &spec, nullptr));
  guest::SleepMs(60);
  siginfo_t info;
  EXPECT_EQ(sigwaitinfo(&set, &info), SIGUSR1);
  EXPECT_EQ(info.si_code, SI_TIMER);
  EXPECT_GE(info.si_overrun, 5);
  EXPECT_GE(timer_getoverrun(timer), 5);
  timer_delete(timer);
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

GUEST_TEST(Timerfd, CountsExpirations) {
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  ASSERT_OK(fd);
  uint64_t count = 0;
  EXPECT_ERRNO(read(fd, &count, 8), EAGAIN);
  itimerspec spec = {{0, 10000000}, {0, 10000000}};
  ASSERT_OK(timerfd_settime(fd, 0, &spec, nullptr));
  pollfd p = {fd, POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 2000), 1);
  guest::SleepMs(35);
  EXPECT_EQ(read(fd, &count, 8), 8);
  EXPECT_GE(count, 3u);
  EXPECT_ERRNO(read(fd, &count, 4), EINVAL);
  itimerspec now;
  EXPECT_OK(timerfd_gettime(fd, &now));
  EXPECT_EQ(now.it_interval.tv_nsec, 10000000);
  spec = {};
  EXPECT_OK(timerfd_settime(fd, 0, &spec, &now));
  EXPECT_ERRNO(timerfd_settime(fd, 99, &spec, nullptr), EINVAL);
  EXPECT_ERRNO(timerfd_create(99, 0), EINVAL);
  EXPECT_ERRNO(timerfd_create(CLOCK_REALTIME, 77), EINVAL);
  EXPECT_ERRNO(timerfd_gettime(0, &now), EINVAL);
  close(fd);
  fd = timerfd_create(CLOCK_REALTIME, 0);
  timespec when;
  clock_gettime(CLOCK_REALTIME, &when);
  spec = {{0, 0}, {when.tv_sec, when.tv_nsec}};
  EXPECT_OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, nullptr));
  EXPECT_EQ(read(fd, &count, 8), 8);
  EXPECT_EQ(count, 1u);
  close(fd);
}
