# python3: handlers, timers, masks, fatal signals of children.
# workload: timeout=120
import ctypes
import os
import signal
import time


def say(name):
    print("###", name, flush=True)


def signals():
    say("signals")
    got = []
    for s in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 3):
        signal.signal(s, lambda n, _: got.append(int(n)))
        os.kill(os.getpid(), s)
    print(got)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    ticks = []
    signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
    while len(ticks) < 5:
        signal.pause()
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("ticks")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)
    print(signal.sigpending(), signal.sigwait([signal.SIGTERM]))
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.pause()
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    pid = os.fork()
    if pid == 0:
        ctypes.string_at(1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    start = time.monotonic()
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    time.sleep(0.2)
    print(time.monotonic() - start >= 0.2)


if __name__ == "__main__":
    signals()
