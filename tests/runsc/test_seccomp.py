"""linux.seccomp of config.json: the container's profile holds for all that runs in it."""

from harness import Bundle, TestCase, main, rootfs

PLATFORMS = ("native", "ptrace", "systrap")

NEEDED = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}


class Seccomp(TestCase):
    def run_with(self, profile, script):
        bundle = Bundle(self.work, rootfs.guest(self.work), ["/bin/sh", "-c", script])
        bundle.spec.setdefault("linux", {})["seccomp"] = profile
        bundle.write()
        return self.runtime.run(bundle)

    def says(self, profile, script, wanted):
        done = self.run_with(profile, script)
        self.assertSuccess(done)
        self.assertEqual(done.stdout.decode().strip(), wanted)

    def test_errno_of_a_rule(self):
        profile = dict(NEEDED, syscalls=[
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["no_such_call_anywhere"], "action": "SCMP_ACT_KILL"},
        ])
        self.says(profile, "mkdir /tmp/x 2>&1; rmdir /tmp 2>&1; touch /tmp/y && echo fine",
                  "mkdir: can't create directory '/tmp/x': Operation not permitted\n"
                  "rmdir: '/tmp': No space left on device\nfine")

    def test_by_argument(self):
        profile = dict(NEEDED, syscalls=[
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13,
             "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
            {"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0,
             "args": [{"index": 0, "value": 0o77, "valueTwo": 0o22, "op": "SCMP_CMP_MASKED_EQ"}]},
        ])
        self.says(profile, "kill -10 $$ 2>&1; kill -0 $$ && echo allowed",
                  "sh: can't kill pid 1: Permission denied\nallowed")

    def test_kills(self):
        profile = dict(NEEDED, syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS"}])
        self.says(profile, "mkdir /tmp/x; echo $?", "159")

    def test_is_shown_and_inherited(self):
        profile = dict(NEEDED, syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}])
        self.says(profile, "sh -c 'grep ^Seccomp: /proc/self/status'", "Seccomp:\t2")

    def test_what_cannot_be_honoured_is_an_error(self):
        for broken in (
            dict(NEEDED, defaultAction="SCMP_ACT_DANCE"),
            dict(NEEDED, syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                                    "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}]),
            dict(NEEDED, syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                                    "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_MAYBE"}]}]),
        ):
            with self.subTest(str(broken)):
                done = self.run_with(broken, "true")
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(b"seccomp", done.stderr)


main()
