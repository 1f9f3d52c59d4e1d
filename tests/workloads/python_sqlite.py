# python3: sqlite3 in both journal modes, writers in threads.
# workload: timeout=120
import sqlite3
import threading


def say(name):
    print("###", name, flush=True)


def sqlite():
    say("sqlite3")
    db = sqlite3.connect("test.db", isolation_level=None)
    for mode in ("delete", "wal"):
        print(db.execute(f"pragma journal_mode={mode}").fetchone())
        db.execute(f"create table t_{mode} (n integer primary key, s text)")
        db.execute("begin")
        db.executemany(f"insert into t_{mode} (s) values (?)", [(f"row {i}",) for i in range(2000)])
        db.execute("commit")
        print(db.execute(f"select count(*), sum(length(s)), max(n) from t_{mode}").fetchone())

    def writer(n):
        mine = sqlite3.connect("test.db", timeout=60)
        for i in range(20):
            with mine:
                mine.execute("insert into t_wal (s) values (?)", (f"thread {n} {i}",))
        mine.close()

    ts = [threading.Thread(target=writer, args=(n,)) for n in range(4)]
    [t.start() for t in ts], [t.join() for t in ts]
    print(db.execute("select count(*) from t_wal").fetchone(), db.execute("pragma integrity_check").fetchone())
    db.close()


if __name__ == "__main__":
    sqlite()
