# Bash: pipelines, here-documents, substitutions, traps, redirections, sub-shells.
say() { printf '### %s\n' "$*"; }

say pipelines
seq 1 2000 | grep 7 | sort -rn | head -5 | tr '\n' ' '; echo
yes | head -3000 | wc -l
false | true | sh -c 'exit 3' | true || :
echo "${PIPESTATUS[@]}"
set -o pipefail
if ! (true | false | true); then echo "pipefail sees it"; fi

say here-documents
name=world
cat <<END | tr a-z A-Z
hello $name $((6 * 7))
	and a tab
END
cat <<'END'
no $expansion `here`
END
cat <<<"a here-string"
head -c 100000 /dev/zero | tr '\0' x | { IFS= read -r big; echo ${#big}; }
big=$(head -c 70000 /dev/zero | tr '\0' y); wc -c <<<"$big"

say substitutions
echo "$(echo $(echo nested))"
diff <(seq 5) <(seq 6) || echo "differs: $?"
tee >(wc -l >out.tee) >/dev/null < <(seq 17); sleep 0.2; cat out.tee

say redirections
exec 7>seven; echo one >&7; echo two >&7; exec 7>&-; cat seven
{ echo to-out; echo to-err >&2; } 2>err.txt >out.txt; cat err.txt out.txt
echo more >>out.txt; wc -l <out.txt
exec 8<>rw; echo hello >&8; exec 8<rw; read -r line <&8; echo "$line"; exec 8<&-
set -o noclobber; (echo x >out.txt) 2>/dev/null || echo "noclobber holds"; set +o noclobber
ls /no/such/file 2>&1 | sed 's/.*: //'

say sub-shells
x=1; (x=2; echo $x); echo $x
( exit 9 ) || echo "sub-shell gave $?"
f() { local x=3; echo $x; return 4; }; f || echo "function gave $?"
echo $BASH_SUBSHELL $(echo $BASH_SUBSHELL)

say traps
(trap 'echo bye' EXIT; trap 'echo got-usr1' USR1; kill -USR1 $BASHPID; echo after)
bash -c 'trap "echo term; exit 5" TERM; kill -TERM $$; echo never' || echo "status $?"
bash -c 'kill -KILL $$' || echo "status $?"
bash -c 'trap "" INT; kill -INT $$; echo ignored it'

say fifo
mkfifo pipe; (echo through >pipe) & cat pipe; wait
coproc UPPER { tr a-z A-Z; }; echo coproc >&"${UPPER[1]}"; eval "exec ${UPPER[1]}>&-"; cat <&"${UPPER[0]}"; wait

say arrays-and-strings
a=(one two three); a+=(four); echo "${#a[@]} ${a[@]:1:2} ${a[-1]}"
declare -A m=([k]=v [x]=y); echo "${m[k]}${m[x]}"
s="the quick brown fox"; echo "${s^^} ${s/quick/slow} ${s##* } ${#s}"
for i in {1..5}; do (( i % 2 )) && continue; echo -n "$i "; done; echo
case "$s" in *brown*) echo matched;; esac
printf '%05d|%-6s|%x\n' 42 ab 255
mapfile -t lines < <(seq 3); echo "${lines[@]}"
IFS=: read -r u _ uid _ <<<"root:x:0:0"; echo "$u $uid"

say recursion
fact() { if (( $1 < 2 )); then echo 1; else echo $(( $1 * $(fact $(( $1 - 1 ))) )); fi; }; fact 12

say ulimit-and-umask
(ulimit -n 64; ulimit -n)
(umask 077; : >private; stat -c %a private)
