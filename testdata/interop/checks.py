"""Checks that run in child processes with a time limit, and the line that counts them.

A child is a module with a function; inside it each `check(name)` is one result. A child
that dies of a signal, raises outside a check or runs too long is a failure by its own name.
"""

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback


@contextlib.contextmanager
def check(name):
    """One named check: ok, or what went wrong."""
    try:
        yield
    except Exception as e:  # noqa: BLE001: every failure is a result
        traceback.print_exc()
        report("FAIL", f"{name}: {type(e).__name__}: {str(e).strip()[:400]}")
    else:
        report("ok", name)


def report(result, text):
    print(f"{result:4} {' '.join(text.split())}", flush=True)


def expect(condition, why):
    if not condition:
        raise AssertionError(why)


def python(environment):
    """The interpreter of a virtual environment that `run` has made."""
    return os.environ[f"DEQUANTFS_PYTHON_{environment}"] if environment else sys.executable


def run_child(module, function, limit, environment=""):
    """Run one child; gives its result lines and its output."""
    start = time.monotonic()
    name = f"{module}.{function}"
    code = f"import {module}; {module}.{function}()"
    child = subprocess.Popen(
        [python(environment), "-u", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=limit)
        status = child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, _ = child.communicate()
        status = None
    lines = [x for x in output.splitlines() if x.startswith(("ok   ", "FAIL "))]
    if status is None:
        lines.append(f"FAIL {name}: still running after {limit} s")
    elif status < 0:
        lines.append(f"FAIL {name}: died of {signal.Signals(-status).name}")
    elif status > 0:
        lines.append(f"FAIL {name}: exit status {status}")
    elif not lines:
        lines.append(f"FAIL {name}: checked nothing")
    return name, lines, output, time.monotonic() - start


def run(children, jobs):
    """Run all children, some at a time; print, count, and give the exit status."""
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_child, *c) for c in children]
        for future in concurrent.futures.as_completed(futures):
            name, lines, output, seconds = future.result()
            bad = [x for x in lines if x.startswith("FAIL ")]
            passed, failed = passed + len(lines) - len(bad), failed + len(bad)
            if bad:
                print(output)
            print("\n".join([f"== {name} ({seconds:.1f} s)", *lines]), flush=True)
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)
