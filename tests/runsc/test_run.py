"""runsc run: the shortest path through everything."""

from harness import Bundle, TestCase, bind, main, rootfs


class Run(TestCase):
    def bundle(self, *args, **options):
        return Bundle(self.work, rootfs.guest(self.work), args, **options)

    def test_says_hi(self):
        done = self.runtime.run(self.bundle("/bin/sh", "-c", "echo hi"))
        self.assertSuccess(done)
        self.assertEqual(done.stdout, b"hi\n")

    def test_passes_standard_streams(self):
        done = self.runtime.run(self.bundle("/bin/sh", "-c", "cat; echo oops >&2"), stdin=b"some\ntext\n")
        self.assertSuccess(done)
        self.assertEqual(done.stdout, b"some\ntext\n")
        self.assertIn(b"oops\n", done.stderr)

    def test_exit_status_is_the_guests(self):
        self.assertEqual(self.runtime.run(self.bundle("/bin/sh", "-c", "exit 42")).returncode, 42)

    def test_signal_death_is_128_plus_signal(self):
        # Not pid 1 itself, which no signal without a handler ends from inside.
        done = self.runtime.run(self.bundle("/bin/sh", "-c", "sh -c 'kill -9 $$'; exit $?"))
        self.assertEqual(done.returncode, 137)

    def test_environment_cwd_user_and_hostname(self):
        bundle = self.bundle(
            "/bin/sh", "-c", "echo $COLOR; pwd; id -u; id -g; hostname", env={"COLOR": "blue"}, cwd="/tmp", uid=7, gid=8
        )
        done = self.runtime.run(bundle)
        self.assertSuccess(done)
        self.assertEqual(done.stdout.split(), [b"blue", b"/tmp", b"7", b"8", b"caisson"])

    def test_bind_mounts_read_write_and_read_only(self):
        with open(self.work + "/given", "w", encoding="ascii") as f:
            f.write("from outside\n")
        script = "cat /data/given && echo new > /data/made && ! touch /ro/no 2>/dev/null"
        mounts = [bind(self.work, "/data"), bind(self.work, "/ro", "ro")]
        done = self.runtime.run(self.bundle("/bin/sh", "-c", script, mounts=mounts))
        self.assertSuccess(done)
        self.assertEqual(done.stdout, b"from outside\n")
        with open(self.work + "/made", encoding="ascii") as f:
            self.assertEqual(f.read(), "new\n")

    def test_read_only_root(self):
        done = self.runtime.run(self.bundle("/bin/sh", "-c", "! touch /x 2>/dev/null && touch /tmp/x", readonly=True))
        self.assertSuccess(done)

    def test_missing_program_is_127_and_named(self):
        done = self.runtime.run(self.bundle("/no/such/program"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("/no/such/program", (done.stdout + done.stderr).decode() + self.runtime.log_tail())

    def test_pipeline_in_the_guest(self):
        done = self.runtime.run(self.bundle("/bin/sh", "-c", "seq 1000 | grep 7 | wc -l"))
        self.assertSuccess(done)
        self.assertEqual(done.stdout, b"271\n")


if __name__ == "__main__":
    main()
