# gcc, g++ and make: compile, archive, link and run a program of several files.
# workload: timeout=240
say() { printf '### %s\n' "$*"; }
say sources
mkdir src; cd src
cat >main.c <<'END'
#include <math.h>
#include <stdio.h>
#include "lib.h"
int main(int argc, char** argv) {
  int total = 0;
  for (int i = 0; i < COUNT; ++i) total += table[i](i);
  printf("%d %.3f %d\n", total, sqrt(total), argc);
  return argc > 1 ? 3 : 0;
}
END
{ echo 'typedef int (*fn)(int);'; for i in $(seq 20); do echo "int f$i(int);"; done
  printf 'static const fn table[] = {'; for i in $(seq 20); do printf 'f%d,' $i; done; echo '};'; echo '#define COUNT 20'; } >lib.h
for i in $(seq 20); do printf '#include "lib.h"\nint f%d(int n) { int s = 0; for (int i = 0; i <= n; ++i) s += i * %d; return s; }\n' $i $i >f$i.c; done
cat >Makefile <<'END'
OBJS := $(patsubst %.c,%.o,$(wildcard f*.c))
CFLAGS := -O2 -Wall -Wno-unused-variable
prog: main.o libf.a
	@gcc -o $@ main.o -L. -lf -lm
libf.a: $(OBJS)
	@ar rcs $@ $^
%.o: %.c lib.h
	@gcc $(CFLAGS) -c -o $@ $<
clean:
	@rm -f *.o *.a prog
END
ls | wc -l

say make
make -j4 && ./prog; ./prog x; echo "status $?"
make; touch f3.c; make -n | wc -l; make; make clean; ls | wc -l

say shared-library
gcc -shared -fPIC -O1 -o libshared.so f1.c f2.c && cat >dl.c <<'END'
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
  void* h = dlopen("./libshared.so", RTLD_NOW);
  int (*f)(int) = (int (*)(int))dlsym(h, "f2");
  printf("%d\n", f(10));
  return 0;
}
END
gcc -o dl dl.c -w && ./dl

say static-and-pie
cat >hello.c <<'END'
#include <stdio.h>
#include <threads.h>
static thread_local int n = 5;
int run(void* p) { n += *(int*)p; return n; }
int main(void) {
  thrd_t t; int arg = 4, out;
  thrd_create(&t, run, &arg); thrd_join(t, &out);
  printf("hello %d %d\n", n, out);
}
END
for how in "-static" "-static-pie" "-no-pie" "-pie" "-O3 -g" "-fsanitize=undefined"; do gcc $how -o hello hello.c && ./hello; done
gcc -S -O2 -o - hello.c | grep -c thrd_create
gcc -E hello.c | wc -l | awk '{print ($1 > 100)}'
echo 'int main( {' | gcc -x c - 2>&1 | grep -c error
objdump -d hello | grep -c '<main>:'; nm hello | grep -c ' T main'; strip hello; ./hello

say c++
cat >app.cc <<'END'
#include <algorithm>
#include <future>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>
struct Base { virtual ~Base() = default; virtual int f() const { return 1; } };
struct Derived : Base { int f() const override { return 2; } };
int main() {
  std::map<std::string, int> m;
  for (int i = 0; i < 1000; ++i) m[std::to_string(i % 37)] += i;
  std::vector<std::future<long>> all;
  for (int t = 0; t < 4; ++t) all.push_back(std::async(std::launch::async, [t] { long s = 0; for (int i = 0; i < 100000; ++i) s += i ^ t; return s; }));
  for (auto& f : all) std::cout << f.get() << " ";
  try { throw std::runtime_error("caught"); } catch (const std::exception& e) { std::cout << e.what() << " "; }
  Base* b = new Derived; std::cout << m["7"] << " " << b->f() << "\n"; delete b;
}
END
g++ -std=c++20 -O1 -o app app.cc -pthread && ./app
