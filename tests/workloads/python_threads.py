# python3: threads, locks, queues, pools.
# workload: timeout=120
import concurrent.futures
import hashlib
import queue
import threading


def say(name):
    print("###", name, flush=True)


def threads():
    say("threads")
    results, lock, barrier = [], threading.Lock(), threading.Barrier(8)

    def work(n):
        barrier.wait()
        for i in range(200):
            with lock:
                results.append(n * i)

    all_threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    [t.start() for t in all_threads]
    [t.join() for t in all_threads]
    print(len(results), sum(results))
    q = queue.Queue(5)
    producer = threading.Thread(target=lambda: [q.put(i) for i in range(500)])
    producer.start()
    print(sum(q.get() for _ in range(500)))
    producer.join()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        print(sum(pool.map(lambda n: len(hashlib.sha256(b"x" * n).hexdigest()), range(300))))
    event = threading.Event()
    print(event.wait(0.05))
    timer = threading.Timer(0.02, event.set)
    timer.start()
    print(event.wait(5))
    local = threading.local()
    local.x = 1
    seen = []
    t = threading.Thread(target=lambda: seen.append(hasattr(local, "x")))
    t.start(), t.join()
    print(seen)


if __name__ == "__main__":
    threads()
