# Bash job control and waiting. Also what an interactive shell does with process groups.
say() { printf '### %s\n' "$*"; }

say background-and-wait
sleep 0.1 & p=$!; wait $p; echo "waited $?"
(exit 6) & wait $! || echo "child gave $?"
for i in 1 2 3; do (sleep 0.0$i; exit $i) & done
for i in 1 2 3; do wait -n || echo -n "$? "; done; echo
sleep 5 & kill $!; wait $! 2>/dev/null || echo "killed $?"

say monitor-mode
set -m
sleep 30 & jobs | sed 's/ *sleep/ sleep/'
kill -STOP %1; sleep 0.2; jobs | awk '{print $2}'
bg %1 >/dev/null; jobs | awk '{print $2}'
kill %1; wait %1 2>/dev/null || echo "ended $?"
sleep 0.1 & fg %1 >/dev/null; echo "fg gave $?"
set +m

say process-groups
set -m
sleep 30 | sleep 30 &
leader=$(jobs -p)
members=$(ps -o pgid= -e | tr -d ' ' | grep -c "^$leader\$"); echo "$members in the group"
kill -TERM -- -$leader; wait 2>/dev/null; echo "group ended"
set +m

say orphans
bash -c '(sleep 0.1; echo orphan done >orphan.txt) & disown'; sleep 0.4; cat orphan.txt

say many-children
for i in $(seq 100); do (exit $((i % 7))) & pids[i]=$!; done
sum=0; for i in $(seq 100); do wait ${pids[i]} || sum=$((sum + $?)); done; echo $sum

say signals-to-children
bash -c 'trap "echo child saw HUP; exit 0" HUP; echo ready; while :; do sleep 0.05; done' >child.txt &
p=$!; while ! grep -q ready child.txt 2>/dev/null; do sleep 0.02; done
kill -HUP $p; wait $p; cat child.txt

say timeout
timeout 0.2 sleep 10; echo "timeout gave $?"
timeout -s KILL 0.2 sleep 10; echo "timeout -s KILL gave $?"
timeout 5 true; echo "timeout of true gave $?"

say nohup-and-setsid
setsid -w sh -c 'ps -o pid=,sid= -p $$ | awk "{print (\$1 == \$2)}"'
nohup sh -c 'kill -HUP $$; echo survived' 2>/dev/null
