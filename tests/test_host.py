"""The cache of compiled programs: its folder, when there is none, and its effect."""

import os
import subprocess
import sys
import types

import pytest

from metaseg import host

VARIABLES = (
    "METASEG_CACHE",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


class Config(types.SimpleNamespace):
    """Stands for `jax.config`."""

    def update(self, name, value):
        setattr(self, name, value)


@pytest.fixture
def config(monkeypatch):
    """The config of a jax that has no cache yet, in an environment that names none."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    config = Config(jax_compilation_cache_dir=None)
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(config=config))
    return config


def test_programs_go_to_the_folder_of_the_variable(config, monkeypatch, tmp_path):
    monkeypatch.setenv("METASEG_CACHE", str(tmp_path / "here"))
    folder = host.cache_compiled_programs()
    assert folder.parent == tmp_path / "here"
    assert config.jax_compilation_cache_dir == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_programs_go_to_the_users_cache_by_default(config, monkeypatch, tmp_path):
    monkeypatch.setattr(host.platformdirs, "user_cache_path", lambda name: tmp_path)
    assert host.cache_compiled_programs().parent == tmp_path


def test_a_cache_can_be_turned_off(config, monkeypatch):
    monkeypatch.setenv("METASEG_CACHE", "off")
    assert host.cache_compiled_programs() is None
    assert config.jax_compilation_cache_dir is None


def test_a_cache_of_the_user_stays(config, tmp_path):
    config.jax_compilation_cache_dir = str(tmp_path)
    assert host.cache_compiled_programs() is None
    assert config.jax_compilation_cache_dir == str(tmp_path)


def test_a_folder_that_cannot_be_made_is_no_cache(config, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METASEG_CACHE", str(tmp_path / "file" / "below"))
    assert host.cache_compiled_programs() is None
    assert config.jax_compilation_cache_dir is None


def test_the_files_used_longest_ago_are_deleted(tmp_path):
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    host._delete_oldest(tmp_path, 35, 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
    host._delete_oldest(tmp_path, 35, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_second_process_loads_the_program_and_computes_the_same_bits(tmp_path):
    code = (
        "from metaseg import host; print(host.cache_compiled_programs()); import jax; "
        "f = jax.jit(lambda x: jax.numpy.tanh(x) @ x); x = jax.numpy.ones((9, 9)) / 7; "
        "print(jax.device_get(f(x)).tobytes().hex())"
    )
    kept = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    environment = kept | {
        "METASEG_CACHE": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def run(**changes):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | changes,
            capture_output=True,
            text=True,
            check=True,
        )
        files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
        return done.stdout.split()[-1], files

    first, stored = run()
    assert any(name.startswith("jit__lambda") for name in stored)
    assert run() == (first, stored)
    assert run(METASEG_CACHE="off") == (first, stored)


@pytest.fixture
def unset(monkeypatch):
    """An environment that names no devices, on eight cores, before jax is imported."""
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setattr(host, "_cores", lambda: 8)
    yield
    os.environ.pop("JAX_NUM_CPU_DEVICES", None)


@pytest.mark.parametrize(
    ("batch_size", "count"),
    [(64, 8), (16, 8), (12, 6), (10, 5), (6, 3), (7, 1), (1, 1)],
)
def test_a_batch_is_split_evenly_with_two_examples_on_each_device(
    unset, batch_size, count
):
    assert host.split_processor(batch_size) == count
    assert os.environ["JAX_NUM_CPU_DEVICES"] == str(count)


def test_as_many_devices_as_asked_for(unset):
    assert host.split_processor(16, devices=3) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_NUM_CPU_DEVICES", "5"),
        ("XLA_FLAGS", "--xla_force_host_platform_device_count=5"),
    ],
)
def test_devices_that_the_user_set_up_stay(unset, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    assert host.split_processor(16) is None
    assert dict(os.environ) == before


def test_jax_sees_the_devices():
    script = (
        "from metaseg import host; import jax; host.split_processor(4, devices=3); "
        "print(jax.device_count(), host.split_processor(4, devices=2))"
    )
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["3", "None"]
