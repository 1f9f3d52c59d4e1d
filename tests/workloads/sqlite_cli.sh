# sqlite3: the command line, concurrent writers, both journal modes.
# workload: timeout=180
say() { printf '### %s\n' "$*"; }
say schema-and-queries
sqlite3 a.db "create table t(n integer primary key, s text, v real); create index i on t(s);"
seq 5000 | awk '{printf "%d,row %d,%f\n", $1, $1 % 97, $1 / 7}' >rows.csv
sqlite3 a.db ".mode csv" ".import rows.csv t"
sqlite3 a.db "select count(*), count(distinct s), round(sum(v), 3) from t; select s, count(*) c from t group by s order by c desc, s limit 3;"
sqlite3 a.db "explain query plan select * from t where s = 'row 5';"
sqlite3 a.db "pragma integrity_check; pragma page_count;"
sqlite3 a.db .dump | cksum
say transactions
sqlite3 a.db "begin; delete from t; rollback; select count(*) from t; begin; delete from t where n > 4000; commit; select count(*) from t;"
sqlite3 a.db "insert into t values (1, 'dup', 0);" 2>&1 | grep -c UNIQUE
for mode in delete wal; do
  say "concurrent-writers-$mode"
  sqlite3 $mode.db "pragma journal_mode=$mode; create table c(writer, n);"
  for w in 1 2 3 4; do
    (for n in $(seq 15); do sqlite3 -cmd ".timeout 60000" $mode.db "insert into c values ($w, $n);" || echo failed; done) &
  done
  wait
  sqlite3 $mode.db "select writer, count(*), sum(n) from c group by writer; pragma integrity_check;"
done
say vacuum-and-backup
sqlite3 a.db "vacuum; select count(*) from t;"; sqlite3 a.db ".backup b.db"; sqlite3 b.db "select sum(n) from t;"
cmp <(sqlite3 a.db .dump) <(sqlite3 b.db .dump) && echo equal
