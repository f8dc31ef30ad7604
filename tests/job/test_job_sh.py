"""host/job.sh, run here by every shell that is here: by the very commands that go over SSH, past SSH."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qwen_rig.program import Call, Program, load
from qwen_rig.run import job_protocol as jobs
from qwen_rig.run.job_protocol import Answer, Job, read
from tests import HANG_S, until

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
PROGRAM = jobs.program()
OTHER_BOOT = "00000000-0000-0000-0000-000000000000"


def sh(text: str) -> Call:
    return Program(text)()


class Place:
    """A folder with jobs, as a host has one. The controller's commands, but for where root's and users' folders are."""

    def __init__(self, folder: Path, path: str) -> None:
        self.folder, self.jobs = folder / "rig", folder / "rig" / "jobs"
        self.home = folder / "home"
        self.home.mkdir()
        self.env = {"PATH": path, "HOME": str(self.home), "TOKEN": "hf_secret", "ODD": "it's \"two\"\nlines $HOME"}

    def command(self, call: Call) -> list[str]:
        text = call.text.replace(load(jobs.PLACE).text, f"b={self.folder}\n")
        assert text != call.text
        return ["sh", "-c", text]

    def _sh(self, call: Call, stdin: str = "") -> Answer:
        done = subprocess.run(self.command(call), input=call.stdin(stdin), text=True, capture_output=True,
                              env=self.env, timeout=120, umask=0o027)
        answer = read(done.stdout)
        assert answer is not None, (done.stdout, done.stderr)
        return answer

    def start(self, job: Job, run: str, wait: int = 0, since: int = 0) -> Answer:
        command, stdin = jobs.start(job, run, wait, since)
        return self._sh(command, stdin)

    def poll(self, job: Job, run: str, seen: int = 0, wait: int = HANG_S) -> Answer:
        return self._sh(jobs.poll(job, run, seen, wait))

    def journal(self) -> list[list[str]]:
        """(start or end, step, run, boot id or exit code) of each beginning and end."""
        path = self.jobs / "journal"
        return [line.split()[1:] for line in path.read_text().splitlines()] if path.exists() else []

    def began(self) -> list[str]:
        return [row[2] for row in self.journal() if row[0] == "start"]

    def state(self, step: str) -> Path:
        return self.jobs / step / "state"

    def runner(self) -> int:
        """The runner's pid: the leader of the session that `setsid` made."""
        for entry in Path("/proc").iterdir():
            with suppress(ValueError, ProcessLookupError):
                if os.getsid(pid := int(entry.name)) == pid and f"{self.folder}/job.sh supervise" in _cmdline(entry):
                    return pid
        raise AssertionError("no runner")

    def marked(self, run: str) -> list[int]:
        """The processes that bear the mark of a run, here."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                environment = (entry / "environ").read_bytes()  # a zombie's is empty
                if f"QWEN_RIG_JOB={run}\0".encode() in environment and f"HOME={self.home}\0".encode() in environment:
                    found.append(int(entry.name))
        return found


def _cmdline(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture(params=SHELLS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Without systemd-run: as root on a machine with systemd, jobs would be units; tests/e2e has such a host."""
    tools = tmp_path / "bin"
    tools.mkdir()
    if request.param == "busybox":  # its own tools too, as far as it has them: Debian's has no flock and no nice
        subprocess.run([shutil.which("busybox") or "", "--install", "-s", str(tools)], check=True)
    else:
        (tools / "sh").symlink_to(shutil.which(request.param) or "")
    (tools / "systemd-run").symlink_to("/bin/false")
    path = f"{tools}:{os.environ['PATH']}"
    monkeypatch.setattr(jobs, "program", lambda: PROGRAM.replace("/bin/sh", f"{tools}/sh"))
    made = Place(tmp_path, path)
    yield made
    for run in set(made.began()):
        for pid in made.marked(run):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def waits(step: str = "long", stdin: str = "") -> Job:
    """A job that says that it is there and waits for a file in its home."""
    return Job(step, step, sh('echo there; until [ -e "$HOME/go" ]; do sleep 0.1; done; echo gone'), HANG_S, stdin)


