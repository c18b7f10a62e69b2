"""Law: an archive gives its numbers and no others, and asks for no memory that it does not fill."""

import io
import zipfile

import numpy as np
import pytest

from mgnet.app.files.arrays import open_archive


def archive(**arrays):
    np.savez(file := io.BytesIO(), **arrays)
    return open_archive("data.npz", file)


def of_members(packing=zipfile.ZIP_STORED, **members):
    """An archive of members that are no files of NumPy, perhaps."""
    with zipfile.ZipFile(file := io.BytesIO(), "w", packing) as out:
        for name, content in members.items():
            out.writestr(name + ".npy", content)
    return file


def member(header, body=b"", version=b"\1\0"):
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + body


def test_archive():
    x = np.arange(6).reshape(3, 2)
    columns = archive(x=x, y=np.ones(3, np.float32), label=np.array(["a", "b", "c"]), dx=0.1)
    assert columns.names == ("x0", "x1", "y", "label")
    assert columns.numbers(["y", "x1"]).tolist() == [[1.0, 1.0], [1.0, 3.0], [1.0, 5.0]]
    lines = ["x0,x1,y,label,z", "0,1,1,a,0", "2,3,1,b,1", "4,5,1,c,2"]
    assert list(columns.with_columns({"z": np.arange(3.0)})) == lines
    with pytest.raises(ValueError, match="array 'label' holds <U1, not"):
        columns.numbers(["label"])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.float64(1.0)}, "no array with 1 or 2 dimensions"),
        ({"x": np.ones((3, 1)), "x0": np.ones(3)}, "2 columns called 'x0'"),
        ({"a": np.array([{}, {}], dtype=object)}, "array 'a' holds Python objects"),
        ({"a\nb": np.ones(3)}, r"'a\\nb', has a control character"),
        ({"n" * 1001: np.ones(3)}, "has 1001 characters"),
    ],
)
def test_bad_archives(arrays, words):
    with pytest.raises(ValueError, match=words):
        archive(**arrays)


def test_arrays_of_different_length():
    columns = archive(**{f"a{n}": np.ones(n) for n in range(3, 30)})
    with pytest.raises(ValueError, match="differ in length .a3 3, a4 4, .* and 19 more.;"):
        columns.numbers(columns.names)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.array([1, 2], ">i2"), "number", [1.0, 2.0]),
        (np.array([True, False]), "boolean", [1.0, 0.0]),
        (np.array(["a,b", ""]), "text", ["a,b", None]),
        (np.array([b"a", "\u00b5".encode()]), "text", ["a", "\u00b5"]),
        (np.array(["2020-02-29", "NaT"], "M8[D]"), "date", ["2020-02-29T00:00:00.000000", "NaT"]),
        (np.array(["1969-12-31T23:59:59"], ">M8[ns]"), "date", ["1969-12-31T23:59:59.000000"]),
    ],
)
def test_columns_of_each_kind(values, kind, expected):
    column = archive(a=values).column("a")
    assert column.kind == kind and column.units is None
    assert column.values.dtype == {"text": object, "date": "M8[us]"}.get(kind, float)
    found = column.values.astype(str) if kind == "date" else column.values
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([10**9]).view("M8[Y]"), "'a' has dates beyond"),
        (np.array([3]).view("M8"), "'a' holds <M8; expected numbers"),
        (np.array([b"\xff"]), "'a' holds bytes that are not text"),
        (np.array([2**31 - 1], np.int32).view("U1"), "'a' contains codes that are not characters"),
        (np.array([0xDFFF], ">i4").view(">U1"), "'a' contains codes that are not characters"),
        (np.array([1j]), "'a' holds <c16; expected numbers"),
    ],
)
def test_columns_of_no_kind(values, words):
    with pytest.raises(ValueError, match=words):
        archive(a=values).column("a")


def test_all_arrays_that_are_no_numbers_are_named():
    columns = archive(a=np.array(["x"]), b=np.ones(1), c=np.array([1j]))
    with pytest.raises(ValueError, match="arrays 'a' holds <U1, 'c' holds <c16, not real numbers"):
        columns.numbers("abc")


