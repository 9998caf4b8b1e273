import pytest

from recovar.data.locate import StackLocator, locate_stacks
from recovar.errors import InputError


@pytest.mark.parametrize(
    ("at", "name", "options"),
    [
        ("project/job/a.mrcs", "a.mrcs", {}),
        ("project/a.mrcs", "a.mrcs", {}),
        ("project/Extract/a.mrcs", "Extract/a.mrcs", {}),
        ("project/Extract/a.mrcs", "Extract/a.mrc", {}),
        ("data/Extract/a.mrcs", "Extract/a.mrcs", {"datadir": "data"}),
        ("data/a b.mrcs", "/old/x/a b.mrcs", {"datadir": "data", "strip_prefix": "/old/x"}),
        ("data/deep/er/a.mrc", "/old/x/a.mrcs", {"datadir": "data"}),
        ("project/job/deep/er/a.mrcs", "/old/x/a.mrcs", {}),
        ("project/Extract/a b.mrcs", "Extract\\a b.mrcs", {}),
        ("data/x/a.mrcs", "C:\\old\\x\\a.mrcs", {"datadir": "data"}),
        ("data/x/a.mrcs", "C:\\old\\x\\a.mrcs", {"datadir": "data", "strip_prefix": "C:\\old"}),
        ("project/odd\\name.mrcs", "odd\\name.mrcs", {}),
    ],
)
def test_image_files_are_found(tmp_path, at, name, options):
    (tmp_path / "project/job").mkdir(parents=True)
    (tmp_path / at).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / at).touch()
    if "datadir" in options:
        options = options | {"datadir": tmp_path / options["datadir"]}
    found = StackLocator(tmp_path / "project/job/p.star", **options).find(name)
    assert found == tmp_path / at


def test_a_given_directory_comes_before_all_others(tmp_path):
    (tmp_path / "data").mkdir()
    for place in ("a.mrcs", "data/a.mrcs"):
        (tmp_path / place).touch()
    assert (
        StackLocator(tmp_path / "p.star", tmp_path / "data").find("a.mrcs")
        == tmp_path / "data/a.mrcs"
    )


def test_files_that_share_a_name_are_not_guessed_but_named(tmp_path):
    for place in ("data/1/a.mrcs", "data/2/a.mrcs"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    locator = StackLocator(tmp_path / "p.star", tmp_path / "data")
    with pytest.raises(
        InputError, match=r"image file /x/a.mrcs not found \(1 of 1.*--datadir"
    ) as e:
        locate_stacks(["/x/a.mrcs"], locator)
    assert f"which has 2: {tmp_path}/data/1/a.mrcs, {tmp_path}/data/2/a.mrcs" in str(e.value)


def test_files_that_are_taken_by_name_alone_are_told(tmp_path, caplog):
    (tmp_path / "new").mkdir()
    for name in ("a.mrcs", "new/b.mrcs"):
        (tmp_path / name).touch()
    locate_stacks(["a.mrcs"], StackLocator(tmp_path / "p.star"))
    assert not caplog.text
    found = locate_stacks(["a.mrcs", "/old/b.mrcs"], StackLocator(tmp_path / "p.star"))
    assert found == (tmp_path / "a.mrcs", tmp_path / "new/b.mrcs")
    assert "1 of 2 image files are not where they are said to be" in caplog.text
    assert f"such as {tmp_path}/new/b.mrcs for /old/b.mrcs" in caplog.text


def test_links_are_followed_once(tmp_path):
    """Imports of cryoSPARC are links; a link may lead up, or to itself."""
    (tmp_path / "real/stacks").mkdir(parents=True)
    (tmp_path / "real/stacks/a.mrcs").touch()
    (tmp_path / "job").mkdir()
    (tmp_path / "job/imported").symlink_to(tmp_path / "real")
    (tmp_path / "real/stacks/up").symlink_to(tmp_path / "job")
    (tmp_path / "job/loop.mrcs").symlink_to("loop.mrcs")
    (tmp_path / "job/loop").symlink_to("loop")
    locator = StackLocator(tmp_path / "job/p.cs")
    assert locator.find("/old/a.mrcs") == tmp_path / "job/imported/stacks/a.mrcs"
    assert locator.find("loop.mrcs") is None


def test_a_search_by_name_ends_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("recovar.data.locate._MOST_ENTRIES", 3)
    for number in range(5):
        (tmp_path / f"data/{number}").mkdir(parents=True)
    with pytest.raises(InputError, match=r"\(the first 3 entries of it\), which has 0"):
        locate_stacks(["/x/a.mrcs"], StackLocator(tmp_path / "p.star", tmp_path / "data"))


@pytest.mark.parametrize(
    "name", ["~nobody-here/a.mrcs", "a" * 300 + ".mrcs", "a\0.mrcs", "..", "/"]
)
def test_names_that_no_file_can_have_are_of_none(tmp_path, name):
    assert StackLocator(tmp_path / "p.star").find(name) is None


def test_the_home_directory_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/a.mrcs").touch()
    assert StackLocator(tmp_path / "x/p.star").find("~/a.mrcs") == tmp_path / "home/a.mrcs"


def test_the_message_about_a_missing_stack_is_short_and_tells_what_to_do(tmp_path):
    source = tmp_path / "a/b/c/p.star"
    with pytest.raises(InputError) as caught:
        locate_stacks(["Extract/x.mrcs"], StackLocator(source))
    message = str(caught.value)
    levels = len(source.parent.parents)
    assert f"Extract/x.mrcs in the current directory, {source.parent} with the {levels}" in message
    assert message.count(str(tmp_path)) == 3
    assert all(word in message for word in ("--datadir", "--strip-prefix", "link", "old name"))
    with pytest.raises(InputError, match="data, which has 0") as caught:
        locate_stacks(["/gone/x.mrcs"], StackLocator(source, tmp_path / "data"))
    assert "current directory" not in str(caught.value)


def test_files_that_are_there_twice_are_told(tmp_path, monkeypatch, caplog):
    (tmp_path / "job").mkdir()
    for place in ("a.mrcs", "job/a.mrcs"):
        (tmp_path / place).touch()
    monkeypatch.chdir(tmp_path)
    found = locate_stacks(["a.mrcs"], StackLocator(tmp_path / "job/p.star"))
    assert found[0].samefile("a.mrcs")
    assert "1 of 1 image files are there twice" in caplog.text
    assert "job/a.mrcs is not" in caplog.text
    caplog.clear()
    locate_stacks(["a.mrcs"], StackLocator(tmp_path / "job/p.star", tmp_path / "job"))
    (tmp_path / "job/a.mrcs").unlink()
    (tmp_path / "job/a.mrcs").symlink_to(tmp_path / "a.mrcs")
    locate_stacks(["a.mrcs"], StackLocator(tmp_path / "job/p.star"))
    assert not caplog.text
