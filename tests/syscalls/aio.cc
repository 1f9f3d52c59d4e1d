// Asynchronous I/O: io_setup(2), io_submit(2), io_getevents(2), io_destroy(2), io_cancel(2), io_pgetevents(2).
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>

#include "tests/syscalls/guest_test.h"

namespace {

long Setup(unsigned count, aio_context_t* context) { return syscall(SYS_io_setup, count, context); }
long Destroy(aio_context_t context) { return syscall(SYS_io_destroy, context); }
long Submit(aio_context_t context, long count, iocb** requests) { return syscall(SYS_io_submit, context, count, requests); }
long Events(aio_context_t context, long least, long most, io_event* events, const timespec* timeout) {
  return syscall(SYS_io_getevents, context, least, most, events, timeout);
}
iocb Request(int opcode, int fd, const void* buffer, size_t length, int64_t offset) {
  iocb request = {};
  request.aio_data = 0x1234;
  request.aio_lio_opcode = static_cast<uint16_t>(opcode);
  request.aio_fildes = static_cast<uint32_t>(fd);
  request.aio_buf = reinterpret_cast<uint64_t>(buffer);
  request.aio_nbytes = length;
  request.aio_offset = offset;
  return request;
}
void OnAlarm(int) {}

}  // namespace

GUEST_TEST(Aio, ContextsComeAndGo) {
  aio_context_t context = 0;
  EXPECT_ERRNO(Setup(0, &context), EINVAL);
  EXPECT_ERRNO(Setup(1, static_cast<aio_context_t*>(guest::UnmappedAddress())), EFAULT);
  ASSERT_OK(Setup(8, &context));
  EXPECT_NE(context, 0);
  aio_context_t again = context;
  EXPECT_ERRNO(Setup(8, &again), EINVAL);
  EXPECT_ERRNO(Destroy(context + 4096), EINVAL);
  EXPECT_OK(Destroy(context));
  EXPECT_ERRNO(Destroy(context), EINVAL);
}

GUEST_TEST(Aio, ReadsAndWrites) {
  aio_context_t context = 0;
  ASSERT_OK(Setup(8, &context));
  const std::string path = guest::ScratchDir() + "/file";
  int fd = open(path.c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_OK(fd);
  int told = eventfd(0, 0);
  char text[16] = {};
  iovec iov[2] = {{text, 3}, {text + 8, 3}};
  iocb write_one = Request(IOCB_CMD_PWRITE, fd, "hello world", 11, 4);
  iocb sync = Request(IOCB_CMD_FSYNC, fd, nullptr, 0, 0);
  iocb read_two = Request(IOCB_CMD_PREADV, fd, iov, 2, 4);
  read_two.aio_flags = IOCB_FLAG_RESFD;
  read_two.aio_resfd = static_cast<uint32_t>(told);
  iocb* requests[] = {&write_one, &sync, &read_two};
  EXPECT_EQ(Submit(context, 3, requests), 3);
  io_event events[8] = {};
  EXPECT_EQ(Events(context, 3, 8, events, nullptr), 3);
  long results[3] = {-1, -1, -1};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(events[i].data, 0x1234);
    for (int j = 0; j < 3; ++j) {
      if (events[i].obj == reinterpret_cast<uint64_t>(requests[j])) results[j] = events[i].res;
    }
  }
  EXPECT_EQ(results[0], 11);
  EXPECT_EQ(results[1], 0);
  EXPECT_GE(results[2], 0);
  uint64_t count = 0;
  EXPECT_EQ(read(told, &count, 8), 8);
  EXPECT_EQ(count, 1);
  iocb read_one = Request(IOCB_CMD_PREAD, fd, text, 5, 4);
  iocb* one = &read_one;
  EXPECT_EQ(Submit(context, 1, &one), 1);
  EXPECT_EQ(Events(context, 1, 1, events, nullptr), 1);
  EXPECT_EQ(events[0].res, 5);
  EXPECT_EQ(memcmp(text, "hello", 5), 0);
  read_one = Request(IOCB_CMD_PREAD, fd, guest::UnmappedAddress(), 5, 0);
  EXPECT_EQ(Submit(context, 1, &one), 1);
  EXPECT_EQ(Events(context, 1, 1, events, nullptr), 1);
  EXPECT_EQ(events[0].res, -EFAULT);
  EXPECT_OK(Destroy(context));
  close(fd);
  close(told);
}

GUEST_TEST(Aio, WhatIsRefused) {
  aio_context_t context = 0;
  ASSERT_OK(Setup(4, &context));
  const std::string path = guest::ScratchDir() + "/file";
  int fd = open(path.c_str(), O_RDONLY | O_CREAT, 0600);
  char text[16];
  iocb request = Request(IOCB_CMD_PREAD, fd, text, 5, 0);
  iocb* one = &request;
  EXPECT_ERRNO(Submit(context + 4096, 1, &one), EINVAL);
  EXPECT_ERRNO(Submit(context, -1, &one), EINVAL);
  EXPECT_EQ(Submit(context, 0, &one), 0);
  EXPECT_ERRNO(Submit(context, 1, static_cast<iocb**>(guest::UnmappedAddress())), EFAULT);
  iocb* nowhere = static_cast<iocb*>(guest::UnmappedAddress());
  EXPECT_ERRNO(Submit(context, 1, &nowhere), EFAULT);
  request = Request(99, fd, text, 5, 0);
  EXPECT_ERRNO(Submit(context, 1, &one), EINVAL);
  request = Request(IOCB_CMD_PREAD, 999, text, 5, 0);
  EXPECT_ERRNO(Submit(context, 1, &one), EBADF);
  request = Request(IOCB_CMD_PWRITE, fd, text, 5, 0);
  EXPECT_ERRNO(Submit(context, 1, &one), EBADF);
  request = Request(IOCB_CMD_PREAD, fd, text, 5, -1);
  EXPECT_ERRNO(Submit(context, 1, &one), EINVAL);
  request = Request(IOCB_CMD_PREAD, fd, text, 5, 0);
  request.aio_flags = IOCB_FLAG_RESFD;
  request.aio_resfd = static_cast<uint32_t>(fd);
  EXPECT_ERRNO(Submit(context, 1, &one), EINVAL);
  io_event event;
  EXPECT_ERRNO(Events(context, -1, 1, &event, nullptr), EINVAL);
  EXPECT_ERRNO(Events(context, 2, 1, &event, nullptr), EINVAL);
  EXPECT_ERRNO(Events(context + 4096, 0, 1, &event, nullptr), EINVAL);
  EXPECT_ERRNO(Events(context, 1, 1, &event, static_cast<timespec*>(guest::UnmappedAddress())), EFAULT);
  timespec soon = {0, 20'000'000};
  EXPECT_EQ(Events(context, 1, 1, &event, &soon), 0);
  struct sigaction action = {};
  action.sa_handler = OnAlarm;
  sigaction(SIGALRM, &action, nullptr);
  itimerval timer = {{0, 0}, {0, 20'000}};
  setitimer(ITIMER_REAL, &timer, nullptr);
  EXPECT_ERRNO(Events(context, 1, 1, &event, nullptr), EINTR);
  setitimer(ITIMER_REAL, &timer, nullptr);
  EXPECT_ERRNO(syscall(SYS_io_pgetevents, context, 1, 1, &event, nullptr, nullptr), EINTR);
  EXPECT_ERRNO(syscall(SYS_io_cancel, context, guest::UnmappedAddress(), &event), EFAULT);
  EXPECT_ERRNO(syscall(SYS_io_cancel, context, &request, &event), EINVAL);
  EXPECT_OK(Destroy(context));
  close(fd);
}
