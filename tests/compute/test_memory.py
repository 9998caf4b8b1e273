import pytest

from recovar.compute import memory
from recovar.compute.memory import batch_size, default_budget, parse_bytes, peak_rss
from recovar.errors import InputError


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("4GB", 4 * 10**9),
        ("4g", 4 * 10**9),
        (" 1.5 GiB ", 3 * 2**29),
        ("800M", 8 * 10**8),
        ("64 kib", 2**16),
        ("123", 123),
        ("123 B", 123),
    ],
)
def test_amounts_of_memory_are_read_as_people_write_them(text, amount):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "much", "GB", "-1GB", "0", "1e400", "4 giraffes", "4IB"])
def test_nonsense_amounts_are_refused_with_an_example(text):
    with pytest.raises(InputError, match="such as 4GB"):
        parse_bytes(text)


def test_the_default_budget_leaves_some_free_memory():
    assert 0 < default_budget() < memory.available_memory() * 0.95


def test_peak_memory_never_sinks():
    before = peak_rss()
    block = bytearray(before + 10**7)
    block[:: 2**12] = b"x" * len(block[:: 2**12])
    held = peak_rss()
    del block
    assert held > before
    assert peak_rss() >= held


def test_a_batch_fills_the_budget_but_no_more():
    size = batch_size(bytes_per_image=1000, budget=50_000, fixed=20_500)
    assert 20_500 + size * 1000 <= 50_000 < 20_500 + (size + 1) * 1000


def test_a_batch_has_an_upper_limit():
    assert batch_size(bytes_per_image=1, budget=10**9, most=64) == 64


def test_a_budget_too_small_for_one_image_is_refused():
    with pytest.raises(InputError, match=r"at least 1\.5 MB of memory.*got 1 MB"):
        batch_size(bytes_per_image=500_000, budget=10**6, fixed=10**6)


def make_group(place, limit, used, cached, names=("memory.max", "memory.current", "inactive_file")):
    place.mkdir(parents=True, exist_ok=True)
    (place / names[0]).write_text(f"{limit}\n")
    (place / names[1]).write_text(f"{used}\n")
    (place / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


def test_the_limit_of_a_batch_job_counts_without_cached_files(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job_7/step_0\n")
    make_group(tmp_path / "sys/fs/cgroup/job_7", 1000, 700, 600)
    make_group(tmp_path / "sys/fs/cgroup/job_7/step_0", "max", 700, 600)
    assert memory._room_in_groups(tmp_path) == [900]


def test_the_older_control_groups_count_too(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:cpu,cpuacct:/x\n9:memory:/job_7\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    make_group(tmp_path / "sys/fs/cgroup/memory/job_7", 1000, 700, 100, names)
    assert memory._room_in_groups(tmp_path) == [400]


def test_a_machine_without_control_groups_has_no_such_limit(tmp_path):
    assert memory._room_in_groups(tmp_path) == []
