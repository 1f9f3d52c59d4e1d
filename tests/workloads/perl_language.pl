# perl: regular expressions, sorting, processes, sockets, files.
use strict; use warnings; use IO::Socket::INET; use IO::Select; use POSIX qw(:sys_wait_h); use File::Temp qw(tempdir);
use File::Find; use Digest::SHA qw(sha256_hex); use Time::HiRes qw(usleep); use Socket;
$| = 1;
sub say_ { print "### $_[0]\n" }

say_("text");
my %count; $count{length $_}++ for map { "x" x ($_ % 17) } 1 .. 5000;
print join(",", map { "$_=$count{$_}" } sort { $a <=> $b } keys %count), "\n";
(my $s = "The Cat sat on the mat") =~ s/(\w+)/\u\L$1/g; print "$s\n";
print join("|", "2001-02-03" =~ /^(\d+)-(\d+)-(\d+)$/), "\n";
print sha256_hex(join "", map { chr($_ % 256) } 1 .. 100000), "\n";
printf "%s %05.2f %b\n", scalar(reverse "abc"), 3.14159, 10;

say_("processes");
my $pid = fork; if (!$pid) { exit 5 } waitpid $pid, 0; print $? >> 8, "\n";
print `echo from shell; exit 3`, $? >> 8, "\n";
open my $to, "|-", "tr a-z A-Z" or die; print $to "piped\n"; close $to;
open my $from, "-|", "seq", "5" or die; print join("+", map { chomp; $_ } <$from>), "\n"; close $from;
system("sh", "-c", 'kill -TERM $$'); print $? & 127, "\n";
my @kids = map { my $n = $_; my $p = fork; exit $n unless $p; $p } 1 .. 20; my $sum = 0;
for (@kids) { waitpid $_, 0; $sum += $? >> 8 } print "$sum\n";
pipe(my $r, my $w); if (!($pid = fork)) { close $r; syswrite $w, "x" x 100000; exit } close $w;
my $got = 0; while (my $n = sysread $r, my $b, 8192) { $got += $n } waitpid $pid, 0; print "$got\n";

say_("signals");
my $hits = 0; local $SIG{USR1} = sub { $hits++ }; kill USR1 => $$ for 1 .. 5; print "$hits\n";
eval { local $SIG{ALRM} = sub { die "alarm\n" }; alarm 1; select undef, undef, undef, 10; }; print $@;
$pid = fork; if (!$pid) { $SIG{TERM} = 'DEFAULT'; sleep 100; exit } usleep 20000; kill TERM => $pid; waitpid $pid, 0; print $? & 127, "\n";

say_("sockets");
my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", ReuseAddr => 1) or die;
$pid = fork;
if (!$pid) { for (1 .. 5) { my $c = $server->accept; while (my $l = <$c>) { print $c uc $l } close $c } exit }
for my $i (1 .. 5) { my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $server->sockport) or die $!;
  print $c "line $i\n"; $c->shutdown(1); print scalar <$c>; }
waitpid $pid, 0;
socketpair(my $x, my $y, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; syswrite $x, "pair"; sysread $y, my $p, 10; print "$p\n";

say_("files");
my $dir = tempdir(CLEANUP => 1);
for (1 .. 300) { open my $f, ">", "$dir/f$_" or die; print $f "$_\n" x $_; close $f } 
my ($n, $size) = (0, 0); find(sub { if (-f) { $n++; $size += -s } }, $dir); print "$n $size\n";
open my $f, "+<", "$dir/f9" or die; seek $f, 2, 0; print $f "Z"; seek $f, 0, 0; print scalar(<$f>), scalar(<$f>); close $f;
rename "$dir/f1", "$dir/g" or die; symlink "g", "$dir/l" or die; print readlink("$dir/l"), -e "$dir/f1" ? "still" : "gone", "\n";
opendir my $d, $dir; my @all = grep { !/^\./ } readdir $d; print scalar(@all), "\n"; unlink glob "$dir/f*";
my @left = glob "$dir/*"; print scalar(@left), "\n";
mkdir "$dir/sub", 0700; print sprintf("%o", (stat "$dir/sub")[2] & 0777), "\n"; rmdir "$dir/sub"; 
if (!open my $none, "<", "/no/such") { print "$!\n" }
