#include "sentry/vfs/locks.h"

#include <gtest/gtest.h>

namespace caisson {
namespace {

const int kA = 0, kB = 0;  // Owners.

FileLock Lock(short type, int64_t start, int64_t end, const void* owner, LockKind kind = LockKind::kPosix) {
  return {.kind = kind, .type = type, .start = start, .end = end, .owner = owner};
}

TEST(FileLocks, SplitsAndMerges) {
  auto locks = MakeRef<FileLocks>();
  EXPECT_TRUE(locks->Set(Lock(F_WRLCK, 0, 99, &kA)).ok());
  EXPECT_TRUE(locks->Set(Lock(F_UNLCK, 40, 59, &kA)).ok());
  ASSERT_EQ(locks->All().size(), 2u);
  EXPECT_EQ(locks->All()[0].end, 39);
  EXPECT_EQ(locks->All()[1].start, 60);
  EXPECT_TRUE(locks->Set(Lock(F_WRLCK, 50, 54, &kB)).ok());
  EXPECT_EQ(locks->Set(Lock(F_WRLCK, 40, 59, &kA)).error_code(), EAGAIN);
  EXPECT_TRUE(locks->Set(Lock(F_UNLCK, 0, kLockEof, &kB)).ok());
  EXPECT_TRUE(locks->Set(Lock(F_WRLCK, 40, 59, &kA)).ok());
  ASSERT_EQ(locks->All().size(), 1u);
  EXPECT_EQ(locks->All()[0].end, 99);
  // Downgrading the middle leaves three.
  EXPECT_TRUE(locks->Set(Lock(F_RDLCK, 10, 19, &kA)).ok());
  EXPECT_EQ(locks->All().size(), 3u);
  EXPECT_TRUE(locks->Set(Lock(F_RDLCK, 10, 19, &kB)).ok());
  EXPECT_EQ(locks->FindConflict(Lock(F_WRLCK, 0, kLockEof, &kB))->start, 0);
}

TEST(FileLocks, KindsThatMeet) {
  auto locks = MakeRef<FileLocks>();
  EXPECT_TRUE(locks->Set(Lock(F_WRLCK, 0, kLockEof, &kA, LockKind::kOfd)).ok());
  EXPECT_EQ(locks->Set(Lock(F_RDLCK, 0, 0, &kA, LockKind::kPosix)).error_code(), EAGAIN);
  EXPECT_TRUE(locks->Set(Lock(F_WRLCK, 0, kLockEof, &kB, LockKind::kFlock)).ok());
  EXPECT_EQ(locks->Set(Lock(F_RDLCK, 0, kLockEof, &kA, LockKind::kFlock)).error_code(), EAGAIN);
  locks->ReleaseAll(LockKind::kFlock, &kB);
  EXPECT_TRUE(locks->Set(Lock(F_RDLCK, 0, kLockEof, &kA, LockKind::kFlock)).ok());
}

TEST(PosixLockWait, FindsCycles) {
  const int c = 0;
  EXPECT_TRUE(PosixLockWait::Begin(&kA, &kB).ok());
  EXPECT_TRUE(PosixLockWait::Begin(&kB, &c).ok());
  EXPECT_EQ(PosixLockWait::Begin(&c, &kA).error_code(), EDEADLK);
  PosixLockWait::End(&kA, &kB);
  EXPECT_TRUE(PosixLockWait::Begin(&c, &kA).ok());
  PosixLockWait::End(&c, &kA);
  PosixLockWait::End(&kB, &c);
}

}  // namespace
}  // namespace caisson
