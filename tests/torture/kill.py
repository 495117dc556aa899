"""Kills a training again and again and asks whether it comes to what it would have come to.

Any trainer will do, and any other job, that can be started again: its command is run once
undisturbed, and once more with ``kill -9`` to all its processes at random moments, each followed by
a resume. In the command ``{out}`` stands for a folder of its own for each of the two. It ends with
exit code 0 and prints, on its last line, one JSON object; what stands under ``--key`` in it must be
the same.

    python tests/torture/kill.py --kills 20 --key weights_digest \\
        --during '{out}/.work/state/checkpoint.tmp/*' --resume=--resume -- \\
        torchrun --no-python --nproc-per-node 2 recsys-had train frappe_fm --data data/frappe \\
        --out '{out}' --no-tracking --json train.checkpoint_every_steps=20
    python tests/torture/kill.py --kills 20 --key digest --resume= \\
        --during '{out}/.work/state/*.tmp' -- \\
        recsys-had ingest criteo --raw train.txt --out '{out}' --json

The moments lie between ``--after`` and ``--within`` seconds after each start, or the time of the
run left alone: give less than that for more kills than a few, and a run that is long; and for
kills that strike the work and not the start, the seconds that a start takes.

``--during`` names files that exist only while a checkpoint is written: two kills in three wait for
one of them. ``--finished`` names a JSON file that a run leaves when it is over, with the key in it:
a kill that comes after it leaves nothing to go on with. One line is printed for each kill, and a
JSON object at the end; exit code 1 says that the two runs differ.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# No file is waited for longer than this part of an undisturbed run.
_PATIENCE = 0.5
_POLL_S = 0.0005


@dataclass(frozen=True)
class Kill:
    """One kill.

    Args:
        after_s: seconds the process group had run.
        during: the file that lay there when it came; None where none was waited for, or came.
    """

    after_s: float
    during: str | None


def main() -> None:
    """Runs the two trainings and tells whether they are the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--key", default="weights_digest", help="of the JSON object")
    parser.add_argument("--after", type=float, default=0.0, help="seconds after each start")
    parser.add_argument("--within", type=float, help="seconds after each start")
    parser.add_argument("--during", help="glob of files that exist while a checkpoint is written")
    parser.add_argument("--finished", help="JSON file that a run leaves when it is over")
    parser.add_argument("--resume", default="--resume", help="word added to go on; empty for none")
    parser.add_argument("--folder", type=Path, help="for both runs; default: a temporary one")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = torture(
            options.command,
            folder=options.folder or Path(temporary),
            kills=options.kills,
            during=options.during,
            finished=options.finished,
            after=options.after,
            within=options.within,
            resume=options.resume,
            key=options.key,
            luck=random.Random(options.seed),
        )
    print(json.dumps(found))
    sys.exit(0 if found["same"] else 1)


def torture(
    command: list[str],
    *,
    folder: Path,
    kills: int,
    after: float,
    within: float | None,
    during: str | None,
    finished: str | None,
    resume: str,
    key: str,
    luck: random.Random,
) -> dict[str, Any]:
    """The result of a run left alone, of one that was killed, and every kill."""
    begin = time.monotonic()
    whole = _result(_filled(command, folder / "whole"), key)
    seconds = time.monotonic() - begin
    print(f"undisturbed: {seconds:.1f} s, {key} {whole}", flush=True)
    out = folder / "killed"
    words = _filled(command, out)
    told: list[Kill] = []
    last = None
    for number in range(kills):
        watched = during.replace("{out}", str(out)) if during and number % 3 else None
        kill, said = _kill_once(words, watched, (after, within or seconds), luck)
        if kill is None:
            print(f"ended before kill {number + 1}", flush=True)
            last = _read(said, key)
            break
        told.append(kill)
        print(f"kill {number + 1}: {kill}", flush=True)
        if finished and (result := Path(finished.replace("{out}", str(out)))).is_file():
            print(f"over at kill {number + 1}", flush=True)
            last = json.loads(result.read_text())[key]
            break
        words = [*_filled(command, out), *filter(None, [resume])]
    else:
        last = _result(words, key)
    return {
        "same": last == whole,
        "whole": whole,
        "killed": last,
        "kills": len(told),
        "during_a_write": sum(kill.during is not None for kill in told),
        "moments": [asdict(kill) for kill in told],
    }


def _filled(command: list[str], out: Path) -> list[str]:
    return [word.replace("{out}", str(out)) for word in command]


def _result(command: list[str], key: str) -> Any:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"exit code {done.returncode}: {' '.join(command)}")
    return _read(done.stdout, key)


def _read(said: str, key: str) -> Any:
    return json.loads(said.strip().splitlines()[-1])[key]


def _kill_once(
    command: list[str], watched: str | None, between: tuple[float, float], luck: random.Random
) -> tuple[Kill | None, str]:
    """Starts the command and kills it, when the moment comes or the file is there.

    Where it ends before, there is no kill, but what it said.
    """
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        launcher = subprocess.Popen(
            command, stdout=said, stderr=subprocess.DEVNULL, start_new_session=True
        )
        kill = _watch(launcher, begin, watched, between, luck)
        said.seek(0)
        if kill is None and launcher.returncode != 0:
            raise SystemExit(f"exit code {launcher.returncode}: {' '.join(command)}")
        return kill, said.read()


def _watch(
    launcher: "subprocess.Popen[bytes]",
    begin: float,
    watched: str | None,
    between: tuple[float, float],
    luck: random.Random,
) -> Kill | None:
    since = time.time()
    moment = begin + luck.uniform(*between)
    limit = begin + between[1] * (1 + _PATIENCE)
    seen = None
    while launcher.poll() is None:
        now = time.monotonic()
        if watched is not None:
            # From the drawn moment on, the first write is waited for.
            if now >= moment and (seen := _first(watched, since)):
                time.sleep(luck.uniform(0, 0.01))
                break
            if now >= limit:
                break
        elif now >= moment:
            break
        time.sleep(_POLL_S)
    if launcher.poll() is not None:
        return None
    after_s = round(time.monotonic() - begin, 3)
    _kill_all(launcher)
    return Kill(after_s, seen)


def _first(pattern: str, since: float) -> str | None:
    """The name of a file that matches and is written now; an earlier kill may have left others.

    Only the last part of the pattern may hold a wildcard.
    """
    place = Path(pattern)
    for found in place.parent.glob(place.name):
        with contextlib.suppress(FileNotFoundError):
            if found.stat().st_mtime >= since:
                return found.name
    return None


def _kill_all(launcher: "subprocess.Popen[bytes]") -> None:
    """Kills a process and all that came of it, launchers' own sessions too, and waits for them."""
    family: list[int] = []
    # Stopped first, so that none starts another while the others are killed.
    while new := [pid for pid in _family(launcher.pid) if pid not in family]:
        family += new
        for pid in new:
            _send(pid, signal.SIGSTOP)
    for pid in family:
        _send(pid, signal.SIGKILL)
    launcher.wait()
    while any(_is_alive(pid) for pid in family):
        time.sleep(0.005)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _family(pid: int) -> list[int]:
    """A process, its children, their children and so on, as /proc tells."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold anything; the parent is the second word after it.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, ahead = [pid], [pid]
    while ahead:
        ahead = [child for one in ahead for child in children.get(one, ())]
        found += ahead
    return found


def _is_alive(pid: int) -> bool:
    """Whether it runs still; one that waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


if __name__ == "__main__":
    main()
