# strace and gdb on programs in the sandbox.
# workload: timeout=120
cd "$(mktemp -d)" || exit 1

echo "### strace of one program"
strace -e trace=write,exit_group -o out /bin/echo hello
sed 's/^[0-9]* *//' out

echo "### strace of a family"
strace -f -e trace=execve,exit_group -o out sh -c '/bin/true; /bin/false; (exit 3); echo done'
grep -c 'execve("/bin/true"' out
grep -c 'execve("/bin/false"' out
grep -c 'exited with 0' out
grep -c 'exited with 1' out
grep -c 'exited with 3' out
grep -c 'SIGCHLD' out

echo "### strace counts and injects"
strace -e trace=getppid -e inject=getppid:error=EPERM:when=1 -o out python3 -c 'import os; print(os.getppid() > 0)'
grep -c INJECTED out

echo "### strace attaches"
sh -c 'while :; do sleep 0.05; done' &
looper=$!
timeout -s INT 1 strace -f -e trace=clone,vfork,clone3,fork,wait4 -p $looper -o out 2>/dev/null
kill $looper
wait $looper 2>/dev/null
[ "$(grep -c 'wait4(' out)" -gt 2 ] && echo seen

echo "### gdb: breakpoints, steps, a watchpoint"
cat > program.c <<'C'
#include <stdio.h>
#include <stdlib.h>
int total;
int add(int a, int b) {
  int sum = a + b;
  total += sum;
  return sum;
}
int main(void) {
  for (int i = 0; i < 3; i++) add(i, 10);
  printf("total %d\n", total);
  int *p = getenv("NO_SUCH_VARIABLE") ? &total : 0;
  *p = 1;
  return 0;
}
C
gcc -g -O0 -o program program.c
cat > script <<'G'
set pagination off
set confirm off
set can-use-hw-watchpoints 0
set disable-randomization on
break add
run
info args
next
next
print total
finish
delete
watch total
continue
print total
delete
continue
print $_siginfo.si_code
info registers cs
kill
G
gdb -batch -nx -x script ./program 2>&1 | grep -E '^(a|b|\$|total|Old|New|cs|Value|Program|Run till|Breakpoint|Watchpoint| *[0-9]+\s)' | sed 's/0x[0-9a-f]*/ADDRESS/g'

echo "### gdb attaches and leaves"
sleep 5 &
sleeper=$!
gdb -batch -nx -ex 'print 1+1' -ex detach -p $sleeper 2>/dev/null | grep -E '^\$1'
kill -0 $sleeper && echo alive
kill $sleeper
wait $sleeper 2>/dev/null

echo "### gcore"
sleep 5 &
sleeper=$!
gcore -o core $sleeper > /dev/null 2>&1
[ -s core.$sleeper ] && gdb -batch -nx -ex 'info threads' /bin/sleep core.$sleeper 2>/dev/null | grep -c 'Thread\|LWP\|process'
kill $sleeper
wait $sleeper 2>/dev/null
true
