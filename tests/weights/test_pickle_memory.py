"""Small pickles that would copy what they hold again and again end in one sentence before they do."""

import pickle
import zipfile

import pytest
import torch

from kdtalker.core.errors import InputError
from kdtalker.renderers.liveportrait.template import read_template
from kdtalker.weights.convert import convert_pth
from kdtalker.weights.pth import read_pth

TEXT = 100_000


def copies(function, times):
    """A pickle (protocol 2) that hands one long text to a function again and again, in a list."""
    text = b"X" + TEXT.to_bytes(4, "little") + b"a" * TEXT
    call = b"c" + function + b"h\x00X\x06\x00\x00\x00latin1\x86R"
    return b"\x80\x02" + text + b"q\x000](" + times * call + b"e."


def test_a_template_takes_each_text_once(tmp_path):
    (tmp_path / "t.pkl").write_bytes(copies(b"_codecs\nencode\n", 2000))
    with pytest.raises(InputError, match="many copies of one text"):
        read_template(tmp_path / "t.pkl")


def zipped(path, content, name="archive/data.pkl"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize(
    "content",
    [
        copies(b"_codecs\nencode\n", 20_000),
        pickle.dumps({"a": 1}, 2)[:2] + b"cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R.",
        b"\x80\x02](" + b"K\x01" * TEXT + b"eq\x000](" + 2000 * b"cbuiltins\nlist\nh\x00\x85R" + b"e.",
    ],
    ids=["texts", "bytearray", "lists"],
)
def test_weights_cannot_multiply_what_they_hold(tmp_path, content):
    with pytest.raises(InputError, match=r"damaged|refused"):
        read_pth(zipped(tmp_path / "a.pth", content))


def test_a_zip_without_the_pickle_that_is_looked_through_is_refused(tmp_path):
    with pytest.raises(InputError, match="damaged"):
        read_pth(zipped(tmp_path / "a.pth", pickle.dumps({"a": 1}, 2), "archive/DATA.PKL"))


def test_many_views_of_few_numbers_are_not_written_out(tmp_path):
    numbers = torch.zeros(100_000)
    torch.save({f"view{index}": numbers[index:] for index in range(40)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="many views of few numbers"):
        convert_pth(tmp_path / "a.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
