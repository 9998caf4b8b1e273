from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from jaxtyping import Array, Float

from recovar.errors import InputError
from recovar.records import load_arrays, load_record, save_arrays, save_record, write_whole

T = TypeVar("T")


class Frame(eqx.Module):
    size: int = eqx.field(static=True)
    spacing: float


class Map(eqx.Module):
    frame: Frame
    values: Float[Array, "n n"]
    mask: Float[Array, "n n"] | None = None


@dataclass(frozen=True)
class Pair(Generic[T]):
    first: T
    second: T


@dataclass(frozen=True)
class Everything:
    maps: Pair[Map]
    frame: Frame | None
    host: np.ndarray
    each: tuple[Map, ...]
    by_name: dict[str, Frame]
    flags: list[bool]
    name: str
    ratio: float


def make_map(scale: float) -> Map:
    return Map(Frame(3, 1.5), scale * jnp.ones((3, 3)), None)


def make_everything() -> Everything:
    return Everything(
        maps=Pair(make_map(1), make_map(2)),
        frame=None,
        host=np.arange(4, dtype=np.float64),
        each=(make_map(3), make_map(4)),
        by_name={"a": Frame(8, 0.5)},
        flags=[True, False],
        name="σ",
        ratio=float("inf"),
    )


def assert_same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert type(one) is type(other)
        np.testing.assert_array_equal(one, other)


def test_a_nested_record_comes_back_as_it_was(tmp_path):
    record = make_everything()
    save_record(tmp_path / "record.npz", record)
    again = load_record(tmp_path / "record.npz", Everything)
    assert (again.frame, again.name, again.ratio, again.flags) == (None, "σ", np.inf, [True, False])
    assert again.by_name == {"a": Frame(8, 0.5)}
    assert_same(again.maps.first, record.maps.first)
    assert_same(again.each, record.each)
    assert isinstance(again.host, np.ndarray)
    assert isinstance(again.maps.second.values, jax.Array)


def test_a_parametrized_type_can_be_asked_for(tmp_path):
    save_record(tmp_path / "pair.npz", Pair(make_map(1), make_map(2)))
    assert_same(load_record(tmp_path / "pair.npz", Pair[Map]).second, make_map(2))


def test_a_loaded_record_serves_under_jit(tmp_path):
    save_record(tmp_path / "map.npz", make_map(2))
    total = jax.jit(lambda each: each.values.sum())(load_record(tmp_path / "map.npz", Map))
    assert total == 18


@given(
    array=numpy_strategies.arrays(
        st.sampled_from([np.float32, np.complex64, np.int64, np.bool_, np.float64]),
        numpy_strategies.array_shapes(min_dims=0, min_side=0, max_side=4),
    )
)
def test_arrays_come_back_as_they_were(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("arrays") / "some.npz"
    save_arrays(path, path=array, file=array)
    again = load_arrays(path)
    assert sorted(again) == ["file", "path"]
    assert again["file"].dtype == array.dtype
    np.testing.assert_array_equal(again["file"], array)


def test_another_type_of_record_is_refused(tmp_path):
    save_record(tmp_path / "map.npz", make_map(2))
    with pytest.raises(InputError, match="expected Frame, found Map"):
        load_record(tmp_path / "map.npz", Frame)


def test_functions_are_no_data(tmp_path):
    with pytest.raises(TypeError, match=r"record\.first: a builtin_function_or_method"):
        save_record(tmp_path / "map.npz", Pair(print, None))
    assert not any(tmp_path.iterdir())


def test_objects_are_never_pickled(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        save_arrays(tmp_path / "objects.npz", objects=np.array([{}, print], dtype=object))
    assert not any(tmp_path.iterdir())


def test_pickled_objects_are_never_read(tmp_path):
    np.savez(tmp_path / "objects.npz", objects=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a readable"):
        load_arrays(tmp_path / "objects.npz")


@pytest.mark.parametrize("content", [b"", b"PK damaged", b"\x93NUMPY"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"some\.npz"):
        load_record(tmp_path / "some.npz", Map)


def test_a_file_is_seen_only_when_whole(tmp_path):
    target = tmp_path / "volumes" / "mean.mrc"
    with write_whole(target) as partial:
        partial.write_bytes(b"first half, ")
        assert partial.suffix == ".mrc"
        assert not target.exists()
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    def fail(path: Path) -> None:
        path.write_bytes(b"new, but")
        raise OSError("no space left")

    (tmp_path / "mean.mrc").write_bytes(b"old")
    with pytest.raises(OSError, match="no space"), write_whole(tmp_path / "mean.mrc") as partial:
        fail(partial)
    assert list(tmp_path.iterdir()) == [tmp_path / "mean.mrc"]
    assert (tmp_path / "mean.mrc").read_bytes() == b"old"
