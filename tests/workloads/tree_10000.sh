# coreutils, find, xargs, tar, gzip, grep, sed, awk over a tree of 10,000 files.
# workload: timeout=300
say() { printf '### %s\n' "$*"; }
export LC_ALL=C

say make
mkdir tree
for d in $(seq -w 0 99); do
  mkdir tree/$d
  for f in $(seq -w 0 99); do echo "file $d/$f line $((10#$d * 10#$f))" >tree/$d/$f.txt; done
done
find tree -type f | wc -l
find tree -type d | wc -l

say checksums
find tree -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum
find tree -type f -name '*7.txt' | sort | xargs -n 50 md5sum | md5sum
cat tree/*/*.txt | cksum

say grep-sed-awk
grep -rl 'line 42$' tree | sort | tr '\n' ' '; echo
grep -rc line tree | awk -F: '{s += $2} END {print s}'
find tree -name '5*.txt' -exec cat {} + | awk '{s += $NF} END {print s, NR}'
sed -i 's/line/LINE/' tree/1?/*.txt; grep -rl LINE tree | wc -l
sed -n '1p' tree/10/10.txt
cut -d' ' -f4 tree/9?/*.txt | sort -n | uniq -c | sort -rn | head -3
find tree -name '*.txt' | xargs -P 4 -n 500 wc -l | grep -c total

say find-predicates
find tree -size -2 -type f | wc -l
find tree -mindepth 1 -maxdepth 1 -name '?5' | sort | tr '\n' ' '; echo
chmod 600 tree/00/*.txt; find tree -perm 600 | wc -l
touch -d '2001-02-03 04:05:06 UTC' tree/01/*.txt; find tree ! -newermt '2002-01-01' -type f | wc -l
TZ=UTC stat -c '%y %s %a %h' tree/01/01.txt
find tree -path 'tree/3?/4*' -delete; find tree -type f | wc -l

say copy-move-link
cp -a tree copy; diff -r tree copy && echo same
mv copy moved; ls moved | wc -l
ln tree/00/00.txt hard; stat -c %h hard; ln -s tree/00/00.txt soft; readlink soft; cat soft
cp -r tree/0? some 2>/dev/null || { mkdir some; cp -r tree/0? some; }; find some -type f | wc -l
du -s --inodes tree | cut -f1

say tar-gzip
tar -C tree -czf tree.tgz --sort=name --mtime=@0 --owner=0 --group=0 .
tar tzf tree.tgz | wc -l
mkdir out; tar -C out -xzf tree.tgz; diff -r tree out && echo same
tar -cf - tree | gzip -1 | gunzip | tar tf - | sort | cksum
gzip -c tree/50/50.txt | zcat
tar -cf - -C tree 77 | tar -xf - -O 77/77.txt

say remove
rm -rf tree copy moved some out; ls | grep -v '^\.' | sort | tr '\n' ' '; echo

say hosts-files
find /usr/lib/git-core /usr/share/perl /usr/lib/python3.11 -type f ! -name '*.pyc' | sort | xargs sha256sum | sha256sum
find /etc -xdev -type f -name '*.conf' ! -name 'resolv.conf' | sort | xargs cat | wc -lc
find /usr/bin -type l | sort | xargs -n1 readlink | cksum
ls -lR /usr/share/misc | cksum

say text-tools
seq 100000 | shuf --random-source=<(yes) | sort -n | cksum
seq 1000 | split -l 100 - part.; ls part.* | wc -l; cat part.* | cksum
seq 10 | paste -sd+ | bc 2>/dev/null || echo 55
seq 20 | comm -12 <(seq 10 30 | sort) <(seq 20 | sort) | tr '\n' ' '; echo
join <(printf '1 a\n2 b\n') <(printf '1 x\n2 y\n')
seq 12 | pr -3 -t -w 30 | head -2
dd if=/dev/zero bs=4096 count=256 2>/dev/null | tee zeros | wc -c; cmp zeros <(head -c 1048576 /dev/zero) && echo equal
truncate -s 10M sparse; stat -c '%s' sparse; head -c 3 sparse | od -An -tx1
tac <(seq 3); rev <<<abc; fold -w 3 <<<abcdefg; expand <<<$'a\tb'; nl <(seq 2)