def test_a_job_gets_script_input_and_environment_whole(place: Place) -> None:
    text = "line with 'quotes', \"more\", $dollars, back\\slashes, ünïcode\n" * 5000
    prints = sh('cat >input; printf %s "$ODD" >odd; umask >mask; echo "it\'s «done» \\$x"')
    job = Job("env", "Env", prints, HANG_S, text)
    end = place.start(job, "r1", wait=HANG_S)
    assert (end.state, end.code, end.run, end.key) == ("done", 0, "r1", job.key), end
    assert end.lines == ("it's «done» $x",) or end.lines == ("it's done $x",), "without iconv: ASCII"
    assert (place.home / "input").read_text() == text
    assert (place.home / "odd").read_text() == place.env["ODD"]
    assert (place.home / "mask").read_text().strip().endswith("27"), "the umask of who asked"
    assert place.journal() == [["start", "env", "r1", place.journal()[0][3]], ["end", "env", "r1", "0"]]


def test_a_program_gets_its_arguments_as_they_are(place: Place) -> None:
    odd = ["it's \"two\"\nlines $HOME `id` \\n", "", "trailing\n\n", "--", "a=b", "* ünï"]
    prints = Program('printf "%s|" $# "$@" "$one" "$two" >got; cat >input; printf "%s." ${words-unset} >left')
    job = Job("env", "Env", prints(*odd, one="$(id); 'x'\n", two=""), 60, "in\nput\n")
    assert place.start(job, "r1", wait=60).code == 0
    assert (place.home / "got").read_text() == "|".join(["6", *odd, "$(id); 'x'\n", "", ""])
    assert (place.home / "input").read_text() == "in\nput\n" and (place.home / "left").read_text() == "unset."


def test_a_failure_is_an_end_with_its_code_and_last_words(place: Place) -> None:
    end = place.start(Job("env", "Env", sh("echo 'no room' >&2\nfalse\necho never"), HANG_S), "r1", wait=HANG_S)
    assert (end.state, end.code, end.lines) == ("done", 1, ("no room",))
    assert place.poll(Job("env", "Env", sh(""), 1), "r1").code == 1, "as often as it is asked"


