"""The launchers with every outside program replaced, and the manifests as data."""

import importlib.metadata
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = ("tpu_pod.sh", "slurm.sbatch")
MANIFESTS = ("kubernetes-gpu.yaml", "kubernetes-tpu.yaml")
CONFIG = "--config=configs/cell_flip.py"
PLACE = ("--project=p", "--zone=z", "--name=cells")
KIND = ("--type=v5litepod-16", "--runtime=v2-alpha-tpuv5-lite", "--workdir=gs://b/w")
RUN = (*PLACE, *KIND)

# Stands for gcloud: `state` is that of the TPU, each run takes a line of `statuses`.
GCLOUD = """\
case "$*" in
  *' list '*) cat state 2>/dev/null || true ;;
  *' create '*) echo ACTIVE >state ;;
  *' delete '*) rm -f state ;;
  *main.py*)
    status=$(head -n 1 statuses) && sed -i 1d statuses
    case $status in 75 | 255) echo SUSPENDED >state ;; esac
    exit "$status" ;;
esac
"""


@pytest.fixture
def fakes(tmp_path):
    """A folder of programs that note how they are called, first on PATH."""
    bodies = {
        "gcloud": GCLOUD,
        "git": "",
        "sleep": "",
        "srun": "exit $(cat status)",
        "scancel": "",
        "scontrol": "",
        "squeue": "cat state",
    }
    (tmp_path / "bin").mkdir()
    for name, body in bodies.items():
        program(tmp_path, name, body)
    return tmp_path


def program(fakes, name, body):
    path = fakes / "bin" / name
    path.write_text(f'#!/bin/bash\ncd {fakes}\necho "{name} $*" >>called\n{body}\n')
    path.chmod(0o755)


def command(script, *arguments):
    return ["bash", str(LAUNCH / script), *arguments]


def environment(fakes, **variables):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    path = f"{fakes / 'bin'}:{kept['PATH']}"
    return kept | {"PATH": path, "TMPDIR": str(fakes)} | variables


