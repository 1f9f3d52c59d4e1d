"""A containerd of a test's own: private root, state and sockets, no CRI, an image imported without a registry."""

import os
import pathlib
import subprocess
import time

from harness import Runtime, rootfs, run

IMAGE = "test.local/busybox:latest"

_CONFIG = """
version = 2
root = "{base}/root"
state = "{base}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{base}/sock"
[ttrpc]
  address = "{base}/ttrpc"
[debug]
  level = "info"
"""


class Containerd:
    def __init__(self, work: str, runtime: Runtime):
        self.base = pathlib.Path(work)
        self.runtime_root = str(self.base / "runtime")
        config = self.base / "config.toml"
        config.write_text(_CONFIG.format(base=self.base), encoding="utf-8")
        # ctr has no option for a runtime's own flags.
        self.binary = str(self.base / "runtime-binary")
        flags = " ".join(f"'{f}'" for f in runtime.flags)
        pathlib.Path(self.binary).write_text(f"#!/bin/sh\nexec '{runtime.binary}' {flags} \"$@\"\n", encoding="utf-8")
        os.chmod(self.binary, 0o755)
        self.log_path = self.base / "log"
        self._log = open(self.log_path, "wb")
        self._process = subprocess.Popen(
            ["containerd", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        try:
            self._wait_until_ready()
            self._import_image()
        except BaseException:
            self.stop()
            raise

    def command(self, *args: str) -> list:
        return ["ctr", "--address", str(self.base / "sock"), "--namespace", "caisson", *args]

    def ctr(self, *args: str, **options):
        return run(self.command(*args), **options)

    def run_flags(self) -> list:
        return ["--runtime", "io.containerd.runc.v2", "--runc-binary", self.binary, "--runc-root", self.runtime_root]

    def log(self, lines: int = 30) -> str:
        return "\n".join(self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            if self.ctr("version", timeout=20).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError(f"containerd does not answer:\n{self.log()}")

    def _import_image(self) -> None:
        root = rootfs.make_busybox_root(self.base / "image-root")
        layout = str(self.base / "layout")
        image = f"{layout}:latest"
        run(["umoci", "init", "--layout", layout], check=True)
        run(["umoci", "new", "--image", image], check=True)
        run(["umoci", "insert", "--image", image, str(root), "/"], check=True)
        config = ["--config.cmd", "/bin/sh", "--config.env", "PATH=/usr/bin:/bin", "--config.env", "FROM=image"]
        run(["umoci", "config", "--image", image, *config], check=True)
        archive = str(self.base / "image.tar")
        run(["tar", "-C", layout, "-cf", archive, "."], check=True)
        self.ctr("image", "import", "--base-name", "test.local/busybox", archive, check=True, timeout=120)