def test_one_job_however_many_start_it(place: Place) -> None:
    job, answers = waits(), []
    threads = [threading.Thread(target=lambda n=n: answers.append(place.start(job, f"r{n}"))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.state for answer in answers} == {"running"}
    assert len({answer.run for answer in answers}) == 1, "all attached to one"
    run = answers[0].run
    (place.home / "go").touch()
    assert {place.poll(job, run).state for _ in range(3)} == {"done"}
    assert place.began() == [run]


def test_a_start_whose_answer_was_lost_is_sent_again_and_starts_nothing(place: Place) -> None:
    job = waits()
    assert place.start(job, "r1").state == "running"
    assert place.start(job, "r1").state == "running"
    (place.home / "go").touch()
    assert place.poll(job, "r1").state == "done"
    again = place.start(job, "r1", wait=HANG_S)
    assert (again.state, again.code, place.began()) == ("done", 0, ["r1"])


def test_the_same_job_done_since_is_not_done_again(place: Place) -> None:
    job, before = Job("env", "Env", sh("true"), HANG_S), int(time.time()) - 1
    assert place.start(job, "r1", HANG_S).state == "done"
    assert place.start(job, "r2", HANG_S, since=before).run == "r1", "done by another after we had looked"
    late = int(time.time()) + 1
    assert place.start(job, "r3", HANG_S, since=late).run == "r3", "done before we looked: it was in vain"
    assert place.start(Job("env", "Env", sh("false"), HANG_S), "r4", HANG_S, since=before).code == 1, "another job"
    assert place.start(Job("env", "Env", sh("false"), HANG_S), "r5", HANG_S, since=before).run == "r5", "it had failed"
    assert place.began() == ["r1", "r3", "r4", "r5"]


def test_another_job_of_the_step_is_not_disturbed(place: Place) -> None:
    assert place.start(waits(), "r1").state == "running"
    other = place.start(Job("long", "Long", sh("true"), HANG_S), "r2")
    assert (other.state, other.run, place.began()) == ("busy", "r1", ["r1"])
    assert place.start(Job("else", "Else", sh("true"), HANG_S), "r3", wait=HANG_S).state == "done", "steps are apart"
    (place.home / "go").touch()
    assert place.poll(waits(), "r1").state == "done"
    assert place.start(Job("long", "Long", sh("true"), HANG_S), "r2", wait=HANG_S).code == 0


def test_out_of_time_ends_all_of_it(place: Place) -> None:
    job = Job("long", "Long", sh("setsid sh -c 'sleep 77; :' & sleep 77; echo never"), 1)
    end = place.start(job, "r1", wait=HANG_S)
    assert (end.state, end.code, end.lines, end.limit) == ("done", 124, (), 1)
    assert place.marked("r1") == [], "also what had left the process group"


def test_a_killed_runner_is_an_abort_and_the_next_start_clears_up(place: Place) -> None:
    job = waits(stdin="never read\n" * 20000)
    place.start(job, "r1")
    until(lambda: place.poll(job, "r1", wait=0).lines)
    os.kill(place.runner(), signal.SIGKILL)
    gone = place.poll(job, "r1")
    assert (gone.state, gone.why) == ("aborted", "killed")
    assert place.marked("r1"), "its work goes on without it: that must end first"
    (place.home / "go").touch()
    end = place.start(job, "r2", wait=HANG_S)
    assert (end.state, end.code, end.lines) == ("done", 0, ("there", "gone"))
    assert place.marked("r1") == [] and place.began() == ["r1", "r2"]


def test_a_shutdown_is_no_end_of_its_own(place: Place) -> None:
    job = waits()
    place.start(job, "r1")
    until(lambda: place.poll(job, "r1", wait=0).lines)
    os.kill(place.runner(), signal.SIGTERM)
    assert place.poll(job, "r1").state == "aborted"
    assert place.marked("r1") == [] and place.journal()[-1][0] == "start"
    state = place.state("long")
    state.write_text("".join(f"boot={OTHER_BOOT}\n" if line.startswith("boot=") else f"{line}\n"
                             for line in state.read_text().splitlines()))
    gone = place.poll(job, "r1")
    assert (gone.state, gone.why) == ("aborted", "reboot")
    with state.open("a") as file:  # a shutdown's signals may end a job before its runner
        file.write("ended=1\ncode=143\n")
    assert place.poll(job, "r1").state == "aborted"
    state.write_text(state.read_text().replace("code=143", "code=0"))
    assert place.poll(job, "r1").state == "done", "what was done before the reboot is done"


def test_the_log_is_told_by_pages(place: Place) -> None:
    script = ("printf 'a\\377b\\n'; printf '1%%\\r50%%\\r100%%\\r\\n'; i=0; while [ $i -lt 500 ]; "
              "do i=$((i + 1)); echo $i; done; printf 'no newline'")
    job = Job("log", "Log", sh(script), HANG_S)
    end = place.start(job, "r1", wait=HANG_S)
    assert end.to == 503 and end.lines[-2:] == ("500", "no newline") and len(end.lines) == 400, "the last, at most"
    assert place.poll(job, "r1", seen=501).lines == ("500", "no newline")[-2:]
    assert place.poll(job, "r1", seen=503).lines == ()
    (place.jobs / "log" / "log").write_bytes(b"a\377b\n1%\r50%\r100%\r\n")
    assert place.poll(job, "r1").lines == ("ab", "100%"), "UTF-8 only, and a progress bar's last picture"
    place.start(Job("log", "Log", sh("echo new"), HANG_S), "r2", wait=HANG_S)
    assert (place.jobs / "log" / "log.1").exists(), "one older log is kept"


def test_half_a_script_never_runs(place: Place) -> None:
    job = Job("env", "Env", sh("touch ran"), HANG_S, "input")
    call, stdin = jobs.start(job, "r1", HANG_S)
    for cut in (stdin[:-3], stdin[: stdin.index("\n") + 9]):
        answer = place._sh(call, cut)
        assert (answer.state, answer.why) == ("error", "the job's script came incomplete")
    before = (place.folder / "job.sh").read_bytes()
    half = subprocess.run(place.command(call), input=call.stdin(stdin[:400]), text=True, env=place.env)
    assert half.returncode != 0 and (place.folder / "job.sh").read_bytes() == before, "nor is half a program installed"
    assert not (place.home / "ran").exists() and not place.began()


def test_a_run_that_nobody_knows_and_a_host_without_jobs(place: Place) -> None:
    assert place.poll(waits(), "r0").state == "gone"
    place.start(Job("long", "Long", sh("true"), HANG_S), "r1", wait=HANG_S)
    assert place.poll(waits(), "r0").state == "gone"


def test_an_end_is_known_when_another_has_begun_since(place: Place) -> None:
    place.start(Job("env", "Env", sh("echo mine; exit 3"), HANG_S), "r1", wait=HANG_S)
    place.start(Job("env", "Env", sh("echo theirs"), HANG_S), "r2", wait=HANG_S)
    late = place.poll(Job("env", "Env", sh(""), HANG_S), "r1")
    assert (late.state, late.run, late.code, late.lines) == ("done", "r1", 3, ()), "not the other's log"


def test_nothing_secret_is_written(place: Place) -> None:
    reads = Program('read -r x; : "pw-in-script"; touch "$HOME/read"; until [ -e "$HOME/go" ]; do sleep 0.1; done')
    job = Job("env", "Env", reads("pw-in-word", name="pw-in-variable"), HANG_S, "pw-in-input\n" * 9000)
    place.start(job, "r1")
    until((place.home / "read").exists)
    secrets = [b"hf_secret", b"pw-in-script", b"pw-in-input", b"pw-in-word", b"pw-in-variable"]
    secrets += [base64.b64encode(b"x" * n + s)[4:-4] for s in secrets for n in range(3)]
    for path in filter(Path.is_file, place.folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, "others can't read it"
        assert not [s for s in secrets if s in path.read_bytes()], path
    for entry in Path("/proc").iterdir():  # command lines are for all to see
        assert not [s for s in secrets if s.decode() in _cmdline(entry)]
    (place.home / "go").touch()
    assert place.poll(job, "r1").code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk that is full takes a mount, and root")
def test_a_full_disk_is_told_and_costs_no_end(place: Place) -> None:
    place.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "small", str(place.folder)], check=True)
    try:
        fills = Job("env", "Env", sh(f"cat /dev/zero >{place.folder}/fill"), HANG_S)
        end = place.start(fills, "r1", wait=HANG_S)
        assert end.state == "done" and end.code not in (0, None), end
        refused = place.start(Job("env", "Env", sh("true"), HANG_S), "r2", wait=HANG_S)
        assert refused.state == "error" and "No space left" in refused.why and place.began() == ["r1"]
    finally:
        subprocess.run(["umount", "-l", str(place.folder)], check=True)


def test_temporary_files_are_gone_with_the_job_and_a_killed_ones_with_the_next(place: Place) -> None:
    """Also those of another step's."""
    place.env["TMPDIR"] = str(place.folder.parent)
    say = 'echo "$TMPDIR"; : >"$(mktemp)"; ls "$TMPDIR" | wc -l'
    end = place.start(Job("env", "Env", sh(say), HANG_S), "r1", wait=HANG_S)
    assert Path(end.lines[0]).parent == place.folder.parent and end.lines[1].strip() == "1", end
    assert not Path(end.lines[0]).exists() and not place.state("env").with_name("scratch").exists()
    job = Job("verify", "Verify", sh(f"{say}; sleep {HANG_S}"), HANG_S)
    place.start(job, "r2")
    left = Path(until(lambda: place.poll(job, "r2", wait=0).lines)[0])
    for pid in (place.runner(), *place.marked("r2")):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert place.poll(job, "r2").state == "aborted" and left.exists()
    place.start(Job("env", "Env", sh("true"), HANG_S), "r3", wait=HANG_S)
    assert not left.exists()
