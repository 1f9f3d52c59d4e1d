# python3: asyncio with sockets, processes, signals, threads.
# workload: timeout=120
import asyncio
import hashlib
import os
import signal


def say(name):
    print("###", name, flush=True)


def square(n):
    return n * n


async def asyncs():
    say("asyncio")

    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def client(n):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        got = b""
        for i in range(20):
            writer.write(b"client %d line %d\n" % (n, i))
            got += await reader.readline()
        writer.close()
        await writer.wait_closed()
        return hashlib.md5(got).hexdigest()

    print(hashlib.md5("".join(await asyncio.gather(*[client(n) for n in range(30)])).encode()).hexdigest())
    server.close()
    await server.wait_closed()
    p = await asyncio.create_subprocess_exec("sh", "-c", "cat; exit 3", stdin=-1, stdout=-1)
    print(await p.communicate(b"via asyncio"), p.returncode)
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.05)
    except asyncio.TimeoutError:
        print("timeout")
    print(await asyncio.gather(*[asyncio.to_thread(square, n) for n in range(10)]))
    loop, hits = asyncio.get_running_loop(), []
    loop.add_signal_handler(signal.SIGUSR1, lambda: hits.append(1))
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.1)
    print(hits)
    unix = await asyncio.start_unix_server(serve, "async.sock")
    reader, writer = await asyncio.open_unix_connection("async.sock")
    writer.write(b"unix\n")
    print(await reader.readline())
    writer.close()
    unix.close()


if __name__ == "__main__":
    asyncio.run(asyncs())
