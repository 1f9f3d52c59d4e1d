"""What benchmarks/run times beside single operations: whole programs, from outside, and services, from inside.

A PROGRAM is timed from calling the runtime to its end, so that start-up counts. A WORKLOAD prints lines `figure NAME SECONDS` from
inside the container: the time of one request, insert or build, without the sandbox's start. Less is better in both.
"""

import os
import pathlib
import shutil
import subprocess
import typing

_COMPILE = """
set -e; cd /tmp; for i in 1 2 3 4 5 6; do printf '#include <stdio.h>\\n#include <stdlib.h>\\nint f%d(int n) { return n ? printf("%%d", n) : abs(n); }\\n' $i >f$i.c; done
printf 'int main(void) { return 0; }\\n' >main.c; gcc -O2 -o prog main.c f?.c; ./prog
"""

# name -> (arguments, how often)
PROGRAMS: typing.Dict[str, typing.Tuple[typing.List[str], int]] = {
    "start-to-end of true": (["/bin/true"], 15),
    "start-to-end of a shell pipeline": (["/bin/sh", "-c", "seq 100 | grep 7 | wc -l"], 10),
    "python3 start": (["/usr/bin/python3", "-c", "pass"], 10),
    "compile of seven files": (["/bin/sh", "-c", _COMPILE], 3),
}

# Every workload starts with these. `t=$(now)` … `figure NAME $t COUNT` tells the seconds per item since t.
_PRELUDE = r"""
set -eu; cd /tmp; export HOME=/tmp LC_ALL=C.UTF-8
now() { echo "$EPOCHREALTIME"; }
figure() { awk -v name="$1" -v from="$2" -v to="$EPOCHREALTIME" -v n="${3:-1}" 'BEGIN { printf "figure %s %.9f\n", name, (to - from) / n }'; }
rate() { awk -v name="$1" -v rate="$2" 'BEGIN { if (rate > 0) printf "figure %s %.9f\n", name, 1 / rate }'; }
"""

_REDIS = r"""
server=$(command -v redis-server || true)
if [ -z "$server" ]; then ln -s "$(command -v redis-check-rdb)" redis-server; server=./redis-server; fi
$server --port 7777 --save '' --loglevel warning >/dev/null 2>&1 &
for _ in $(seq 200); do redis-cli -p 7777 ping 2>/dev/null | grep -q PONG && break; sleep 0.05; done
for p in 1 16; do
  redis-benchmark -p 7777 -n $((10000 * p)) -c 20 -P $p -t set,get --csv 2>/dev/null | tr -d '"' |
    while IFS=, read -r name rps _; do case $name in SET|GET) rate "redis-$name-P$p" "$rps" ;; esac; done
done
redis-cli -p 7777 shutdown nosave
wait
"""

_SQLITE = r"""
t=$(now)
{ echo 'create table t(a integer primary key, b text, c integer); begin;'
  for i in $(seq 20000); do echo "insert into t values($i,'row number $i',$((i * 7919 % 10007)));"; done
  echo 'commit; create index tc on t(c);'; } >insert.sql
t=$(now); sqlite3 db <insert.sql; figure sqlite-bulk-insert $t 20000
for i in $(seq 300); do echo "insert into t values($((i + 20000)),'own transaction',$i);"; done >single.sql
t=$(now); sqlite3 db <single.sql; figure sqlite-insert-in-own-transaction $t 300
for i in $(seq 2000); do echo "select count(*), max(b) from t where c between $i and $((i + 9));"; done >query.sql
t=$(now); sqlite3 db <query.sql >/dev/null; figure sqlite-query $t 2000
"""

_BUILD = r"""
mkdir project; cd project
for i in $(seq 50); do
  printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\nint f%d(const char *s) { char b[64]; snprintf(b, sizeof b, "%%s-%d", s); return (int)strlen(b) + getpid() * 0; }\n' $i $i >f$i.c
done
{ for i in $(seq 50); do echo "int f$i(const char *);"; done; echo 'int main(void) { int n = 0;'
  for i in $(seq 50); do echo "n += f$i(\"x\");"; done; echo 'return n == 0; }'; } >main.c
printf 'prog: main.o $(patsubst %%,f%%.o,$(shell seq 50))\n\tgcc -o $@ $^\n%%.o: %%.c\n\tgcc -O1 -c -o $@ $<\n' >Makefile
t=$(now); make -s -j2; ./prog; figure make-of-50-files $t
"""

_GIT = r"""
git config --global --add safe.directory '*'
t=$(now); git clone -q --no-local /data/repository clone; figure git-clone-of-10000-objects $t
cd clone; t=$(now); git status --porcelain | wc -l >/dev/null; figure git-status $t
"""

_FILES = r"""
find /data/tree >/dev/null  # Once, so that the host's own cache is as warm for the first as for the last.
t=$(now); find /data/tree -type f | xargs sha256sum >/dev/null; figure find-and-hash-20000-files $t
t=$(now); tar cf t.tar -C /data tree; figure tar-of-20000-files $t
t=$(now); tar xf t.tar; figure untar-of-20000-files $t
t=$(now); rm -rf tree; figure rm-of-20000-files $t
"""

