# python3: files, locks, links, and the modules that load much.
# workload: timeout=120
import fcntl
import glob
import hashlib
import json
import os
import random
import shutil
import stat
import sys
import tempfile


def say(name):
    print("###", name, flush=True)


def files():
    say("files")
    with tempfile.TemporaryDirectory() as d:
        for i in range(200):
            with open(f"{d}/{i}", "w") as f:
                f.write(str(i) * i)
        print(sum(os.stat(p).st_size for p in glob.glob(f"{d}/*")), len(os.listdir(d)))
        os.makedirs(f"{d}/a/b/c")
        shutil.copytree(f"{d}/a", f"{d}/z")
        os.symlink("loop", f"{d}/loop")
        try:
            open(f"{d}/loop")
        except OSError as e:
            print(e.strerror)
        os.rename(f"{d}/1", f"{d}/2")
        os.link(f"{d}/3", f"{d}/hard")
        print(os.stat(f"{d}/3").st_nlink, os.path.exists(f"{d}/1"), sorted(os.listdir(f"{d}/z")))
        fd = os.open(d, os.O_TMPFILE | os.O_RDWR)
        print(os.write(fd, b"anonymous"), os.pread(fd, 4, 2))
        f = open(f"{d}/locked", "w")
        fcntl.flock(f, fcntl.LOCK_EX)
        try:
            fcntl.flock(open(f"{d}/locked"), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as e:
            print(e.strerror)
        fcntl.lockf(f, fcntl.LOCK_EX, 10)
        pid = os.fork()
        if pid == 0:
            try:
                fcntl.lockf(open(f"{d}/locked", "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB, 5)
            except (BlockingIOError, PermissionError):
                os._exit(11)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os.chmod(f"{d}/7", 0o4751)
        print(stat.filemode(os.stat(f"{d}/7").st_mode))
        os.utime(f"{d}/7", (1, 2))
        print(os.stat(f"{d}/7").st_mtime)
        out = os.open(f"{d}/copy", os.O_CREAT | os.O_RDWR)
        print(os.sendfile(out, os.open(f"{d}/199", os.O_RDONLY), 0, 10000), os.copy_file_range(
            os.open(f"{d}/198", os.O_RDONLY), out, 100))
        memory = os.memfd_create("m")
        os.write(memory, b"memfd")
        print(os.pread(memory, 9, 0))
    print(os.path.exists(d))


def misc():
    say("misc")
    print(sys.version_info[:2], sys.platform, os.uname().sysname, os.getcwd().rsplit("/", 1)[-1])
    print(len(os.urandom(100)), os.sched_getaffinity(0) != set(), os.cpu_count() > 0)
    print(sorted(k for k in ("VmRSS", "Threads", "Pid") if k in open("/proc/self/status").read()))
    print(os.readlink("/proc/self/exe"), os.path.basename(os.readlink("/proc/self/cwd")))
    print(json.dumps({"a": [1, 2.5, None, "ü"]}), hashlib.sha512(b"").hexdigest()[:16])
    import pwd, grp, resource

    print(pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name, resource.getrlimit(resource.RLIMIT_CORE)[0] is not None)
    random.seed(4)
    data = [random.random() for _ in range(100000)]
    print(sum(sorted(data)[:10]))
    import ssl, zlib, lzma, bz2, ctypes.util

    print(len(zlib.compress(b"a" * 10000)), len(lzma.compress(b"a" * 10000)), len(bz2.compress(b"a" * 10000)))
    import venv, unittest, xml.dom.minidom, decimal

    print(decimal.Decimal(1) / 3)


if __name__ == "__main__":
    files()
    misc()
