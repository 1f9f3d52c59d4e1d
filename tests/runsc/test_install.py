"""runsc/install: on trees of its own, never on this machine."""

import json
import os
import pathlib

from harness import REPOSITORY, TestCase, main, run

PLATFORMS = ("any",)
CONTAINERD = 'version = 2\n\n[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    sandbox_image = "x"\n'


class Install(TestCase):
    def setUp(self):
        self.tree = pathlib.Path(self.work, "tree")
        (self.tree / "usr/bin").mkdir(parents=True)

    def install(self, *flags):
        binary = self.tree / "built"
        binary.write_text("#!/bin/sh\necho ours\n", encoding="ascii")
        return run(
            [str(REPOSITORY / "runsc/install"), "--destdir", str(self.tree), "--binary", str(binary), *flags], check=True
        )

    def put(self, path, text):
        (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
        (self.tree / path).write_text(text, encoding="utf-8")

    def read(self, path):
        return (self.tree / path).read_text(encoding="utf-8")

    def test_binary_alone_where_there_is_no_daemon(self):
        self.install()
        self.assertTrue(os.access(self.tree / "usr/local/bin/runsc", os.X_OK))
        self.assertFalse((self.tree / "etc").exists())

    def test_registers_once_and_takes_back(self):
        docker = {"debug": True, "runtimes": {"other": {"path": "/x"}}}
        self.put("etc/containerd/config.toml", CONTAINERD)
        self.put("etc/docker/daemon.json", json.dumps(docker))
        self.install()
        once = self.read("etc/containerd/config.toml")
        self.assertIn('runtimes.runsc.options]\n    BinaryName = "/usr/local/bin/runsc"', once)
        self.assertEqual(
            json.loads(self.read("etc/docker/daemon.json"))["runtimes"],
            {"other": {"path": "/x"}, "runsc": {"path": "/usr/local/bin/runsc"}},
        )
        self.install()
        self.assertEqual(self.read("etc/containerd/config.toml"), once)
        self.install("--uninstall")
        self.assertEqual(self.read("etc/containerd/config.toml"), CONTAINERD)
        self.assertEqual(json.loads(self.read("etc/docker/daemon.json")), docker)
        self.assertFalse((self.tree / "usr/local/bin/runsc").exists())

    def test_dry_run_changes_nothing(self):
        self.put("etc/containerd/config.toml", CONTAINERD)
        done = self.install("--dry-run")
        self.assertIn(b"would add the runtime", done.stdout)
        self.assertEqual(self.read("etc/containerd/config.toml"), CONTAINERD)
        self.assertFalse((self.tree / "usr/local/bin/runsc").exists())

    def test_leaves_anothers_runtime_and_broken_files_alone(self):
        self.put("etc/docker/daemon.json", '{"runtimes": {"runsc": {"path": "/usr/bin/runsc"}}}')
        self.assertIn(b"another runtime", self.install().stderr)
        self.assertIn("/usr/bin/runsc", self.read("etc/docker/daemon.json"))
        self.put("etc/docker/daemon.json", "{ broken")
        self.assertIn(b"not JSON", self.install().stderr)
        self.assertEqual(self.read("etc/docker/daemon.json"), "{ broken")
        self.put("etc/containerd/config.toml", "[plugins]\n")
        self.assertIn(b"not of version 2", self.install().stderr)
        self.assertEqual(self.read("etc/containerd/config.toml"), "[plugins]\n")


if __name__ == "__main__":
    main()