_SCRIPT = r"""
t=$(now); for i in $(seq 500); do /bin/true; done; figure script-of-500-fork-and-exec $t
t=$(now); for i in $(seq 200); do x=$(echo $i | cat); done; figure script-of-200-pipelines $t
"""

_PYTHON = r"""
cat >bench.py <<'END'
import json, re, time, hashlib
def timed(name, work):
    start = time.monotonic()
    work()
    print("figure", name, f"{time.monotonic() - start:.9f}")
data = [{"id": i, "name": f"item {i}", "tags": [str(i % 7), str(i % 11)]} for i in range(20000)]
def objects():
    for _ in range(4): json.loads(json.dumps(data))
    sorted(data, key=lambda d: (d["id"] * 7919) % 10007)
def text():
    s = " ".join(d["name"] for d in data) * 4
    re.findall(r"item (\d+)5 ", s); hashlib.sha256(s.encode()).hexdigest()
def files():
    for i in range(2000):
        with open(f"f{i}", "w") as f: f.write("line\n" * 20)
    for i in range(2000):
        with open(f"f{i}") as f: f.read()
timed("python-objects", objects); timed("python-text", text); timed("python-2000-files", files)
END
python3 bench.py
"""

_COMPUTE = r"""
python3 -c "import sys; sys.stdout.buffer.write(bytes((i * i >> 7) & 255 for i in range(3000000)))" >blob
t=$(now); xz -6 -T1 -k blob; figure xz-of-3-MB $t
t=$(now); openssl dgst -sha512 blob blob blob blob blob blob blob blob >/dev/null; figure sha512-of-24-MB $t
"""

_NGINX = r"""
mkdir -p www logs
head -c 1024 /dev/zero >www/small; head -c 1048576 /dev/zero >www/large
cat >nginx.conf <<'END'
worker_processes 1; daemon off; pid /tmp/nginx.pid; error_log /tmp/logs/error.log;
events { worker_connections 256; }
http { access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path /tmp/c; proxy_temp_path /tmp/p;
  fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server { listen 127.0.0.1:8088; root /tmp/www; } }
END
nginx -c /tmp/nginx.conf -p /tmp &
for _ in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/8088) 2>/dev/null && break; sleep 0.05; done
for body in small large; do
  rate nginx-$body "$(wrk -t1 -c16 -d3 http://127.0.0.1:8088/$body | awk '/^Requests\/sec:/ { print $2 }')"
done
kill -QUIT $(cat /tmp/nginx.pid); wait
"""

# name -> (script, programs without which it is left out)
WORKLOADS: typing.Dict[str, typing.Tuple[str, typing.Tuple[str, ...]]] = {
    "script": (_SCRIPT, ()),
    "compute": (_COMPUTE, ("xz", "openssl")),
    "python": (_PYTHON, ()),
    "build": (_BUILD, ("make", "gcc")),
    "files": (_FILES, ()),
    "git": (_GIT, ("git",)),
    "sqlite": (_SQLITE, ("sqlite3",)),
    "redis": (_REDIS, ("redis-benchmark",)),
    "nginx": (_NGINX, ("nginx", "wrk")),
}


def lacking(name: str) -> typing.List[str]:
    """The programs that a workload needs and this machine has not."""
    return [p for p in WORKLOADS[name][1] if shutil.which(p) is None]


def command(name: str) -> typing.List[str]:
    return ["/bin/bash", "-c", _PRELUDE + WORKLOADS[name][0]]


def figures(output: str) -> typing.Dict[str, float]:
    """Seconds by name, from what a workload printed."""
    found = {}
    for line in output.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "figure":
            found[words[1].replace("-", " ")] = float(words[2])
    return found


def make_data(root: str) -> None:
    """/data in a root: a tree of 20,000 files, and a git repository of 10,000 objects."""
    data = pathlib.Path(root) / "data"
    for folder in range(200):
        directory = data / "tree" / f"d{folder % 20}" / f"e{folder}"
        directory.mkdir(parents=True)
        for number in range(100):
            (directory / f"f{number}").write_bytes(b"%d %d\n" % (folder, number) * (1 + number % 40))
    repository = str(data / "repository")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", repository], check=True)
    # One blob, tree and commit each for most commits: 10,000 objects in all.
    stream = []
    for number in range(3333):
        stream.append(f"commit refs/heads/main\ncommitter A <a@localhost> {1600000000 + number} +0000\ndata 1\nc\n")
        text = f"content {number}\n" * 10
        stream.append(f"M 644 inline file{number % 500}\ndata {len(text)}\n{text}\n")
    fast_import = ["git", "-C", repository, "fast-import", "--quiet"]
    subprocess.run(fast_import, input="".join(stream).encode(), check=True, env={**os.environ, "HOME": root})
