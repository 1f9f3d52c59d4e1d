# python3: subprocess and multiprocessing with every start method.
# workload: timeout=120
import multiprocessing
import os
import subprocess


def say(name):
    print("###", name, flush=True)


def subprocesses():
    say("subprocess")
    print(subprocess.run(["echo", "hi"], capture_output=True, text=True))
    p = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print(p.communicate(b"x" * 200000)[0] == b"x" * 200000, p.returncode)
    print(subprocess.run("exit 7", shell=True).returncode, subprocess.run("kill -9 $$", shell=True).returncode)
    try:
        subprocess.run(["sleep", "10"], timeout=0.1)
    except subprocess.TimeoutExpired as e:
        print("timeout", e.cmd)
    try:
        subprocess.run(["/no/such"])
    except FileNotFoundError as e:
        print(e)
    print(subprocess.check_output(["sh", "-c", "echo $A; pwd"], env={"A": "b"}, cwd="/usr", text=True).split())
    chain = subprocess.Popen(["seq", "1000"], stdout=subprocess.PIPE)
    print(subprocess.check_output(["wc", "-l"], stdin=chain.stdout, text=True).strip(), chain.wait())
    read, write = os.pipe()
    print(subprocess.run(["sh", "-c", f"echo passed >&{write}"], pass_fds=[write]).returncode, os.read(read, 99))


def square(n):
    return n * n


def fill(array, counter, lock):
    for i in range(len(array)):
        with lock:
            array[i] += 1
            counter.value += 1


def multi():
    say("multiprocessing")
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(3) as pool:
            print(method, sum(pool.map(square, range(100))))
    array, counter, lock = multiprocessing.Array("i", 50), multiprocessing.Value("i", 0), multiprocessing.Lock()
    workers = [multiprocessing.Process(target=fill, args=(array, counter, lock)) for _ in range(4)]
    [w.start() for w in workers]
    [w.join() for w in workers]
    print(sum(array), counter.value, [w.exitcode for w in workers])
    a, b = multiprocessing.Pipe()
    w = multiprocessing.Process(target=lambda: (b.send({"k": [1, 2]}), b.close()))
    w.start()
    print(a.recv())
    w.join()
    q = multiprocessing.Queue()
    w = multiprocessing.Process(target=lambda: [q.put(i) for i in range(100)])
    w.start()
    print(sum(q.get() for _ in range(100)))
    w.join()
    from multiprocessing import shared_memory

    block = shared_memory.SharedMemory(create=True, size=1000)
    block.buf[:5] = b"hello"
    other = shared_memory.SharedMemory(block.name)
    print(bytes(other.buf[:5]))
    other.close(), block.close(), block.unlink()


if __name__ == "__main__":
    subprocesses()
    multi()
