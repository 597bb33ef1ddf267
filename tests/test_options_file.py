"""Options in YAML: any file gives options or one message, quickly."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfast._errors import InputError
from ccfast.cli import main
from ccfast.training import TrainConfig
from ccfast.training.config_file import config_from_options, read_options
from ccfast.training.options_file import read_yaml


def bomb(at: str) -> str:
    """Nine nested levels of nine copies of a list: a billion values."""
    lists = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lists += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join([*lists, at])


MERGES = "\n".join(
    ["a0: &a0 {eps: 0.5}", *(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30))]
)

WRONG = {
    "an alias bomb": bomb("eps: *a9"),
    "an alias bomb for a key": bomb("? *a9\n: 1"),
    "an alias bomb within a value": bomb("k1: [*a9, *a9]"),
    "a bomb of merges": MERGES,
    "an alias": "k1: &one 1\nk2: *one",
    "an alias to itself": "&a [*a]",
    "a list nested deep": "eps: " + "[" * 50_000,
    "a list nested deep and closed": "eps: " + "[" * 3000 + "]" * 3000,
    "objects nested deep": "eps: " + "{a: " * 20_000,
    "lists of lines nested deep": "\n".join("  " * n + "-" for n in range(2000)),
    "an option twice": "eps: 0.5\nlr: 1.0e-3\neps: 0.6",
    "a tab": "eps:\t0.5\n\tlr: 1",
    "a list": "- eps\n- 0.5",
    "text": "just text",
    "nothing": "",
    "a comment": "# nothing",
    "two documents": "eps: 0.5\n---\neps: 0.6",
    "half a list": "eps: [",
    "a huge integer": "k1: 1" + "0" * 300,
    "an integer of too many digits": "k1: 1" + "0" * 10_000,
    "a huge integer for a real number": "lr: 1" + "0" * 400,
    "a date": "eps: 2026-01-01",
    "a time": "k1: 2026-01-01 10:00:00",
    "a date that there is not": "eps: 2026-99-99",
    "infinity": "lr: .inf",
    "NaN": "eps: .nan",
    "true for a number": "k1: true",
    "null for what needs a value": "seed: null",
    "a binary": "arch: !!binary aGVsbG8=",
    "a set": "eps: !!set {a, b}",
    "pairs": "k1: !!omap [a: 1]",
    "Python": "eps: !!python/object/apply:os.system ['true']",
    "an unknown tag": "eps: !new 3",
    "a number as a name": "5: 3",
    "null as a name": "null: 3",
    "a list as a name": "? [a, b]\n: 3",
    "an unknown option": "colour: red",
    "many unknown options": "\n".join(f"option{n}: 1" for n in range(5000)),
    "a long name": "n" * 500 + ": 1",
    "a long value": "dataset: " + "n" * 100_000,
    "a zero byte": "arch: 'a\0b'",
    "an empty path": "init: ''",
    "a path of blanks": "data_dir: '  '",
    "a path with an escaped zero": 'init: "a\\0b"',
    "a number for a path": "data_dir: 5",
    "a list for a path": "init: [a]",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_any_wrong_file_of_options_gives_one_line_quickly(tmp_path, text, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    start = time.monotonic()
    assert main(["train", "--config", str(path), "--run", str(tmp_path / "run")]) == 2
    assert time.monotonic() - start < 10
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("ccfast train: ") and len(line) < 600
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"arch: \xff", "eps: 0.5".encode("utf-16"), b"\x00\x01\x02", b"PK\x03\x04" * 9])
def test_bytes_that_are_not_text_are_one_error(tmp_path, content):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"mine.yaml: cannot be read: [^\n]+$"):
        read_options(tmp_path / "mine.yaml")


@pytest.mark.parametrize("path", ["/dev/zero", "."])
def test_what_has_no_end_or_is_no_file_is_one_error(path, capsys):
    assert main(["train", "--config", path]) == 2
    assert ": cannot be read: " in capsys.readouterr().err


def test_the_line_of_a_mistake_is_named(tmp_path):
    for text, message in (
        ("eps: 0.5\nlr: 1\neps: 0.6", r"line 3: 'eps' is already in line 1"),
        ("eps: 0.5\nk1: *one", r"line 2: an alias \(\*one\)"),
        ("eps: 0.5\nk1: [", r"line 2: "),
    ):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_options(tmp_path / "mine.yaml")


def test_the_same_text_as_a_value_or_deeper_is_no_repetition(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: b\nb: a\nc: {a: 1}\nd: [a, a]\n")
    assert read_yaml(tmp_path / "mine.yaml") == {"a": "b", "b": "a", "c": {"a": 1}, "d": ["a", "a"]}


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "mine.yaml").write_bytes("eps: 0.5".encode("utf-8-sig"))
    assert read_options(tmp_path / "mine.yaml") == {"eps": 0.5}


def test_the_home_folder_is_expanded_in_every_path_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("dataset: folder\ndata_dir: ~/data\ninit: '~'\nrun: ~/run\nweights: ~/w.pt\n")
    config = config_from_options({"config": "~/mine.yaml"})
    paths = [config.data_dir, config.init, config.run, config.weights]
    assert paths == [f"{tmp_path}/data", str(tmp_path), f"{tmp_path}/run", f"{tmp_path}/w.pt"]
    assert TrainConfig(weights="imagenet").weights == "imagenet"


@pytest.mark.slow
@given(st.text(max_size=60) | st.from_regex(r"([a-z_]{1,6}: ?[&*\[\]{}!?<|>'\"%@`a-z0-9.,:#\- ]{0,12}\n){0,4}"))
def test_no_text_makes_reading_options_fail(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "mine.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        read_options(path)
    except InputError as error:
        assert str(path) in str(error)
