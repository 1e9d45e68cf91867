import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastsnn.ops import library
from fastsnn.ops.matrix import Matrix, panels

from . import cases

COLUMNS = (1, 3, 15, 16, 31, 32, 33, 64, 70)
every_instruction_set = pytest.mark.parametrize("isa", library.instruction_sets())


@given(st.integers(0, 200), st.sampled_from([1, 2, 17, 64, 100]), st.sampled_from(COLUMNS), st.integers(0, 1000))
def test_products_of_small_integers_are_exact_at_every_size(rows, inputs, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, (rows, inputs), generator=generator).float()
    matrix = torch.randint(-9, 10, (inputs, outputs), generator=generator).float()
    expected = (x.double() @ matrix.double()).float()
    for isa in library.instruction_sets():
        with cases.instruction_set(isa):
            cases.assert_same_bits(Matrix(matrix)(x), expected, isa, signed_zeros=False)


@every_instruction_set
@pytest.mark.parametrize("inputs", [3, 64, 500, 2048])
def test_an_element_errs_no_more_than_the_sum_of_its_products_in_order(isa, inputs):
    x, matrix = torch.randint(0, 3, (85, inputs)).float(), torch.randn(inputs, 40) / inputs**0.5
    in_order = torch.zeros(85, 40)
    for k in range(inputs):
        in_order += x[:, k : k + 1] * matrix[k]
    with cases.instruction_set(isa):
        cases.assert_errs_at_most(1.1, Matrix(matrix)(x), in_order, x.double() @ matrix.double())


@every_instruction_set
def test_a_row_has_the_same_bits_alone_and_among_others_on_any_number_of_threads(isa):
    x, matrix = torch.randn(200, 37), torch.randn(37, 45)
    with cases.instruction_set(isa):
        product = Matrix(matrix)
        alone = torch.cat([product(row[None]) for row in x])
        for n in (1, 2):
            with cases.threads(n):
                for rows in (200, 169, 84, 15, 2):
                    cases.assert_same_bits(product(x[:rows]), alone[:rows], f"{rows} rows on {n} threads")


@every_instruction_set
def test_no_number_passes_from_one_row_or_call_to_another(isa):
    x, matrix = torch.randn(90, 21), torch.randn(21, 33)
    spoilt = x.clone()
    spoilt[[3, 84]] = torch.nan
    with cases.instruction_set(isa), cases.threads(1):
        product = Matrix(matrix)
        expected = product(x)
        got = product(spoilt)
        assert got[[3, 84]].isnan().all()
        spared = [i for i in range(90) if i not in (3, 84)]
        cases.assert_same_bits(got[spared], expected[spared])
        product(torch.full_like(x, torch.nan))  # stays in the thread's scratch memory
        for rows in (1, 13, 90):
            cases.assert_same_bits(product(x[:rows]), expected[:rows])


@every_instruction_set
@given(
    st.integers(1, 100),
    st.sampled_from([1, 15, 16, 33, 200]),
    st.sampled_from([1, 32, 40, 96, 128, 230]),
    st.sampled_from([0, 0.02, 0.15, 0.29, 0.31, 0.6]),
)
def test_inputs_of_zero_are_left_out_and_no_bit_changes(isa, rows, inputs, outputs, density):
    x, matrix = torch.randn(rows, inputs), torch.randn(inputs, outputs)
    x[torch.rand(rows, inputs) >= density] = 0.0
    x[0, 0] = -0.0
    with cases.instruction_set(isa):
        product = Matrix(matrix)
        assert product.is_finite
        left_out = product(x)
        product.is_finite = False  # all products, as where a weight is infinite
        cases.assert_same_bits(left_out, product(x), f"{density} of the inputs are not 0")


@every_instruction_set
def test_zeros_times_weights_that_are_not_finite_are_not_left_out(isa):
    x, matrix = torch.zeros(20, 5), torch.randn(5, 7)
    x[:, 0] = 1.0
    matrix[3, 2], matrix[4, 6] = torch.inf, torch.nan
    with cases.instruction_set(isa):
        assert torch.equal(Matrix(matrix)(x).isnan(), (x @ matrix).isnan())
        spikes = torch.tensor([[torch.nan, 0, 0, 0, 0], [torch.inf, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
        out = Matrix(torch.ones(5, 7))(spikes)
    assert out[0].isnan().all() and out[1].isposinf().all() and not out[2].any()


def test_rows_and_matrix_may_lie_in_memory_as_they_like():
    x, matrix = torch.randn(20, 34), torch.randn(34, 45)
    expected = Matrix(matrix)(x)
    for layout in ("transposed", "sliced", "unaligned"):
        cases.assert_same_bits(Matrix(cases.lay_out(matrix, layout))(cases.lay_out(x, layout)), expected, layout)


def test_panels_hold_the_columns_in_their_order_and_zeros_behind_them():
    matrix = torch.arange(1.0, 2 * 3 * 40 + 1).view(2, 3, 40)
    filled = panels(matrix)
    assert filled.shape == (2, 2, 3, 32) and filled.is_contiguous()
    assert torch.equal(filled.transpose(1, 2).reshape(2, 3, 64)[..., :40], matrix)
    assert not filled[:, 1, :, 8:].any()


def test_without_the_library_torchs_own_product_stands_in(monkeypatch):
    x, matrix = torch.randint(-3, 4, (50, 34)).float(), torch.randint(-9, 10, (34, 45)).float()
    expected = Matrix(matrix)(x)
    monkeypatch.setattr(library, "unavailable", lambda: "not built")
    monkeypatch.setattr(library, "run", None)
    cases.assert_same_bits(Matrix(matrix)(x), expected, signed_zeros=False)
    assert Matrix(matrix)(x[:0]).shape == (0, 45)


needs_bf16 = pytest.mark.skipif(not library.has_bf16(), reason="this processor does not multiply bfloat16")


@needs_bf16
@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 7, 35), (100, 64, 64), (200, 131, 32), (85, 576, 70)], ids=str)
def test_bfloat16_products_are_those_of_rounded_sides_summed_in_float32(shape):
    n, inputs, outputs = shape
    rows, matrix = torch.randn(n, inputs), torch.randn(inputs, outputs)
    rounded = Matrix(matrix, torch.bfloat16)
    expected = rows.bfloat16().double() @ matrix.bfloat16().double()
    out = rounded(rows)
    assert (out - expected).norm() <= 1e-6 * expected.norm()
    with cases.threads(1):
        assert torch.equal(rounded(rows), out) and torch.equal(rounded(rows[-1:]), out[-1:])


def test_bfloat16_is_refused_where_the_processor_does_not_multiply_it(monkeypatch):
    monkeypatch.setattr(library, "has_bf16", lambda: False)
    with pytest.raises(RuntimeError, match=r"does not multiply torch.bfloat16; use float32"):
        Matrix(torch.randn(3, 4), torch.bfloat16)
