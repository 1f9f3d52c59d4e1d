# redis-server with redis-cli and redis-benchmark: TCP and unix sockets, pipelining, persistence by fork.
# workload: timeout=180
say() { printf '### %s\n' "$*"; }
# redis-tools has the server too: one program that goes by its name.
server=$(command -v redis-server || true)
if [ -z "$server" ]; then ln -s "$(command -v redis-check-rdb)" redis-server; server=./redis-server; fi
start() {
  $server "$@" --port 7777 --unixsocket "$PWD/redis.sock" --dir "$PWD" --save '' --loglevel warning --daemonize no >redis.log 2>&1 &
  pid=$!
  for _ in $(seq 200); do redis-cli -p 7777 ping 2>/dev/null | grep -q PONG && return; sleep 0.05; done
  echo "redis does not start"; cat redis.log; exit 1
}
stop() { redis-cli -p 7777 shutdown nosave || kill -9 $pid; wait $pid; echo "server ended with $?"; }
r() { redis-cli -p 7777 "$@"; }

say commands
start
r set key value; r get key; r incrby n 41; r incr n; r lpush list a b c; r lrange list 0 -1; r hset h f v; r hgetall h
r zadd z 1 one 2 two; r zrange z 0 -1 withscores; r eval 'return redis.call("get", KEYS[1])' 1 key
r setex short 1 x; sleep 1.2; r exists short
redis-cli -s "$PWD/redis.sock" get key
say pipelining
for i in $(seq 2000); do echo "set k$i v$i"; done | redis-cli -p 7777 --pipe | tail -1
r dbsize
say publish-and-block
(timeout 20 redis-cli -p 7777 blpop queue 10 >popped) & p=$!; sleep 0.3; r rpush queue item; wait $p; cat popped
say persistence
r bgsave; for _ in $(seq 100); do r info persistence | grep -q 'rdb_bgsave_in_progress:0' && break; sleep 0.1; done
r info persistence | tr -d '\r' | grep rdb_last_bgsave_status; ls dump.rdb
r config set appendonly yes
for _ in $(seq 100); do r info persistence | grep -Eq 'aof_rewrite_(in_progress|scheduled):1' || break; sleep 0.1; done
r set durable 1; stop
start --appendonly yes; r get k77; r get durable; stop
say benchmark
start
redis-benchmark -p 7777 -n 2000 -c 20 -q -t ping,set,get,lpush,mset 2>&1 | tr '\r' '\n' | grep -c 'requests per second'
redis-benchmark -s "$PWD/redis.sock" -n 2000 -c 10 -P 8 -q -t set,get 2>&1 | tr '\r' '\n' | grep -c 'requests per second'
r info clients | tr -d '\r' | grep blocked_clients
stop
