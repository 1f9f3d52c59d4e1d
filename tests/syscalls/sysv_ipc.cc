// System V IPC: shared memory, semaphores, message queues; their /proc files and namespaces.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "tests/syscalls/guest_test.h"

namespace {

struct Message {
  long type;
  char text[64];
};

void OnAlarm(int) {}
void CatchAlarm(int flags) {
  struct sigaction action = {};
  action.sa_handler = OnAlarm;
  action.sa_flags = flags;
  sigaction(SIGALRM, &action, nullptr);
}
void AlarmIn(int ms) {
  itimerval timer = {{0, 0}, {0, ms * 1000}};
  setitimer(ITIMER_REAL, &timer, nullptr);
}

void AsUser() {
  EXPECT_OK(setresgid(1000, 1000, 1000));
  EXPECT_OK(setresuid(1000, 1000, 1000));
}

}  // namespace

GUEST_TEST(Shm, GetAttachAndShare) {
  int id = shmget(IPC_PRIVATE, 5000, IPC_CREAT | 0600);
  ASSERT_OK(id);
  char* a = static_cast<char*>(shmat(id, nullptr, 0));
  ASSERT_OK(a);
  char* b = static_cast<char*>(shmat(id, nullptr, SHM_RDONLY));
  ASSERT_OK(b);
  EXPECT_EQ(a[4999], 0);
  strcpy(a, "shared");
  EXPECT_EQ(std::string(b), "shared");
  shmid_ds ds;
  ASSERT_OK(shmctl(id, IPC_STAT, &ds));
  EXPECT_EQ(ds.shm_segsz, 5000);
  EXPECT_EQ(ds.shm_nattch, 2);
  EXPECT_EQ(ds.shm_cpid, getpid());
  EXPECT_EQ(ds.shm_lpid, getpid());
  EXPECT_EQ(ds.shm_perm.mode, 0600);
  EXPECT_NE(ds.shm_atime, 0);
  EXPECT_CHILD_OK([&] {
    shmid_ds in_child;
    EXPECT_OK(shmctl(id, IPC_STAT, &in_child));
    EXPECT_EQ(in_child.shm_nattch, 4);
    strcpy(a, "from child");
    EXPECT_OK(shmdt(a));
    EXPECT_OK(shmctl(id, IPC_STAT, &in_child));
    EXPECT_EQ(in_child.shm_nattch, 3);
    EXPECT_ERRNO(shmdt(a), EINVAL);
  });
  EXPECT_EQ(std::string(b), "from child");
  // Removed, it lives until the last one lets go, without a key.
  ASSERT_OK(shmctl(id, IPC_RMID, nullptr));
  ASSERT_OK(shmctl(id, IPC_STAT, &ds));
  EXPECT_EQ(ds.shm_perm.mode, 01600);
  EXPECT_OK(shmdt(a));
  EXPECT_EQ(std::string(b), "from child");
  EXPECT_OK(shmdt(b));
  EXPECT_ERRNO(shmctl(id, IPC_STAT, &ds), EINVAL);
  EXPECT_ERRNO(shmat(id, nullptr, 0), EINVAL);
  int status = guest::RunInChild([&] { *static_cast<volatile char*>(b) = 1; });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

GUEST_TEST(Shm, KeysAndErrors) {
  const key_t key = 0x43a10001;
  EXPECT_ERRNO(shmget(key, 4096, 0600), ENOENT);
  int id = shmget(key, 4096, IPC_CREAT | 0640);
  ASSERT_OK(id);
  EXPECT_EQ(shmget(key, 4096, 0), id);
  EXPECT_EQ(shmget(key, 0, 0), id);
  EXPECT_EQ(shmget(key, 100, IPC_CREAT), id);
  EXPECT_ERRNO(shmget(key, 4097, 0), EINVAL);
  EXPECT_ERRNO(shmget(key, 4096, IPC_CREAT | IPC_EXCL), EEXIST);
  EXPECT_ERRNO(shmget(IPC_PRIVATE, 0, IPC_CREAT | 0600), EINVAL);
  EXPECT_ERRNO(shmat(id, reinterpret_cast<void*>(0x1001), 0), EINVAL);
  EXPECT_ERRNO(shmat(-1, nullptr, 0), EINVAL);
  EXPECT_ERRNO(shmat(id, nullptr, SHM_REMAP), EINVAL);
  EXPECT_ERRNO(shmdt(reinterpret_cast<void*>(0x1001)), EINVAL);
  EXPECT_ERRNO(shmdt(nullptr), EINVAL);
  EXPECT_ERRNO(shmctl(id, IPC_STAT, static_cast<shmid_ds*>(guest::UnmappedAddress())), EFAULT);
  EXPECT_ERRNO(shmctl(id, IPC_SET, static_cast<shmid_ds*>(guest::UnmappedAddress())), EFAULT);
  EXPECT_ERRNO(shmctl(id, 77, nullptr), EINVAL);
  EXPECT_ERRNO(shmctl(-1, IPC_STAT, nullptr), EINVAL);
  EXPECT_CHILD_OK([&] {
    AsUser();
    EXPECT_ERRNO(shmget(key, 4096, 0600), EACCES);
    EXPECT_ERRNO(shmat(id, nullptr, 0), EACCES);
    shmid_ds ds;
    EXPECT_ERRNO(shmctl(id, IPC_STAT, &ds), EACCES);
    EXPECT_ERRNO(shmctl(id, IPC_RMID, nullptr), EPERM);
    EXPECT_ERRNO(shmctl(id, SHM_LOCK, nullptr), EPERM);
  });
  shmid_ds ds;
  ASSERT_OK(shmctl(id, IPC_STAT, &ds));
  ds.shm_perm.mode = 0604;
  ds.shm_perm.uid = 1000;
  EXPECT_OK(shmctl(id, IPC_SET, &ds));
  EXPECT_CHILD_OK([&] {
    AsUser();
    char* at = static_cast<char*>(shmat(id, nullptr, 0));
    EXPECT_OK(at);
    at[0] = 1;
    EXPECT_OK(shmctl(id, IPC_RMID, nullptr));
  });
  EXPECT_ERRNO(shmget(key, 0, 0), ENOENT);
}

GUEST_TEST(Shm, AtAnAddress) {
  int id = shmget(IPC_PRIVATE, 3 * 4096, 0600);
  ASSERT_OK(id);
  char* place = static_cast<char*>(mmap(nullptr, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  EXPECT_ERRNO(shmat(id, place, 0), EINVAL);  // Something is there.
  EXPECT_EQ(shmat(id, place, SHM_REMAP), place);
  munmap(place, 8 * 4096);
  EXPECT_EQ(shmat(id, place + 100, SHM_RND), place);
  // A hole does not keep the rest from being detached.
  EXPECT_OK(munmap(place + 4096, 4096));
  shmid_ds ds;
  EXPECT_OK(shmdt(place));
  EXPECT_OK(shmctl(id, IPC_STAT, &ds));
  EXPECT_EQ(ds.shm_nattch, 0);
  EXPECT_EQ(mincore(place + 8192, 4096, reinterpret_cast<unsigned char*>(&ds)), -1);
  EXPECT_OK(shmctl(id, IPC_RMID, nullptr));
}

GUEST_TEST(Shm, ListsAndInformation) {
  int id = shmget(0x43a10002, 8192, IPC_CREAT | 0666);
  ASSERT_OK(id);
  shm_info info = {};
  int highest = shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info));
  EXPECT_GE(highest, 0);
  EXPECT_GE(info.used_ids, 1);
  EXPECT_GE(info.shm_tot, 2);
  shminfo limits = {};
  EXPECT_OK(shmctl(0, IPC_INFO, reinterpret_cast<shmid_ds*>(&limits)));
  EXPECT_EQ(limits.shmmni, 4096);
  EXPECT_EQ(limits.shmmin, 1);
  bool found = false;
  for (int i = 0; i <= highest; ++i) {
    shmid_ds ds;
    found |= shmctl(i, SHM_STAT, &ds) == id;
  }
  EXPECT_TRUE(found);
  const std::string text = guest::ReadFile("/proc/sysvipc/shm");
  EXPECT_TRUE(text.find("       key      shmid perms") == 0);
  EXPECT_TRUE(text.find(std::to_string(0x43a10002)) != std::string::npos);
  EXPECT_OK(shmctl(id, SHM_LOCK, nullptr));
  shmid_ds ds;
  EXPECT_OK(shmctl(id, IPC_STAT, &ds));
  EXPECT_EQ(ds.shm_perm.mode, 02666);
  EXPECT_OK(shmctl(id, SHM_UNLOCK, nullptr));
  EXPECT_OK(shmctl(id, IPC_RMID, nullptr));
}

GUEST_TEST(Sem, OperationsAreAtomic) {
  int id = semget(IPC_PRIVATE, 3, 0600);
  ASSERT_OK(id);
  EXPECT_OK(semctl(id, 0, SETVAL, 5));
  EXPECT_EQ(semctl(id, 0, GETVAL), 5);
  EXPECT_EQ(semctl(id, 0, GETPID), getpid());
  sembuf two[2] = {{0, -5, 0}, {1, -1, IPC_NOWAIT}};
  EXPECT_ERRNO(semop(id, two, 2), EAGAIN);
  EXPECT_EQ(semctl(id, 0, GETVAL), 5);
  two[1] = {1, 3, 0};
  EXPECT_OK(semop(id, two, 2));
  unsigned short values[3] = {9, 9, 9};
  EXPECT_OK(semctl(id, 0, GETALL, values));
  EXPECT_EQ(values[0], 0);
  EXPECT_EQ(values[1], 3);
  EXPECT_EQ(values[2], 0);
  values[2] = 7;
  EXPECT_OK(semctl(id, 0, SETALL, values));
  EXPECT_EQ(semctl(id, 2, GETVAL), 7);
  values[0] = 40000;
  EXPECT_ERRNO(semctl(id, 0, SETALL, values), ERANGE);
  EXPECT_ERRNO(semctl(id, 0, SETVAL, 40000), ERANGE);
  EXPECT_ERRNO(semctl(id, 0, SETVAL, -1), ERANGE);
  EXPECT_ERRNO(semctl(id, 3, GETVAL), EINVAL);
  sembuf over = {2, 32767, 0};
  EXPECT_ERRNO(semop(id, &over, 1), ERANGE);
  sembuf beyond = {3, 1, 0};
  EXPECT_ERRNO(semop(id, &beyond, 1), EFBIG);
  EXPECT_ERRNO(semop(id, &over, 0), EINVAL);
  static sembuf many[501];
  EXPECT_ERRNO(semop(id, many, 501), E2BIG);
  EXPECT_ERRNO(semop(id, static_cast<sembuf*>(guest::UnmappedAddress()), 1), EFAULT);
  EXPECT_ERRNO(semop(-1, &over, 1), EINVAL);
  EXPECT_ERRNO(semctl(id, 0, GETALL, guest::UnmappedAddress()), EFAULT);
  EXPECT_ERRNO(semctl(id, 0, 99), EINVAL);
  semid_ds ds;
  EXPECT_OK(semctl(id, 0, IPC_STAT, &ds));
  EXPECT_EQ(ds.sem_nsems, 3);
  EXPECT_NE(ds.sem_otime, 0);
  EXPECT_OK(semctl(id, 0, IPC_RMID));
  EXPECT_ERRNO(semctl(id, 0, GETVAL), EINVAL);
}

GUEST_TEST(Sem, KeysAndErrors) {
  const key_t key = 0x43a10003;
  EXPECT_ERRNO(semget(key, 1, 0), ENOENT);
  EXPECT_ERRNO(semget(key, 0, IPC_CREAT | 0600), EINVAL);
  EXPECT_ERRNO(semget(key, -1, IPC_CREAT | 0600), EINVAL);
  EXPECT_ERRNO(semget(key, 32001, IPC_CREAT | 0600), EINVAL);
  int id = semget(key, 2, IPC_CREAT | 0600);
  ASSERT_OK(id);
  EXPECT_EQ(semget(key, 0, 0), id);
  EXPECT_ERRNO(semget(key, 3, 0), EINVAL);
  EXPECT_ERRNO(semget(key, 2, IPC_CREAT | IPC_EXCL), EEXIST);
  EXPECT_CHILD_OK([&] {
    AsUser();
    EXPECT_ERRNO(semget(key, 2, 0600), EACCES);
    sembuf up = {0, 1, 0};
    EXPECT_ERRNO(semop(id, &up, 1), EACCES);
    EXPECT_ERRNO(semctl(id, 0, GETVAL), EACCES);
    EXPECT_ERRNO(semctl(id, 0, SETVAL, 1), EACCES);
    EXPECT_ERRNO(semctl(id, 0, IPC_RMID), EPERM);
  });
  seminfo info = {};
  EXPECT_GE(semctl(0, 0, IPC_INFO, &info), 0);
  EXPECT_EQ(info.semvmx, 32767);
  EXPECT_EQ(info.semopm, 500);
  int highest = semctl(0, 0, SEM_INFO, &info);
  EXPECT_GE(info.semusz, 1);
  EXPECT_GE(info.semaem, 2);
  bool found = false;
  for (int i = 0; i <= highest; ++i) {
    semid_ds ds;
    found |= semctl(i, 0, SEM_STAT, &ds) == id;
  }
  EXPECT_TRUE(found);
  EXPECT_TRUE(guest::ReadFile("/proc/sysvipc/sem").find(std::to_string(key)) != std::string::npos);
  EXPECT_OK(semctl(id, 0, IPC_RMID));
}

GUEST_TEST(Sem, WaitsAndWakes) {
  int id = semget(IPC_PRIVATE, 2, 0600);
  ASSERT_OK(id);
  // Down, zero, both at once.
  pid_t child = fork();
  if (child == 0) {
    sembuf ops[2] = {{0, -2, 0}, {1, 0, 0}};
    _exit(semop(id, ops, 2) == 0 ? 0 : 1);
  }
  while (semctl(id, 0, GETNCNT) != 1) guest::SleepMs(1);
  EXPECT_OK(semctl(id, 1, SETVAL, 1));
  sembuf up = {0, 1, 0};
  EXPECT_OK(semop(id, &up, 1));
  EXPECT_EQ(semctl(id, 0, GETNCNT), 1);
  EXPECT_OK(semop(id, &up, 1));
  while (semctl(id, 1, GETZCNT) != 1) guest::SleepMs(1);
  EXPECT_EQ(semctl(id, 0, GETVAL), 2);
  // Zero for a moment only, within one call's end: the waiter gets it all the same.
  sembuf down = {1, -1, 0};
  EXPECT_OK(semop(id, &down, 1));
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(semctl(id, 0, GETVAL), 0);
  // Removal wakes.
  child = fork();
  if (child == 0) {
    sembuf op = {0, -1, 0};
    _exit(semop(id, &op, 1) == -1 && errno == EIDRM ? 0 : 1);
  }
  while (semctl(id, 0, GETNCNT) != 1) guest::SleepMs(1);
  EXPECT_OK(semctl(id, 0, IPC_RMID));
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

GUEST_TEST(Sem, TimeAndSignals) {
  int id = semget(IPC_PRIVATE, 1, 0600);
  ASSERT_OK(id);
  sembuf down = {0, -1, 0};
  timespec t = {0, 30'000'000};
  int64_t before = guest::NowMs();
  EXPECT_ERRNO(syscall(SYS_semtimedop, id, &down, 1, &t), EAGAIN);
  EXPECT_GE(guest::NowMs() - before, 29);
  t = {0, 2'000'000'000};
  EXPECT_ERRNO(syscall(SYS_semtimedop, id, &down, 1, &t), EINVAL);
  t = {-1, 0};
  EXPECT_ERRNO(syscall(SYS_semtimedop, id, &down, 1, &t), EINVAL);
  EXPECT_ERRNO(syscall(SYS_semtimedop, id, &down, 1, guest::UnmappedAddress()), EFAULT);
  CatchAlarm(SA_RESTART);  // Never restarted.
  AlarmIn(20);
  EXPECT_ERRNO(semop(id, &down, 1), EINTR);
  EXPECT_EQ(semctl(id, 0, GETNCNT), 0);
  EXPECT_OK(semctl(id, 0, IPC_RMID));
}

GUEST_TEST(Sem, UndoAtExit) {
  int id = semget(IPC_PRIVATE, 2, 0600);
  ASSERT_OK(id);
  EXPECT_OK(semctl(id, 0, SETVAL, 10));
  EXPECT_CHILD_OK([&] {
    sembuf ops[2] = {{0, -3, SEM_UNDO}, {1, 4, SEM_UNDO}};
    EXPECT_OK(semop(id, ops, 2));
    ops[0] = {0, -1, SEM_UNDO};
    EXPECT_OK(semop(id, ops, 1));
    EXPECT_EQ(semctl(id, 0, GETVAL), 6);
    EXPECT_EQ(semctl(id, 1, GETVAL), 4);
    // A child of it has none of this.
    EXPECT_CHILD_OK([&] { EXPECT_EQ(semctl(id, 0, GETVAL), 6); });
    EXPECT_EQ(semctl(id, 0, GETVAL), 6);
  });
  EXPECT_EQ(semctl(id, 0, GETVAL), 10);
  EXPECT_EQ(semctl(id, 1, GETVAL), 0);
  // SETVAL takes the adjustment back.
  EXPECT_CHILD_OK([&] {
    sembuf op = {0, -3, SEM_UNDO};
    EXPECT_OK(semop(id, &op, 1));
    EXPECT_OK(semctl(id, 0, SETVAL, 1));
  });
  EXPECT_EQ(semctl(id, 0, GETVAL), 1);
  // Threads share it: the end of one gives nothing back, the end of all does.
  EXPECT_CHILD_OK([&] {
    pthread_t thread;
    static int shared_id;
    shared_id = id;
    pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
          sembuf op = {0, 5, SEM_UNDO};
          EXPECT_OK(semop(shared_id, &op, 1));
          return nullptr;
        },
        nullptr);
    pthread_join(thread, nullptr);
    guest::SleepMs(5);
    EXPECT_EQ(semctl(id, 0, GETVAL), 6);
  });
  EXPECT_EQ(semctl(id, 0, GETVAL), 1);
  EXPECT_OK(semctl(id, 0, IPC_RMID));
}

GUEST_TEST(Msg, SendAndReceiveByType) {
  int id = msgget(IPC_PRIVATE, 0600);
  ASSERT_OK(id);
  for (long type : {3, 1, 2, 3}) {
    Message m = {type, {}};
    snprintf(m.text, sizeof m.text, "type %ld", type);
    EXPECT_OK(msgsnd(id, &m, 7, 0));
  }
  msqid_ds ds;
  EXPECT_OK(msgctl(id, IPC_STAT, &ds));
  EXPECT_EQ(ds.msg_qnum, 4);
  EXPECT_EQ(ds.__msg_cbytes, 28);
  EXPECT_EQ(ds.msg_qbytes, 16384);
  EXPECT_EQ(ds.msg_lspid, getpid());
  Message got = {};
  EXPECT_EQ(msgrcv(id, &got, sizeof got.text, 2, 0), 7);
  EXPECT_EQ(got.type, 2);
  EXPECT_EQ(msgrcv(id, &got, sizeof got.text, 3, MSG_EXCEPT), 7);
  EXPECT_EQ(got.type, 1);
  EXPECT_ERRNO(msgrcv(id, &got, sizeof got.text, -2, IPC_NOWAIT), ENOMSG);
  EXPECT_EQ(msgrcv(id, &got, sizeof got.text, -5, 0), 7);
  EXPECT_EQ(got.type, 3);
  EXPECT_ERRNO(msgrcv(id, &got, 3, 0, 0), E2BIG);
  EXPECT_EQ(msgrcv(id, &got, 3, 0, MSG_NOERROR), 3);
  EXPECT_ERRNO(msgrcv(id, &got, 3, 0, IPC_NOWAIT), ENOMSG);
  EXPECT_OK(msgctl(id, IPC_RMID, nullptr));
}

GUEST_TEST(Msg, Errors) {
  const key_t key = 0x43a10004;
  EXPECT_ERRNO(msgget(key, 0), ENOENT);
  int id = msgget(key, IPC_CREAT | 0600);
  ASSERT_OK(id);
  EXPECT_EQ(msgget(key, 0), id);
  EXPECT_ERRNO(msgget(key, IPC_CREAT | IPC_EXCL), EEXIST);
  Message m = {0, {}};
  EXPECT_ERRNO(msgsnd(id, &m, 1, 0), EINVAL);
  m.type = 1;
  EXPECT_ERRNO(msgsnd(id, &m, 8193, 0), EINVAL);
  EXPECT_ERRNO(msgsnd(-1, &m, 1, 0), EINVAL);
  EXPECT_ERRNO(msgsnd(id, guest::UnmappedAddress(), 1, 0), EFAULT);
  EXPECT_ERRNO(msgrcv(id, &m, -1, 0, IPC_NOWAIT), EINVAL);
  EXPECT_OK(msgsnd(id, &m, 0, 0));
  EXPECT_ERRNO(msgrcv(id, guest::UnmappedAddress(), 8, 0, 0), EFAULT);
  EXPECT_ERRNO(msgctl(id, IPC_STAT, static_cast<msqid_ds*>(guest::UnmappedAddress())), EFAULT);
  EXPECT_ERRNO(msgctl(id, 99, nullptr), EINVAL);
  EXPECT_CHILD_OK([&] {
    AsUser();
    EXPECT_ERRNO(msgget(key, 0600), EACCES);
    EXPECT_ERRNO(msgsnd(id, &m, 1, 0), EACCES);
    EXPECT_ERRNO(msgrcv(id, &m, 1, 0, IPC_NOWAIT), EACCES);
    EXPECT_ERRNO(msgctl(id, IPC_RMID, nullptr), EPERM);
  });
  msginfo info = {};
  EXPECT_GE(msgctl(0, IPC_INFO, reinterpret_cast<msqid_ds*>(&info)), 0);
  EXPECT_EQ(info.msgmax, 8192);
  EXPECT_TRUE(guest::ReadFile("/proc/sysvipc/msg").find(std::to_string(key)) != std::string::npos);
  EXPECT_OK(msgctl(id, IPC_RMID, nullptr));
}

GUEST_TEST(Msg, FullQueueAndRemovalAndSignals) {
  int id = msgget(IPC_PRIVATE, 0600);
  ASSERT_OK(id);
  static struct {
    long type;
    char text[8192];
  } big = {1, {}};
  EXPECT_OK(msgsnd(id, &big, 8192, 0));
  EXPECT_OK(msgsnd(id, &big, 8192, 0));
  EXPECT_ERRNO(msgsnd(id, &big, 1, IPC_NOWAIT), EAGAIN);
  CatchAlarm(0);
  AlarmIn(20);
  EXPECT_ERRNO(msgsnd(id, &big, 1, 0), EINTR);
  pid_t child = fork();
  if (child == 0) {
    bool sent = msgsnd(id, &big, 10, 0) == 0;
    Message m;
    bool removed = msgrcv(id, &m, sizeof m.text, 55, 0) == -1 && errno == EIDRM;
    _exit(sent && removed ? 0 : 1);
  }
  guest::SleepMs(20);
  EXPECT_EQ(msgrcv(id, &big, 8192, 0, 0), 8192);
  msqid_ds ds;
  do {
    guest::SleepMs(1);
    EXPECT_OK(msgctl(id, IPC_STAT, &ds));
  } while (ds.msg_qnum != 2);
  guest::SleepMs(20);
  EXPECT_OK(msgctl(id, IPC_RMID, nullptr));
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

GUEST_TEST(IpcNamespace, HasItsOwnObjects) {
  int id = shmget(0x43a10005, 4096, IPC_CREAT | 0600);
  ASSERT_OK(id);
  EXPECT_CHILD_OK([&] {
    EXPECT_OK(unshare(CLONE_NEWIPC));
    EXPECT_ERRNO(shmget(0x43a10005, 4096, 0), ENOENT);
    EXPECT_ERRNO(shmat(id, nullptr, 0), EINVAL);
    int own = shmget(0x43a10005, 4096, IPC_CREAT | 0600);
    EXPECT_OK(own);
    char* at = static_cast<char*>(shmat(own, nullptr, 0));
    EXPECT_OK(at);
    at[0] = 1;  // Lives on with the mapping, removed or not.
  });
  EXPECT_OK(shmctl(id, IPC_RMID, nullptr));
}
