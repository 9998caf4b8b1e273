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


def test_files_that_share_a_name_are_not_guessed(tmp_path):
    for place in ("data/1/a.mrcs", "data/2/a.mrcs"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    locator = StackLocator(tmp_path / "p.star", tmp_path / "data")
    with pytest.raises(InputError, match=r"image file /x/a.mrcs not found \(1 of 1.*--datadir"):
        locate_stacks(["/x/a.mrcs"], locator)


def test_the_message_about_a_missing_stack_is_short_and_tells_what_to_do(tmp_path):
    source = tmp_path / "a/b/c/p.star"
    with pytest.raises(InputError) as caught:
        locate_stacks(["Extract/x.mrcs"], StackLocator(source))
    message = str(caught.value)
    levels = len(source.parent.parents)
    assert f"Extract/x.mrcs in the current directory, {source.parent} with the {levels}" in message
    assert message.count(str(tmp_path)) == 2
    assert all(word in message for word in ("--datadir", "--strip-prefix", "link", "old name"))
    with pytest.raises(InputError, match="data, which has 0") as caught:
        locate_stacks(["/gone/x.mrcs"], StackLocator(source, tmp_path / "data"))
    assert "current directory" not in str(caught.value)
