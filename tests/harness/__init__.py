"""What the Python suites of tests/ import: from harness import Bundle, Runtime, TestCase, main, rootfs."""

from . import process, unit
from . import bundle as rootfs  # rootfs.guest(), rootfs.debian(), rootfs.overlay(), …
from .bundle import DEFAULT_CAPABILITIES, REPOSITORY, Bundle, all_capabilities, bind
from .runtime import PLATFORMS, Runtime, run, runsc_path
from .testcase import TestCase, main

__all__ = [
    "DEFAULT_CAPABILITIES",
    "PLATFORMS",
    "REPOSITORY",
    "Bundle",
    "Runtime",
    "TestCase",
    "all_capabilities",
    "bind",
    "main",
    "process",
    "rootfs",
    "run",
    "runsc_path",
    "unit",
]
