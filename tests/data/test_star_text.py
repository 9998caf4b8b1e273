"""Rows taken out of STAR files with every byte that they have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.data.star_blocks import read_star
from recovar.data.star_text import read_star_text
from recovar.errors import InputError

ODD = """# made by hand

data_optics # microscopes

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
  1   'first one'    300.000
 07\t"it's second" 200
3 third 200

data_general
_rlnFlag 1

data_particles

loop_   # with a comment
_rlnImageName #1
  _rlnOpticsGroup    #2
_rlnMicrographName #3
_rlnClassNumber #4
   000001@a.mrcs      1   'mic # 1.mrc'    4  
\t2@a.mrcs 7.0 "mic 'two'.mrc" 5 # seen twice
# about the next one
  000003@a.mrcs    1  mic3#x.mrc     6

  000004@b.mrcs    7  it's.mrc     6
"""  # noqa: W291
ROWS = [
    b"   000001@a.mrcs      1   'mic # 1.mrc'    4  \n",
    b"\t2@a.mrcs 7.0 \"mic 'two'.mrc\" 5 # seen twice\n",
    b"# about the next one\n  000003@a.mrcs    1  mic3#x.mrc     6\n",
    b"\n  000004@b.mrcs    7  it's.mrc     6\n",
]


def written(tmp_path, text=ODD, ends="\n"):
    path = tmp_path / "odd.star"
    path.write_bytes(text.replace("\n", ends).encode())
    return path


def select(path, rows, **edits):
    return b"".join(read_star_text(path).select(np.array(rows), edits))


@given(rows=st.lists(st.sampled_from(range(4)), unique=True, min_size=1), crlf=st.booleans())
def test_rows_keep_their_bytes_and_all_else_stays(tmp_path_factory, rows, crlf):
    ends = "\r\n" if crlf else "\n"
    path = written(tmp_path_factory.mktemp("star"), ends=ends)
    raw = path.read_bytes()
    kept = b"".join(ROWS[row].replace(b"\n", ends.encode()) for row in rows)
    head = raw[: raw.index(ROWS[0].rstrip())]
    for group, line in ((1, "  1   'first one'    300.000\n"), (7, ' 07\t"it\'s second" 200\n')):
        if not any(group == (1, 7, 1, 7)[row] for row in rows):
            head = head.replace(line.replace("\n", ends).encode(), b"")
    head = head.replace(f"3 third 200{ends}".encode(), b"")
    assert select(path, rows) == head + kept


def test_a_file_without_optics_survives_the_selection_of_everything(tmp_path):
    text = ODD[ODD.index("data_general") :].rstrip("\n")
    path = written(tmp_path, text)
    assert select(path, [0, 1, 2, 3]) == text.encode()
    assert select(path, [3, 0]).endswith(ROWS[3] + ROWS[0])


def test_real_files_survive_the_selection_of_everything(zoo):
    kept = 0
    for path in sorted(zoo.rglob("*.star")):
        try:
            text = read_star_text(path)
            rows = np.arange(len(text.particles))
        except InputError:
            continue
        groups = [t for t in text.tables if t.name == "optics"]
        if groups and "rlnOpticsGroup" in groups[0] and "rlnOpticsGroup" in text.particles:
            used = set(text.numbers("rlnOpticsGroup"))
            if len(used) < len(groups[0]):
                continue
        assert b"".join(text.select(rows, {})) == path.read_bytes(), path
        kept += 1
    assert kept >= 15


def test_values_are_replaced_added_and_taken_away(tmp_path):
    text = select(
        written(tmp_path),
        [1, 2],
        rlnClassNumber=["11", "12"],
        rlnMicrographName=None,
        recovarContrast=["0.9", "1.1"],
        rlnMissing=None,
    )
    assert text.endswith(
        b"loop_   # with a comment\n_rlnImageName #1\n  _rlnOpticsGroup    #2\n"
        b"_rlnClassNumber #3\n_recovarContrast #4\n"
        b"\t2@a.mrcs 7.0 11 0.9 # seen twice\n"
        b"# about the next one\n  000003@a.mrcs    1     12 1.1\n"
    )


def test_rows_over_several_lines_and_with_texts_are_kept(tmp_path):
    text = "data_\nloop_\n_rlnImageName\n_rlnNote\n1@a.mrcs\n  one\n2@a\n;two\nlines\n;\n3@a x\n"
    path = written(tmp_path, text)
    assert select(path, [0, 1, 2]) == text.encode()
    assert select(path, [1]).endswith(b"_rlnNote\n2@a\n;two\nlines\n;\n")
    edited = select(path, [1, 0], rlnNote=["2", "1"])
    assert edited.endswith(b"_rlnNote\n2@a\n2\n1@a.mrcs\n  1\n")


def test_rows_that_share_a_line_are_written_anew_with_a_warning(tmp_path, caplog):
    path = written(tmp_path, "data_\nloop_ _rlnImageName _rlnX\n1@a.mrcs 1 2@a.mrcs 2\n")
    (tmp_path / "kept.star").write_bytes(select(path, [1]))
    (table,) = read_star(tmp_path / "kept.star")
    assert {label: list(table.columns[label]) for label in table.columns} == {
        "rlnImageName": ["2@a.mrcs"],
        "rlnX": ["2"],
    }
    assert "one row on each line" in caplog.text


def test_files_without_images_are_refused(tmp_path):
    path = written(tmp_path, "data_optics\nloop_\n_rlnOpticsGroup\n1\n")
    with pytest.raises(InputError, match="expected a particle table with _rlnImageName"):
        select(path, [0])
    path = written(tmp_path, "data_\n_rlnImageName 1@a.mrcs\n")
    with pytest.raises(InputError, match="found single values"):
        select(path, [0])
    path = written(tmp_path, ODD.replace("7.0", "x"))
    with pytest.raises(InputError, match="expected numbers in _rlnOpticsGroup"):
        select(path, [0])