def launch(fakes, script, *arguments, **variables):
    return subprocess.run(
        command(script, *arguments),
        cwd=fakes,
        env=environment(fakes, **variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def called(fakes, pattern=""):
    path = fakes / "called"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if re.search(pattern, line)]


# Both scripts


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_valid_bash(script):
    subprocess.run(["bash", "-n", str(LAUNCH / script)], check=True)


# Its licence (GPL-3) keeps it out of what we install: `apt install shellcheck`.
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    subprocess.run(["shellcheck", str(LAUNCH / script)], check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_option(script, fakes):
    text = (LAUNCH / script).read_text()
    parsed = set(re.findall(r"(--[a-z_]+)(?:=\*|\) )", text))
    done = launch(fakes, script, "--help")
    assert done.returncode == 0
    assert len(parsed) >= 5
    assert {option for option in parsed if option not in done.stdout} == set()


@pytest.mark.parametrize(
    ("script", "arguments", "named"),
    [
        ("tpu_pod.sh", [], "no command"),
        ("tpu_pod.sh", ["up", *RUN[1:]], "--project: not given"),
        ("tpu_pod.sh", ["up", RUN[0], *RUN[2:]], "--zone: not given"),
        ("tpu_pod.sh", ["down", *PLACE[:2]], "--name: not given"),
        ("tpu_pod.sh", ["up", *PLACE], "--type: not given"),
        ("tpu_pod.sh", ["fetch", *PLACE, "--workdir=gs://b/w"], "--results: not given"),
        ("tpu_pod.sh", ["run", *PLACE, *KIND[:2], "--workdir=w"], "got 'w'"),
        ("tpu_pod.sh", ["run", *RUN], "--config: not given"),
        ("tpu_pod.sh", ["run", *RUN, "--restarts=x", "--", CONFIG], "--restarts: got"),
        ("tpu_pod.sh", ["up", *RUN, "--spots"], "'--spots': unknown"),
        ("tpu_pod.sh", ["up", "down", *RUN], "'down': expected one command"),
        ("slurm.sbatch", [], "--config: not given"),
        ("slurm.sbatch", [CONFIG], "--workdir: not given"),
        ("slurm.sbatch", [CONFIG, "--workdir=w", "x"], "'x': expected flags only"),
        ("slurm.sbatch", [CONFIG, "--workdir=w", "--sweep=no"], "no file 'no'"),
        ("slurm.sbatch", [CONFIG, "--workdir=w", "--restarts=-1"], "--restarts: got"),
        ("slurm.sbatch", [CONFIG, "--workdir=w"], "no Slurm job"),
    ],
)
def test_wrong_use_gets_one_line_and_status_2(script, arguments, named, fakes):
    done = launch(fakes, script, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
    assert called(fakes) == []


# TPU pods


def test_a_dry_run_prints_the_commands_in_order_and_runs_none(fakes):
    before = sorted(fakes.rglob("*"))
    arguments = ("all", *RUN, "--spot", "--results=out", "--dry_run", "--", CONFIG)
    done = launch(fakes, "tpu_pod.sh", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    steps = re.findall(r"^\+ (.*)", done.stdout, flags=re.MULTILINE)
    expected = (
        "git .* archive ",
        "queued-resources list ",
        "queued-resources create cells .*--spot ",
        "queued-resources list ",
        "tpu-vm scp .* cells:metaseg.tgz --worker=all ",
        "tpu-vm ssh cells --worker=all ",
        "tpu-vm ssh cells --worker=all ",
        "mkdir -p out",
        "gcloud storage rsync gs://b/w out --recursive ",
        "queued-resources delete cells ",
    )
    assert len(steps) == len(expected)
    for step, pattern in zip(steps, expected, strict=True):
        assert re.search(pattern, step)
    assert sorted(fakes.rglob("*")) == before


def test_the_hosts_get_valid_bash_and_the_very_flags(fakes):
    odd = "--config.data.dir=it's a $HOME; dir"
    done = launch(fakes, "tpu_pod.sh", "run", *RUN, "--dry_run", "--", CONFIG, odd)
    remote = next(
        word.partition("=")[2]
        for word in shlex.split(done.stdout)
        if word.startswith("--command=") and "main.py" in word
    )
    subprocess.run(["bash", "-n", "-c", remote], check=True)
    words = shlex.split(remote.splitlines()[-1])
    at = words.index("experiments/main.py")
    assert words[at + 1 :] == ["--distributed", CONFIG, odd, "--workdir=gs://b/w"]


@pytest.mark.parametrize(
    ("statuses", "result", "runs", "created"),
    [
        ([0], 0, 1, 1),
        ([75, 255, 0], 0, 3, 3),  # preempted twice: two more TPUs
        ([76, 134, 0], 0, 3, 1),  # a host was lost, the TPU is still there
        ([2, 0], 2, 1, 1),
        ([1, 0], 1, 1, 1),
        ([75, 75, 75, 0], 75, 3, 3),
    ],
)
def test_a_run_goes_on_after_preemption_and_the_tpu_is_given_back(
    statuses, result, runs, created, fakes
):
    (fakes / "statuses").write_text("".join(f"{status}\n" for status in statuses))
    arguments = (*RUN, "--results=out", "--restarts=2", "--", CONFIG)
    done = launch(fakes, "tpu_pod.sh", "all", *arguments)
    assert done.returncode == result
    assert len(called(fakes, "exec .*main.py")) == runs
    assert len(called(fakes, "queued-resources create")) == created
    assert len(called(fakes, "rsync")) == (result == 0)
    assert not (fakes / "state").exists()


def test_a_tpu_that_is_there_is_taken_and_kept(fakes):
    (fakes / "state").write_text("ACTIVE\n")
    assert launch(fakes, "tpu_pod.sh", "up", *RUN).returncode == 0
    assert called(fakes, "create|delete") == []


# Slurm


def dry_run(fakes, *arguments, **variables):
    arguments = ("--dry_run", CONFIG, "--workdir=w", *arguments)
    done = launch(fakes, "slurm.sbatch", *arguments, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert called(fakes) == []
    return [shlex.split(line) for line in done.stdout.splitlines()]


MAIN = ("srun", "--kill-on-bad-exit=0", ".venv/bin/python", "experiments/main.py")


def test_one_process_runs_alone_and_many_are_distributed(fakes):
    flags = [CONFIG, "--config.seed=3", "--workdir=w"]
    assert dry_run(fakes, "--config.seed=3") == [[*MAIN, *flags]]
    many = dry_run(fakes, "--config.seed=3", SLURM_NTASKS="16")
    assert many == [[*MAIN, "--distributed", *flags]]
    other = dry_run(fakes, METASEG_COMMAND="apptainer exec x.sif python main.py")
    assert other[0][2:7] == ["apptainer", "exec", "x.sif", "python", "main.py"]


def test_an_array_task_takes_its_line_of_the_sweep(fakes):
    sweep = fakes / "sweep.txt"
    sweep.write_text("--config.seed=1\n--config.seed=2 --config.noise.rate=0.9\n")
    first = [*MAIN, CONFIG, "--config.seed=1", "--workdir=w/1"]
    overrides = ["--config.seed=2", "--config.noise.rate=0.9"]
    second = [*MAIN, CONFIG, *overrides, "--workdir=w/2"]
    option = f"--sweep={sweep}"
    assert dry_run(fakes, option) == [first, second]
    assert dry_run(fakes, option, SLURM_ARRAY_TASK_ID="2") == [second]
    done = launch(
        fakes,
        "slurm.sbatch",
        *(option, "--dry_run", CONFIG, "--workdir=w"),
        SLURM_ARRAY_TASK_ID="3",
    )
    assert done.returncode == 2
    assert done.stderr == f"error: --sweep: '{sweep}' has nothing on line 3\n"


@pytest.mark.parametrize(
    ("status", "tasks", "state", "restarts_so_far", "again"),
    [
        (75, "1", "RUNNING", "19", True),
        (75, "1", "RUNNING", "20", False),
        (75, "1", "COMPLETING", "0", False),  # cancelled by its owner
        (76, "2", "RUNNING", "19", True),  # another process was lost
        (137, "2", "RUNNING", "19", True),  # the one that was killed
        (76, "2", "RUNNING", "20", False),
        (137, "1", "RUNNING", "0", False),
        (2, "2", "RUNNING", "0", False),
        (1, "2", "RUNNING", "0", False),
        (0, "2", "RUNNING", "0", False),
    ],
)
def test_a_job_is_queued_again_only_if_it_saved_or_lost_a_process(
    status, tasks, state, restarts_so_far, again, fakes
):
    (fakes / "status").write_text(str(status))
    (fakes / "state").write_text(state)
    done = launch(
        fakes,
        "slurm.sbatch",
        CONFIG,
        "--workdir=w",
        SLURM_JOB_ID="7",
        SLURM_NTASKS=tasks,
        SLURM_RESTART_COUNT=restarts_so_far,
    )
    requeued = called(fakes, "scontrol")
    assert requeued == (["scontrol requeue 7"] if again else [])
    assert again or done.returncode == status


def test_a_signal_before_the_time_limit_reaches_the_processes_which_end_first(fakes):
    program(
        fakes,
        "srun",
        "until [ -e interrupted ]; do /bin/sleep 0.05; done\n"
        "/bin/sleep 0.3\necho saved >>called\nexit 75",
    )
    program(fakes, "scancel", "touch interrupted")
    (fakes / "state").write_text("RUNNING")
    job = subprocess.Popen(
        command("slurm.sbatch", CONFIG, "--workdir=w"),
        cwd=fakes,
        env=environment(fakes, SLURM_JOB_ID="7"),
        stdout=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 30
    while not called(fakes, "srun") and time.monotonic() < limit:
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    job.wait(timeout=30)
    assert called(fakes)[1:] == [
        "scancel --quiet --signal=TERM 7",
        "saved",
        "squeue --noheader --format=%T --jobs=7",
        "scontrol requeue 7",
    ]


# Kubernetes


def documents(name):
    return list(yaml.safe_load_all((LAUNCH / name).read_text()))


@pytest.mark.parametrize("name", [*MANIFESTS, "kubernetes-volume.yaml"])
def test_a_manifest_has_only_fields_that_kubernetes_knows(name):
    for document in documents(name):
        for version in ("1.29", "1.37"):
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_processes_of_a_manifest_find_each_other(name):
    service, job = documents(name)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    flags = dict(flag[2:].split("=", 1) for flag in container["args"])
    (port,) = service["spec"]["ports"]
    title = job["metadata"]["name"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": title}
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["name"] == pod["subdomain"]
    assert flags["coordinator"] == f"{title}-0.{pod['subdomain']}:{port['port']}"
    assert [p["containerPort"] for p in container["ports"]] == [port["port"]]
    assert job["spec"]["completionMode"] == "Indexed"
    assert flags["process_id"] == "$(JOB_COMPLETION_INDEX)"
    count = job["spec"]["completions"]
    assert (job["spec"]["parallelism"], int(flags["num_processes"])) == (count, count)


@pytest.mark.parametrize("name", MANIFESTS)
def test_exit_codes_of_a_manifest_mean_what_main_means(name):
    _, job = documents(name)
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    actions = {}
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {})
        if codes:
            assert codes["containerName"] == pod["containers"][0]["name"]
            assert codes["operator"] == "In"
        for code in codes.get("values", ()):
            actions[code] = rule["action"]
        for condition in rule.get("onPodConditions", ()):
            actions[condition["type"]] = rule["action"]
    assert actions == {2: "FailJob", 75: "Ignore", "DisruptionTarget": "Ignore"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_work_folder_of_a_manifest_is_on_the_claimed_disk(name):
    (claim,) = documents("kubernetes-volume.yaml")
    pod = documents(name)[1]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    disks = {v["name"]: v.get("persistentVolumeClaim") for v in pod["volumes"]}
    assert set(mounts) == set(disks)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (disk,) = (name for name, claimed in disks.items() if claimed)
    assert disks[disk]["claimName"] == claim["metadata"]["name"]
    assert f"--workdir={mounts[disk]}/" in " ".join(container["args"])


# Docker


def instructions():
    text = re.sub(r"\\\n", " ", (LAUNCH / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_the_image_holds_what_it_needs_and_docker_is_sent_nothing_else():
    copied = [
        source
        for name, rest in instructions()
        if name == "COPY"
        for source in rest.split()[:-1]
    ]
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert sorted(copied) == sorted(rule[1:] for rule in rules if rule[:1] == "!")
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert "*" in rules
    assert {"metaseg", "configs", "experiments"} <= set(copied)


def test_the_image_has_all_that_the_installation_reads():
    steps = [rest for name, rest in instructions() if name in ("COPY", "RUN")]
    install = next(i for i, rest in enumerate(steps) if "pip install" in rest)
    copied = {word for rest in steps[:install] for word in rest.split()[:-1]}
    text = (ROOT / "setup.py").read_text()
    packages = set(re.findall(r'package_dir=\{"[\w.]+": "(\w+)"\}', text))
    assert packages == {"configs"}
    assert packages | {"metaseg", "setup.py", "README.md", "LICENSE"} <= copied


def test_the_image_pins_what_it_installs_for_every_extra():
    (install,) = (rest for name, rest in instructions() if "pip install" in rest)
    assert "--constraint requirements.lock" in install
    (choice,) = re.findall(r"(\S+ \| \S+)\) extra=", install)
    known = importlib.metadata.metadata("metaseg-jax").get_all("Provides-Extra")
    assert set(choice.split(" | ")) <= set(known)


def test_the_image_runs_main_as_an_ordinary_user():
    names = [name for name, _ in instructions()]
    rest = dict(instructions())
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert rest["USER"] not in ("root", "0")
    assert rest["ENTRYPOINT"] == '["python", "experiments/main.py"]'
