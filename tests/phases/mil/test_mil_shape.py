"""Rearranging, picking and placing: exact against NumPy, by name and by every edge we know of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder

pytestmark = pytest.mark.coreml

mb: Any = Builder
"""Its operations are registered at run time, where no type checker sees them."""

rng = np.random.default_rng(13)
A = rng.standard_normal((2, 3, 4)).astype(np.float32)
B = rng.standard_normal((2, 3, 4)).astype(np.float32)
S = rng.standard_normal((1, 3, 1)).astype(np.float32)
INTS = np.arange(12, dtype=np.int32).reshape(3, 4)
LONG = np.arange(10, dtype=np.int32)
TABLE = rng.standard_normal((5, 2)).astype(np.float32)


def on(op: str, tag: str, oracle: Any, x: Any = A, **options: Any) -> Any:
    return (f"{op}_{tag}", op, {"x": x}, lambda x: getattr(mb, op)(x=x, **options), oracle)


def cut(tag: str, oracle: Any, x: Any = A, **options: Any) -> Any:
    return on("slice_by_index", tag, oracle, x, **options)


def updated(x: Any, place: Any, update: Any) -> Any:
    changed = x.copy()
    changed[place] = update
    return changed


def update(tag: str, place: Any, shape: tuple[int, ...], **options: Any) -> Any:
    new = rng.standard_normal(shape).astype(np.float32)
    return (
        f"slice_update_{tag}",
        "slice_update",
        {"x": A, "update": new},
        lambda x, update: mb.slice_update(x=x, update=update, **options),
        lambda x, update: updated(x, place, update),
    )


def gathered(
    tag: str, oracle: Any, x: Any, indices: Any, op: str = "gather", **options: Any
) -> Any:
    return (
        f"{op}_{tag}",
        op,
        {"x": x, "indices": np.array(indices, np.int32)},
        lambda x, indices: getattr(mb, op)(x=x, indices=indices, **options),
        oracle,
    )


def batched_take(x: Any, indices: Any) -> Any:
    """tf.gather with batch_dims=1, axis=2, written as loops: [b, i, j] = x[b, i, indices[b, j]]."""
    out = np.empty((x.shape[0], x.shape[1], indices.shape[1]), x.dtype)
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(indices.shape[1]):
                out[b, i, j] = x[b, i, indices[b, j]]
    return out


def one_hot(x: Any) -> Any:
    return np.where(np.arange(4)[None, :] == x[:, None], 2.0, -1.0)


JOIN: Any = {"x": A, "y": B}
CASES = [
    on("identity", "plain", lambda x: x),
    on("reshape", "minus_one", lambda x: x.reshape(6, 4), shape=[-1, 4]),
    on("reshape", "zero_from_the_right", lambda x: x.reshape(1, 2, 3, 4), shape=[0, -1, 0, 0]),
    on("transpose", "plain", lambda x: x.transpose(2, 0, 1), perm=[2, 0, 1]),
    on("transpose", "negative", lambda x: x.transpose(0, 2, 1), perm=[0, -1, -2]),
    on("expand_dims", "two", lambda x: x[:, None, :, :, None], axes=[1, -1]),
    on("expand_dims", "unsorted", lambda x: x[None, None], axes=[1, 0]),
    on("squeeze", "named", lambda x: x[0], S, axes=[-3]),
    on("squeeze", "all", lambda x: x[0, :, 0], S),
    ("concat_last", "concat", JOIN, lambda x, y: mb.concat(values=[x, y], axis=-1),
     lambda x, y: np.concatenate([x, y], -1)),
    ("concat_woven", "concat", JOIN, lambda x, y: mb.concat(values=[x, y], axis=1, interleave=True),
     lambda x, y: np.stack([x, y], 2).reshape(2, 6, 4)),
    ("stack_new_last", "stack", JOIN, lambda x, y: mb.stack(values=[x, y], axis=-1),
     lambda x, y: np.stack([x, y], -1)),
    ("stack_first", "stack", JOIN, lambda x, y: mb.stack(values=[x, y], axis=0),
     lambda x, y: np.stack([x, y], 0)),
    on("tile", "two", lambda x: np.tile(x, (2, 1, 3)), reps=[2, 1, 3]),
    on("reverse", "one", lambda x: x[:, ::-1], axes=[-2]),
    on("reverse", "all", lambda x: x[::-1, ::-1, ::-1]),
    on("band_part", "lower", np.tril, lower=-1, upper=0),
    on("band_part", "thin", lambda x: np.triu(np.tril(x, 1), -1), lower=1, upper=1),
    on("shape", "plain", lambda x: np.array(x.shape)),
    ("fill_like_seven", "fill_like", {"x": A},
     lambda x: mb.fill_like(ref_tensor=x, value=np.float32(7)), lambda x: np.full_like(x, 7)),
    # numpy slices, in all directions
    cut("plain", lambda x: x[0:1, 1:3, 0:4], begin=[0, 1, 0], end=[1, 3, 4]),
    cut("negative_ends", lambda x: x[:, -2:-1, 1:-1], begin=[0, -2, 1], end=[2, -1, -1]),
    cut("strides", lambda x: x[:, ::2, 1::2], begin=[0, 0, 1], end=[2, 3, 4], stride=[1, 2, 2]),
    cut("past_the_end", lambda x: x[7:99:3], LONG, begin=[7], end=[99], stride=[3]),
    cut("backwards", lambda x: x[8:2:-3], LONG, begin=[8], end=[2], stride=[-3]),
    cut("backwards_to_the_start", lambda x: x[8::-4], LONG, begin=[8], end=[0], stride=[-4],
        end_mask=[True]),
    cut("all_backwards", lambda x: x[::-1], LONG, begin=[0], end=[0], stride=[-1],
        begin_mask=[True], end_mask=[True]),
    cut("masks", lambda x: x[:, 1:, :2], begin=[9, 1, 9], end=[0, 0, 2],
        begin_mask=[True, False, True], end_mask=[True, True, False]),
    cut("squeezed", lambda x: x[1, :, -1], begin=[1, 0, -1], end=[0, 0, 0],
        begin_mask=[False, True, False], end_mask=[False, True, False],
        squeeze_mask=[True, False, True]),
    cut("squeezed_and_backwards", lambda x: x[1, ::-1, 1:3], begin=[1, 0, 1], end=[0, 0, 3],
        stride=[1, -1, 1], begin_mask=[False, True, False], end_mask=[False, True, False],
        squeeze_mask=[True, False, False]),
    cut("to_a_scalar", lambda x: x[3], LONG, begin=[3], end=[0], squeeze_mask=[True]),
    on("slice_by_size", "rest", lambda x: x[:, 1:, 1:3], begin=[0, 1, -3], size=[-1, -1, 2]),
    update("plain", np.s_[0:2, 1:2, 0:4], (2, 1, 4), begin=[0, 1, 0], end=[2, 2, 4]),
    update("strided", np.s_[:, ::2, 1::2], (2, 2, 2), begin=[0, 0, 1], end=[2, 3, 4],
           stride=[1, 2, 2]),
    update("backwards", np.s_[:, :, ::-1], (2, 3, 4), begin=[0, 0, 0], end=[2, 3, 0],
           stride=[1, 1, -1], begin_mask=[False, False, True], end_mask=[False, False, True]),
    update("squeezed", np.s_[1, :, 2], (3,), begin=[1, 0, 2], end=[0, 3, 0],
           squeeze_mask=[True, False, True]),
    gathered("rows", lambda x, i: x[i], TABLE, [3, 0, 3], validate_indices=False),
    gathered("matrix", lambda x, i: x[i], TABLE, [[3, 0], [1, 4]], validate_indices=False),
    gathered("axis", lambda x, i: np.take(x, i, 1), A, [2, 0], axis=-2, validate_indices=False),
    gathered("batched", batched_take, A, [[3, 0], [1, 1]], axis=2, batch_dims=1,
             validate_indices=False),
    gathered("along", lambda x, i: np.take_along_axis(x, i, 2), A,
             rng.integers(0, 4, (2, 3, 2)), "gather_along_axis", axis=-1, validate_indices=False),
    gathered("nd", lambda x, i: x[i[:, 0], i[:, 1]], A, [[1, 2], [0, 0]], "gather_nd",
             validate_indices=False),
    ("scatter_nd_rows", "scatter_nd",
     {"x": TABLE, "i": np.array([[4], [1]], np.int32), "u": A[0, :2, :2].copy()},
     lambda x, i, u: mb.scatter_nd(data=x, indices=i, updates=u, mode="update"),
     lambda x, i, u: updated(x, i[:, 0], u)),
    ("select_broadcast", "select", {"x": A, "y": S},
     lambda x, y: mb.select(cond=mb.greater(x=x, y=np.float32(0)), a=x, b=y),
     lambda x, y: np.where(x > 0, x, y)),
    ("one_hot_last", "one_hot", {"x": np.array([3, 0], np.int32)},
     lambda x: mb.one_hot(indices=x, one_hot_vector_size=4, on_value=np.float32(2),
                          off_value=np.float32(-1)), one_hot),
    ("one_hot_first", "one_hot", {"x": np.array([3, 0], np.int32)},
     lambda x: mb.one_hot(indices=x, one_hot_vector_size=4, axis=0, on_value=np.float32(2),
                          off_value=np.float32(-1)), lambda x: one_hot(x).T),
    ("fill_computed", "fill", {"x": A},
     lambda x: mb.fill(shape=mb.shape(x=x), value=np.float32(1.5)),
     lambda x: np.full(x.shape, 1.5)),
    ("range_1d_down", "range_1d", {"x": LONG},
     lambda x: mb.range_1d(start=mb.reduce_max(x=x), end=np.int32(0), step=np.int32(-4)),
     lambda _: np.arange(9, 0, -4)),
]  # fmt: skip


@pytest.fixture(scope="module")
def found(answers: Any) -> Any:
    return answers(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_kernel_agrees_with_numpy(found: Any, case: Any) -> None:
    name, _, inputs, _, oracle = case
    expected = np.asarray(oracle(*inputs.values()))
    answer = found[f"{name}_out0"].numpy()
    assert answer.shape == expected.shape
    np.testing.assert_array_equal(answer, expected.astype(answer.dtype))


SPLITS: Any = [
    ("split_even", "split", {"x": A}, lambda x: mb.split(x=x, num_splits=2, axis=-1), None),
    (
        "split_sizes",
        "split",
        {"x": A},
        lambda x: mb.split(x=x, split_sizes=[1, 2], axis=1),
        None,
    ),
]


def test_split_gives_the_pieces_in_order(answers: Any) -> None:
    found = answers(SPLITS)
    for piece, expected in enumerate(np.split(A, 2, -1)):
        np.testing.assert_array_equal(found[f"split_even_out{piece}"].numpy(), expected)
    np.testing.assert_array_equal(found["split_sizes_out0"].numpy(), A[:, :1])
    np.testing.assert_array_equal(found["split_sizes_out1"].numpy(), A[:, 1:])
