"""OCI bundles and root file systems for tests.

    root = rootfs.guest(work)                      # busybox and the guest tests, an overlay of this run's own
    root = rootfs.debian(work)                     # this machine's own userland, likewise
    bundle = Bundle(work, root, ["/bin/sh", "-c", "echo hi"], env={"A": "b"})
    bundle.spec["hostname"] = "other"; bundle.write()
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import typing

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE"
    " NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN"
    " SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE"
    " MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ"
).split()
# What containerd and Docker give a container.
DEFAULT_CAPABILITIES = [
    "CAP_" + c
    for c in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
        " AUDIT_WRITE"
    ).split()
]


def all_capabilities() -> typing.List[str]:
    """Every capability that this machine lets runc give away; some lack CAP_SYS_RESOURCE."""
    with open("/proc/self/status", encoding="ascii") as f:
        bounding = next(int(line.split()[1], 16) for line in f if line.startswith("CapBnd:"))
    return ["CAP_" + name for bit, name in enumerate(_CAPABILITIES) if bounding >> bit & 1]


def default_mounts() -> typing.List[dict]:
    def mount(destination, kind, source, *options):
        return {"destination": destination, "type": kind, "source": source, "options": list(options)}

    return [
        mount("/proc", "proc", "proc"),
        mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
        mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777"),
    ]


class Bundle:
    """A directory with config.json. `spec` may be changed until write()."""

    def __init__(
        self,
        work: typing.Union[str, os.PathLike],
        root: typing.Union[str, os.PathLike],
        args: typing.Sequence[str],
        *,
        env: typing.Optional[typing.Mapping[str, str]] = None,
        cwd: str = "/",
        uid: int = 0,
        gid: int = 0,
        readonly: bool = False,
        terminal: bool = False,
        capabilities: typing.Optional[typing.Sequence[str]] = None,
        mounts: typing.Sequence[dict] = (),
        cgroups_path: typing.Optional[str] = None,
    ):
        self.path = tempfile.mkdtemp(prefix="bundle-", dir=work)
        variables = {"PATH": DEFAULT_PATH, "HOME": "/root", "TERM": "xterm", "LANG": "C.UTF-8"}
        variables.update(env or {})
        caps = list(all_capabilities() if capabilities is None else capabilities)
        self.spec: dict = {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": terminal,
                "user": {"uid": uid, "gid": gid},
                "args": list(args),
                "env": [f"{k}={v}" for k, v in variables.items()],
                "cwd": cwd,
                "capabilities": {
                    "bounding": caps,
                    "effective": caps if uid == 0 else [],
                    "permitted": caps if uid == 0 else [],
                    "inheritable": [],
                },
                "noNewPrivileges": False,
            },
            "root": {"path": str(root), "readonly": readonly},
            "hostname": "caisson",
            "mounts": default_mounts() + list(mounts),
            "linux": {
                "namespaces": [{"type": t} for t in ("pid", "ipc", "uts", "mount", "network")],
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }
        if cgroups_path:
            self.spec["linux"]["cgroupsPath"] = cgroups_path
        self.write()

    def write(self) -> None:
        with open(os.path.join(self.path, "config.json"), "w", encoding="utf-8") as f:
            json.dump(self.spec, f, indent=1)


def bind(source: typing.Union[str, os.PathLike], destination: str, *options: str) -> dict:
    """A bind mount for Bundle(mounts=[…]); pass "ro" for a read-only one."""
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}


# --- Root file systems -------------------------------------------------------------------------------------------------

_APPLETS = (
    "sh ash cat chmod chown cp cut date dd df echo env false find grep head hostname id kill ln ls mkdir mknod mount mv nc"
    " ps pwd readlink rm rmdir sed seq sleep sort stat stty sync tail tar tee test time timeout touch tr true tty uname"
    " umount uniq wc which xargs yes"
).split()


def make_busybox_root(path: typing.Union[str, os.PathLike]) -> pathlib.Path:
    """A root of Debian's static busybox and the few files that programs expect."""
    root = pathlib.Path(path)
    for folder in ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tests", "tmp", "usr/bin", "var/tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "var/tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    return root


def overlay(work: typing.Union[str, os.PathLike], *lower: typing.Union[str, os.PathLike]) -> str:
    """Mounts an overlay over `lower` with a fresh upper layer beneath `work`; in the caller's mount namespace."""
    base = tempfile.mkdtemp(prefix="root-", dir=work)
    upper, scratch, merged = (os.path.join(base, d) for d in ("upper", "work", "merged"))
    for folder in (upper, scratch, merged):
        os.mkdir(folder)
    os.chmod(base, 0o755)
    options = f"lowerdir={':'.join(map(str, lower))},upperdir={upper},workdir={scratch}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", merged], check=True)
    return merged


def unmount(merged: str) -> None:
    """Undoes overlay(), its upper layer included."""
    subprocess.run(["umount", merged], check=False, stderr=subprocess.DEVNULL)
    if not os.path.ismount(merged):
        shutil.rmtree(os.path.dirname(merged), ignore_errors=True)


def debian(work: typing.Union[str, os.PathLike]) -> str:
    """This machine's own userland under an overlay: what is mounted beneath / on the host is not in it."""
    return overlay(work, "/")


def guest(work: typing.Union[str, os.PathLike]) -> str:
    """The busybox root with the guest tests in /tests, under an overlay."""
    base = os.environ.get("CAISSON_GUEST_ROOT")
    if not base:
        base = tempfile.mkdtemp(prefix="guest-", dir=work)
        os.chmod(base, 0o755)
        make_busybox_root(base)
    return overlay(work, base)
