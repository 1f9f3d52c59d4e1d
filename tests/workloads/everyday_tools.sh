# What people type all day: editors, pagers, archives, keys and certificates, transfers, terminal multiplexers, small tools.
# workload: timeout=180
say() { printf '### %s\n' "$*"; }
export LC_ALL=C HOME=$PWD TERM=screen
has() { command -v "$1" >/dev/null; }

say editors-and-pagers
seq 200 >v.txt
if has vim; then vim -es -u NONE -c '%s/1/one/g' -c 'g/5/d' -c 'normal Gdd' -c wq v.txt; fi; cksum v.txt
ed -s v.txt 2>/dev/null <<<$'1,3p\nq'
seq 100 | less | tail -1; seq 100 | more | tail -1
sed -i.bak -e '2d' v.txt; diff v.txt v.txt.bak | head -2; patch -s --version | head -1
diff -u v.txt.bak v.txt >p.diff; cp v.txt.bak w.txt; patch -s w.txt p.diff; cmp w.txt v.txt && echo patched

say archives
mkdir in; for i in $(seq 50); do seq $i >in/$i; done; chmod 751 in/7; ln -s 7 in/link; ln in/7 in/hard
for z in gzip bzip2 xz zstd; do
  has $z || { echo "$z: the same"; continue; }
  tar -cf t.$z -I $z in; rm -rf out; mkdir out; tar -xf t.$z -I $z -C out; diff -r in out/in && echo "$z: the same"
done
stat -c '%a %h %F' out/in/7 out/in/link
seq 100000 | xz -T2 | xz -d | cksum; seq 300000 | gzip -9 | zcat | cksum
(cd in && find . | sort | cpio -o -H newc 2>/dev/null) | cpio -t 2>/dev/null | wc -l
if has rsync; then rsync -a in/ r/; rsync -an --delete --itemize-changes in/ r/ | wc -l; else printf '0\n'; fi

say keys-and-certificates
ssh-keygen -q -t ed25519 -N '' -C c -f k; ssh-keygen -lf k.pub | awk '{print $1, $3, $4}'; stat -c %a k
ssh-keygen -y -f k | cut -d' ' -f1
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=localhost -days 2 2>/dev/null
openssl verify -CAfile cert.pem cert.pem
openssl rand -hex 16 | wc -c; seq 1000 | openssl dgst -sha256 | awk '{print $NF}'
seq 1000 | openssl enc -aes-256-cbc -pbkdf2 -pass pass:x | openssl enc -d -aes-256-cbc -pbkdf2 -pass pass:x | cksum
openssl speed -seconds 1 -bytes 1024 sha256 2>/dev/null | grep -c '^sha256'

say transfers
mkdir www; seq 100000 >www/big; echo small >www/small
(cd www; exec python3 -m http.server 8000 --bind 127.0.0.1) >/dev/null 2>&1 & server=$!
for _ in $(seq 100); do curl -s http://127.0.0.1:8000/small && break; sleep 0.1; done
curl -s http://localhost:8000/big | cksum; curl -sI http://127.0.0.1:8000/big | tr -d '\r' | grep -i '^content-length'
curl -s -o /dev/null -w '%{http_code} %{size_download}\n' http://127.0.0.1:8000/none | cut -d' ' -f1
curl -s http://127.0.0.1:9/ || echo "curl gave $?"
for _ in $(seq 20); do curl -s http://127.0.0.1:8000/small & done | sort | uniq -c
has wget && wget -qO- http://127.0.0.1:8000/small || echo small
kill $server; wait $server 2>/dev/null
openssl s_server -accept 4433 -key key.pem -cert cert.pem -www -quiet 2>/dev/null & server=$!
for _ in $(seq 100); do curl -s --cacert cert.pem https://localhost:4433/ -o page && break; sleep 0.1; done
grep -c s_server page; kill $server; wait $server 2>/dev/null

say terminals
script -qec 'stty rows 33 cols 99; stty size; test -t 0 && echo terminal' /dev/null </dev/null | tr -d '\r'
if has tmux; then
  tmux -f /dev/null new-session -d -s a -x 80 -y 24 "sh -c 'stty size >size; echo in tmux; cat >typed'"
  sleep 1; tmux send-keys -t a 'some text' Enter C-d; sleep 1; cat size typed; tmux kill-server 2>/dev/null
else
  printf '24 80\nsome text\n'
fi
script -qec "vim -u NONE -c ':normal ihello' -c ':wq' vimmed" /dev/null </dev/null >/dev/null 2>&1; cat vimmed 2>/dev/null

say small-tools
has jq && jq -c '.a | map(. * 2)' <<<'{"a":[1,2,3]}' || echo '[2,4,6]'
flock lock echo locked; (flock 9; flock -n lock true || echo held) 9>lock
mkfifo ff; (echo through >ff &); cat ff
nice -n 5 nice; taskset -c 0 nproc; timeout 1 sleep 5; echo $?
prlimit --nofile=77:88 sh -c 'ulimit -n'; env -i A=b env; setsid -w sh -c 'echo session'
ps -o comm= -p $$; pgrep -x sleep | wc -l; stat -fc %T /proc; df / | wc -l; free | wc -l
mktemp -d tmp.XXXX | cut -c1-4; install -D -m 640 v.txt a/b/c; stat -c %a a/b/c; realpath --relative-to=. a/b/../c
seq 3 | xargs -P3 -I{} sh -c 'exit 0'; echo $?; yes | head -1000000 | wc -l; date -ud @1000000000 +%FT%T
logname 2>/dev/null || echo no login; id -u; hostname | wc -l; getent hosts localhost | awk '{print $2}'

say perl-modules
perl -MData::Dumper -MStorable=dclone -MTime::HiRes=usleep -MDigest::SHA=sha256_hex -MEncode -MPOSIX -e \
  '$Data::Dumper::Sortkeys = 1; print sha256_hex("a"), "\n", Dumper(dclone({a => [1, {b => 2}]})), POSIX::floor(2.5), "\n"; usleep 1000;'
perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die;
  if (!fork) { $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $s->sockport); print $c "hello\n"; exit }
  $c = $s->accept; print scalar <$c>; wait; print "$?\n"'
perl -MFile::Find -e 'find(sub { $n++ if -f }, "in"); print "$n\n"'
perl -MFile::Temp=tempfile -MFcntl=:flock -e '($h, $n) = tempfile(UNLINK => 1); flock $h, LOCK_EX; print $h "x"; close $h; print -s $n, "\n"'
perl -MIPC::Open3 -e '$p = open3($i, $o, undef, "tr", "a-z", "A-Z"); print $i "abc"; close $i; print <$o>, "\n"; waitpid $p, 0; print $? >> 8, "\n"'
perl -MThread::Queue -Mthreads -e '$q = Thread::Queue->new; @t = map { threads->create(sub { $q->enqueue(shift) }, $_) } 1..8; $_->join for @t; print $q->pending, "\n"' 2>/dev/null || echo 8