@pytest.mark.parametrize("kind", ["<f8", ">f8", "<f4", "<f2", "|i1", ">i4", "<i8", "<u8", "|b1"])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", "CF")
def test_every_number_is_the_one_that_numpy_reads(kind, write, order):
    rng = np.random.default_rng(0)
    x = (1e3 * rng.normal(size=(7, 3))).astype(kind, order=order)
    big = np.array([2**53 + 1, -(2**62), 0, 1, 2, 3, 4])
    write(file := io.BytesIO(), x=x, id=big)
    columns = open_archive("data.npz", file)
    expected = np.column_stack([x.astype(float), big])
    assert np.array_equal(columns.numbers(columns.names), expected)
    lines = [line.split(",") for line in columns.with_columns({"y": np.zeros(7)})][1:]
    assert [[float(cell) for cell in line[:3]] for line in lines] == x.astype(float).tolist()
    assert [int(line[3]) for line in lines] == big.tolist()


def test_headers_of_other_programs():
    body = np.arange(3.0).tobytes()
    headers = [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3L,), }",
        '{"shape":(3,),"fortran_order":False,"descr":"<f8"}',
        "{'descr': '<f8', 'fortran_order': True, 'shape': ( 3 , ) }  \n",
    ]
    members = {f"a{n}": member(header, body) for n, header in enumerate(headers)}
    columns = open_archive("data.npz", of_members(**members))
    assert columns.numbers(columns.names).tolist() == [[k] * 3 for k in range(3)]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000,)}", "holds 24 bytes"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 1000000000000)}", "holds 24 bytes"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}", "damaged header"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (3,)", "damaged header"),
        ("{'descr': '<f8', 'fortran_order': 1, 'shape': (3,)}", "damaged header"),
        ("{'descr': '<f8', 'shape': (3,)}", "damaged header"),
        ("(" * 9000, "damaged header"),
        ("-" * 60_000, "damaged header"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", "Python objects"),
        ("{'descr': '<f3', 'fortran_order': False, 'shape': (3,)}", "'<f3', which is unknown"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", "holds 24 bytes, not 12"),
    ],
)
def test_damaged_headers(header, words):
    with pytest.raises(ValueError, match=words) as error:
        open_archive("data.npz", of_members(a=member(header, np.arange(3.0).tobytes())))
    assert len(str(error.value)) < 400 and str(error.value).isprintable()


def test_columns_without_rows_are_counted_before_they_are_made():
    told = "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 1000000000000)}"
    with pytest.raises(ValueError, match="array 'a' has 1000000000000 columns; at most 500000"):
        open_archive("data.npz", of_members(a=member(told)))


def test_an_archive_unpacks_to_a_multiple_of_its_size():
    numbers = np.zeros(9 * 10**6, np.int8)  # 72 MB as doubles
    np.savez_compressed(file := io.BytesIO(), a=numbers)
    with pytest.raises(ValueError, match=r"array 'a' of shape \(9000000\) is too large.* without"):
        open_archive("data.npz", file)
    np.savez(file := io.BytesIO(), a=numbers)  # the remedy
    assert len(open_archive("data.npz", file).columns["a"]) == len(numbers)
    with pytest.raises(ValueError, match="array 'b' .*too large"):
        open_archive("data.npz", of_two_halves())


def of_two_halves():
    file = io.BytesIO()
    np.savez_compressed(file, a=np.zeros(5 * 10**6, np.int8), b=np.zeros(5 * 10**6, np.int8))
    return file


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_pack(packing):
    np.save(array := io.BytesIO(), np.arange(12.0))
    with pytest.raises(ValueError, match="'a' is compressed in another way"):
        open_archive("data.npz", of_members(packing, a=array.getvalue()))


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK\x03\x04", b"\x93NUMPY", b"PK\x05\x06" + bytes(18)]
)
def test_no_archives(content):
    with pytest.raises(ValueError, match="cannot be read as an .npz archive|no array with 1 or 2"):
        open_archive("data.npz", io.BytesIO(content))


def test_a_member_that_is_no_array():
    with zipfile.ZipFile(file := io.BytesIO(), "w") as out:
        out.writestr("xl/worksheets/sheet1.xml", "<xml/>")
    with pytest.raises(
        ValueError, match="it holds 'xl/worksheets/sheet1.xml', which is not an array"
    ):
        open_archive("data.npz", file)


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_is_found_or_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    np.savez_compressed(file := io.BytesIO(), a=np.arange(50.0))
    for _ in range(100):
        content = bytearray(file.getvalue())
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        try:
            columns = open_archive("data.npz", io.BytesIO(content))
        except ValueError as error:
            assert str(error).startswith("data.npz") and str(error).isprintable()
        else:
            assert columns.numbers(columns.names[:1])[:, 0].tolist() == list(range(50))
