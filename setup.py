"""Builds the compiled modules: the list of extensions and their directives, nothing else (metadata: pyproject.toml).

Switches, by environment variable:
    WSENGINE_DEBUG=1                       bounds and initialisation checks, -O1 -g, assertions
    WSENGINE_SANITIZE=address,undefined    or `thread`: compiled and linked with -fsanitize=...
    WSENGINE_COVERAGE=1                    line tracing for Cython.Coverage
    WSENGINE_NO_ZLIB=1                     without permessage-deflate, as where zlib.h is missing
"""

import os
import sys
import tempfile
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODULES = [
    "wsengine.message", "wsengine.event_counter", "wsengine.testing.stamp",
    *(f"wsengine.engine.{name}" for name in (
        "ring", "utf8", "frames", "inflate", "deflate", "tls", "control", "output", "intake", "overflow", "parts", "stream",
        "input", "reader", "receiver", "sender", "outlet", "keepalive", "turn", "keys", "fanout")),
    *(f"wsengine.pipeline.{name}" for name in (
        "chunk", "latency", "rate_limiter", "message_key", "batch_key", "sources", "crew", "callbacks", "materialiser",
        "batch", "lane", "open_batches", "batcher", "sized_batcher", "batch_processor", "listeners", "processor",
        "frame_handler", "emission", "dispatcher", "partitioner")),
]

if sys.platform == "win32":
    raise SystemExit("wsengine runs on Linux and macOS, and on Windows inside WSL: its reader waits in epoll or poll.")

JOBS = min(os.cpu_count() or 1, 8)   # compilers at a time; each takes some 300 MiB
DEBUG, COVERAGE = (os.environ.get(f"WSENGINE_{switch}") == "1" for switch in ("DEBUG", "COVERAGE"))
SANITIZE = os.environ.get("WSENGINE_SANITIZE", "")

# -g1: functions and lines for profilers and sanitizers; all of -g takes a seventh more time to compile.
compile_args = ["-std=c++17", "-fvisibility=hidden", "-Wno-unused-function", "-g" if DEBUG else "-g1"]
compile_args += ["-O1"] if DEBUG or SANITIZE else ["-O3", "-DNDEBUG"]
link_args = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
compile_args += [*link_args, "-fno-omit-frame-pointer"] if SANITIZE else []
macros = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if COVERAGE else []

directives = {
    "language_level": 3,
    "embedsignature": True,
    "freethreading_compatible": True,  # .ci/run runs the stress suite on such a build where one is at hand
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": not DEBUG,
    "linetrace": COVERAGE,
}


#: The modules that use zlib, and a program that does what they do.
WITH_ZLIB = ("wsengine.engine.inflate", "wsengine.engine.deflate")
PROBE = """
#include <zlib.h>
int main() { z_stream one = {}; return inflateInit2(&one, -15) + inflateResetKeep(&one) + deflateReset(&one); }
"""


class BuildOrSayWhy(build_ext):
    """The compiled engine is the product: a failed build ends with what to install, never with a slower fallback.

    One thing may be missing: zlib. Then permessage-deflate is refused where it is asked for, and all else is there.
    """

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or JOBS

    def build_extensions(self):
        there = os.environ.get("WSENGINE_NO_ZLIB") != "1" and self.has_zlib()
        for one in self.extensions:
            if one.name in WITH_ZLIB:
                one.libraries, one.define_macros = (["z"], macros) if there else ([], [*macros, ("WSENGINE_NO_ZLIB", "1")])
        if not there:
            print("wsengine: built without zlib, so without permessage-deflate; for it, install zlib's headers "
                  "(Debian, Ubuntu: zlib1g-dev; Fedora: zlib-devel) and build again, with --force", file=sys.stderr)
        super().build_extensions()

    def has_zlib(self):
        """Whether a program that uses zlib compiles and links; the compiler's own complaint stands above the answer."""
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "probe.cpp")
            with open(source, "w", encoding="ascii") as file:
                file.write(PROBE)
            try:
                objects = self.compiler.compile([source], output_dir=folder)
                self.compiler.link_executable(objects, os.path.join(folder, "probe"), libraries=["z"])
            except Exception:  # whatever a compiler's wrapper raises
                return False
            return True

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception as error:
            raise SystemExit(
                f"\nwsengine could not compile {ext.name}: {error}\n"
                f"It needs a C++17 compiler and the headers of Python {sys.version.split()[0]}.\n"
                "  Debian, Ubuntu:  apt-get install g++ python3-dev\n"
                "  Fedora:          dnf install gcc-c++ python3-devel\n"
                "  macOS:           xcode-select --install\n") from None


extensions = [
    Extension(name, [name.replace(".", "/") + ".pyx"], language="c++", include_dirs=["wsengine/engine"],
              depends=sorted(glob("wsengine/**/*.hpp", recursive=True)), define_macros=macros,
              extra_compile_args=compile_args, extra_link_args=link_args)
    for name in MODULES
]
setup(ext_modules=cythonize(extensions, build_dir="build/cython", compiler_directives=directives, nthreads=JOBS),
      cmdclass={"build_ext": BuildOrSayWhy})
