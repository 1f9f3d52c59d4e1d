"""What config.json says is what the guest gets."""

import json
import os
import pathlib
import subprocess

from harness import DEFAULT_CAPABILITIES, Bundle, TestCase, bind, main, rootfs

PLATFORMS = ("native", "ptrace", "systrap")


class Spec(TestCase):
    def bundle(self, script, **options):
        return Bundle(self.work, rootfs.guest(self.work), ["/bin/sh", "-c", script], **options)

    def says(self, bundle, wanted):
        bundle.write()
        done = self.runtime.run(bundle)
        self.assertSuccess(done)
        self.assertEqual(done.stdout.decode().strip(), wanted)

    def test_user_groups_and_umask(self):
        bundle = self.bundle("id -u; id -g; id -G; umask")
        bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 77], "umask": 0o27}
        self.says(bundle, "1000\n1001\n1001 5 77\n0027")

    def test_capabilities(self):
        bundle = self.bundle("grep ^Cap /proc/self/status")
        bundle.spec["process"]["capabilities"] = {
            "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
        }
        lines = "CapInh:\t{0:016x}\nCapPrm:\t{1:016x}\nCapEff:\t{1:016x}\nCapBnd:\t{1:016x}\nCapAmb:\t{0:016x}"
        # sh is executed by root, so that its permitted set becomes the bounding set's.
        self.says(bundle, lines.format(0, 1 << 5 | 1))

    def test_default_capabilities_refuse(self):
        script = "mount -t tmpfs x /tmp 2>/dev/null || echo no-mount; hostname other 2>/dev/null || echo no-hostname"
        self.says(self.bundle(script, capabilities=DEFAULT_CAPABILITIES), "no-mount\nno-hostname")

    def test_no_new_privileges(self):
        bundle = self.bundle("grep NoNewPrivs /proc/self/status")
        bundle.spec["process"]["noNewPrivileges"] = True
        self.says(bundle, "NoNewPrivs:\t1")

    def test_rlimits(self):
        bundle = self.bundle("ulimit -n; ulimit -Hn; ulimit -c")
        bundle.spec["process"]["rlimits"] = [
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]
        self.says(bundle, "100\n200\n0")

    def test_mounts(self):
        script = "touch /t/x && stat -c %a /t; touch /ro/x 2>/dev/null || echo read-only; df -P /t | awk 'NR == 2 {print $2}'"
        mounts = [
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=711", "noexec"]},
            {"destination": "/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
        ]
        self.says(self.bundle(script.replace("| awk 'NR == 2 {print $2}'", "| tail -1 | tr -s ' ' | cut -d' ' -f2"), mounts=mounts),
                  "711\nread-only\n1024")

    def test_bind_of_a_file_over_the_image(self):
        given = os.path.join(self.work, "given")
        pathlib.Path(given).write_text("given hosts\n", encoding="ascii")
        self.says(self.bundle("cat /etc/hosts", mounts=[bind(given, "/etc/hosts", "ro")]), "given hosts")

    def test_bind_mounts_are_coherent_both_ways(self):
        data = os.path.join(self.work, "data")
        os.mkdir(data)
        script = "echo one >/data/a; mkdir /data/d; mv /data/a /data/d/b; ln /data/d/b /data/c; ln -s c /data/s; cat /data/s; rm /data/d/b"
        self.says(self.bundle(script, mounts=[bind(data, "/data")]), "one")
        self.assertEqual(sorted(os.listdir(data)), ["c", "d", "s"])
        self.assertEqual(os.listdir(data + "/d"), [])
        self.assertEqual(pathlib.Path(data, "s").read_text(encoding="ascii"), "one\n")

    def test_mounts_over_missing_places_do_not_follow_links_out(self):
        root = rootfs.guest(self.work)
        outside = os.path.join(self.work, "outside")
        os.mkdir(outside)
        os.symlink(outside, os.path.join(root, "trap"))
        os.symlink("../../../../../../../.." + outside, os.path.join(root, "trap2"))
        mount = {"type": "tmpfs", "source": "tmpfs", "options": []}
        bundle = Bundle(self.work, root, ["/bin/true"], mounts=[{**mount, "destination": "/trap/a"}, {**mount, "destination": "/trap2/b"}])
        self.runtime.run(bundle)
        self.assertEqual(os.listdir(outside), [])

    def test_masked_and_read_only_paths(self):
        bundle = self.bundle("cat /etc/group | wc -c; ls /home | wc -l; touch /var/tmp/x 2>/dev/null || echo read-only")
        root = bundle.spec["root"]["path"]
        pathlib.Path(root, "home/secret").write_text("x", encoding="ascii")
        bundle.spec["linux"]["maskedPaths"] = ["/etc/group", "/home", "/proc/kcore"]
        bundle.spec["linux"]["readonlyPaths"] = ["/var/tmp", "/proc/sys"]
        self.says(bundle, "0\n0\nread-only")

    def test_devices(self):
        script = (
            "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; echo x >/dev/null;"
            " head -c 4 /dev/zero | wc -c; head -c 9 /dev/urandom | wc -c; echo x 2>/dev/null >/dev/full || echo full;"
            " for l in fd stdin ptmx; do readlink /dev/$l; done; ls /dev/shm"
        )
        self.says(self.bundle(script), "4\n9\nfull\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx")

    def test_sysctl(self):
        bundle = self.bundle("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax")
        bundle.spec["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "99", "kernel.msgmax": "7777"}
        self.says(bundle, "99\n7777")

    def test_sysctl_of_names(self):
        script = "hostname; cat /proc/sys/kernel/domainname /proc/sys/kernel/hostname"
        bundle = self.bundle(script)
        bundle.spec["linux"]["sysctl"] = {"kernel.domainname": "domain.example"}
        self.says(bundle, "caisson\ndomain.example\ncaisson")
        if self.runtime.is_native:
            return  # runc refuses what has a field of its own
        bundle = self.bundle(script)
        del bundle.spec["hostname"]
        bundle.spec["linux"]["sysctl"] = {"kernel/hostname": "by-sysctl"}
        self.says(bundle, "by-sysctl\n(none)\nby-sysctl")
        for value, word in (("other", "contradicts hostname"), ("", "1 to 64"), ("x" * 65, "1 to 64")):
            bundle = self.bundle("true")
            if value != "other":
                del bundle.spec["hostname"]
            bundle.spec["linux"]["sysctl"] = {"kernel.hostname": value}
            bundle.write()
            done = self.runtime.run(bundle)
            self.assertNotEqual(done.returncode, 0)
            text = done.stderr.decode() + self.runtime.log_tail()
            self.assertRegex(text, "linux.sysctl.*kernel.hostname.*" + word)

    def test_hostname_and_its_own_uts(self):
        bundle = self.bundle("hostname; hostname changed; hostname")
        bundle.spec["hostname"] = "given"
        self.says(bundle, "given\nchanged")
        self.assertNotEqual(os.uname().nodename, "changed")

    def test_pid_namespace(self):
        self.says(self.bundle("echo $$; ls /proc | grep -c '^[0-9]'; true"), "1\n3")

    def test_oom_score_adj(self):
        bundle = self.bundle("cat /proc/self/oom_score_adj")
        bundle.spec["process"]["oomScoreAdj"] = 500
        self.says(bundle, "500")

    def test_cwd_must_exist_or_is_made(self):
        self.says(self.bundle("pwd", cwd="/not/there/yet"), "/not/there/yet")

    def test_program_is_looked_up_in_path(self):
        bundle = Bundle(self.work, rootfs.guest(self.work), ["echo", "found"], env={"PATH": "/nowhere:/bin"})
        self.says(bundle, "found")

    def test_annotations_show_in_state(self):
        bundle = self.bundle("sleep 100")
        bundle.spec["annotations"] = {"org.example.key": "value"}
        bundle.write()
        name = self.runtime.new_id()
        with open(os.path.join(self.work, "out"), "wb") as out:

            subprocess.run(
                self.runtime.command("create", "--bundle", bundle.path, name),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60, check=True,
            )
        state = json.loads(self.runtime.call("state", name, check=True).stdout)
        self.assertEqual(state["annotations"]["org.example.key"], "value")
        self.runtime.call("delete", "--force", name, check=True)

    def test_hooks_run_in_order_with_the_state(self):
        seen = os.path.join(self.work, "seen")
        bundle = self.bundle("echo main >>/seen/order; sleep 0.2", mounts=[bind(self.work, "/seen")])
        order = os.path.join(self.work, "order")

        def hook(name):
            script = f"cat >{seen}.{name}; echo {name} $1 $COLOR >>{order}"
            return [{"path": "/bin/sh", "args": ["sh", "-c", script, "sh", "arg"], "env": ["COLOR=red", "PATH=/bin:/usr/bin"]}]

        stages = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
        bundle.spec["hooks"] = {stage: hook(stage) for stage in stages if stage != "createContainer"}
        bundle.write()
        self.assertSuccess(self.runtime.run(bundle))
        lines = pathlib.Path(order).read_text(encoding="ascii").splitlines()
        self.assertEqual(sorted(lines), sorted(["prestart arg red", "createRuntime arg red", "main", "poststart arg red", "poststop arg red"]))
        self.assertEqual(lines[:2] + lines[-1:], ["prestart arg red", "createRuntime arg red", "poststop arg red"])
        for name, status in (("prestart", ("creating", "created")), ("poststart", ("running", "created")), ("poststop", ("stopped",))):
            state = json.loads(pathlib.Path(f"{seen}.{name}").read_text(encoding="utf-8"))
            self.assertIn(state["status"], status)
            self.assertEqual(state["bundle"], bundle.path)
            if name == "prestart":
                self.assertGreater(state["pid"], 0)

    def test_a_failing_hook_fails_create(self):
        bundle = self.bundle("echo ran >/seen/ran", mounts=[bind(self.work, "/seen")])
        bundle.spec["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
        bundle.write()
        self.assertNotEqual(self.runtime.run(bundle).returncode, 0)
        self.assertFalse(os.path.exists(os.path.join(self.work, "ran")))
        self.assertEqual([e for e in os.listdir(self.runtime.state) if not e.startswith(".")], [])

    def test_preserved_descriptors(self):
        read, write = os.pipe()
        bundle = self.bundle("echo through >&3")

        def place():
            os.dup2(write, 3)

        done = self.runtime.call(
            "run", "--preserve-fds", "1", "--bundle", bundle.path, self.runtime.new_id(), preexec_fn=place, close_fds=False
        )
        os.close(write)
        self.assertSuccess(done)
        self.assertEqual(os.read(read, 100), b"through\n")
        os.close(read)

    def test_uid_mappings(self):
        bundle = self.bundle("id -u; cat /proc/self/uid_map | tr -s ' '")
        bundle.spec["linux"]["namespaces"].append({"type": "user"})
        bundle.spec["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        bundle.spec["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        os.chmod(self.work, 0o755)
        self.says(bundle, "0\n 0 100000 65536")

    def test_ids_outside_of_the_mappings_do_not_exist(self):
        bundle = self.bundle("cat /proc/self/gid_map | tr -s ' '; stat -c %u:%g /etc/outside; chown 70000 /tmp 2>/dev/null || echo none; chown 40000 /tmp && stat -c %u /tmp")
        bundle.spec["linux"]["namespaces"].append({"type": "user"})
        bundle.spec["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 200001, "size": 50000}]
        bundle.spec["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 300001, "size": 50000}]
        os.chmod(self.work, 0o755)
        outside = pathlib.Path(bundle.spec["root"]["path"], "etc/outside")
        outside.write_text("x", encoding="ascii")
        os.chown(outside, 4444, 4444)
        self.says(bundle, "0 0 1\n 1 300001 50000\n65534:65534\nnone\n40000")
        bundle.spec["process"]["user"] = {"uid": 60000, "gid": 0}
        bundle.write()
        done = self.runtime.run(bundle)
        self.assertNotEqual(done.returncode, 0)
        if not self.runtime.is_native:
            self.assertIn("process.user.uid", done.stderr.decode() + self.runtime.log_tail())

    def test_kernel_is_not_the_hosts(self):
        if self.runtime.is_native:
            self.skipTest("the native run has the host's kernel")
        done = self.runtime.run(self.bundle("uname -r; cat /proc/version"))
        self.assertSuccess(done)
        release, version = done.stdout.decode().splitlines()
        self.assertTrue(release.startswith("6.1"), release)
        self.assertNotIn(os.uname().release, version)
        self.assertIn("caisson", (release + version).lower())


if __name__ == "__main__":
    main()
