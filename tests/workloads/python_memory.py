# python3: mmap, shared with files and over fork.
# workload: timeout=120
import hashlib
import mmap
import os


def say(name):
    print("###", name, flush=True)


def mmaps():
    say("mmap")
    with open("map.bin", "w+b") as f:
        f.truncate(1 << 20)
        m = mmap.mmap(f.fileno(), 0)
        m[0:5] = b"hello"
        m[-5:] = b"world"
        m.flush()
        f.seek(0)
        data = f.read()
        print(data[:5], data[-5:], len(data))
        f.seek(100)
        f.write(b"written")
        f.flush()
        print(m[100:107])
        child = os.fork()
        if child == 0:
            m[200:205] = b"child"
            os._exit(0)
        os.waitpid(child, 0)
        print(m[200:205])
        private = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE)
        private[0:5] = b"XXXXX"
        print(m[0:5], private[0:5])
        m.resize(2 << 20)
        print(len(m), os.fstat(f.fileno()).st_size)
        m.close(), private.close()
    anonymous = mmap.mmap(-1, 8 << 20)
    for i in range(0, 8 << 20, 4096):
        anonymous[i] = i // 4096 % 251
    print(hashlib.md5(anonymous).hexdigest())


if __name__ == "__main__":
    mmaps()
