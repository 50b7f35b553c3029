"""Keys become folders that every file system takes, and no two keys have one."""

import ntpath
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metric_mixin._paths import folder_of


def is_reserved(part):
    """What Python itself says of a name on Windows; from 3.13 on by another function."""
    return ntpath.isreserved(part) if hasattr(ntpath, "isreserved") else PureWindowsPath(part).is_reserved()


DEVICES = ["CON", "con", "NUL", "nul.txt", "aux .x", "Prn", "COM1", "lpt9.a.b", "COM¹"]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("val/roc", "val/roc"),
        ("val/iou@0.5", "val/iou@0.5"),
        ("val/c++ a=b_c-d", "val/c++ a=b_c-d"),
        ("val/Bär", "val/Bär"),
        ("val/日本", "val/日本"),
        ("val/c#", "val/c~23"),
        ("val/a:b~c", "val/a~3Ab~7Ec"),
        ("../../etc/x", "~2E~2E/~2E~2E/etc/x"),
        ("/abs/./x", "abs/~2E/x"),
        ("val/x.", "val/x~2E"),
        ("val/x /y", "val/x~20/y"),
        ("val/con.x", "val/~63on.x"),
        ("val/console", "val/console"),
        ("val/7.png", "val/7~2Epng"),
    ],
)
def test_a_key_is_a_path_below_its_folder(key, path):
    """Harmless names stay as they are; what some file system refuses or hides is written as a code."""
    assert str(folder_of(key, {})) == path


@pytest.mark.parametrize("device", DEVICES)
def test_no_part_is_a_device_of_windows(device):
    """A device's name, with anything behind a dot, is written another way; the control is Python's own list."""
    (part,) = folder_of(device, {}).parts
    assert part.lower() != device.lower()
    assert not is_reserved(part)


def test_a_long_name_is_cut_and_keeps_apart():
    """Names of hundreds of bytes, ASCII or not, fit into what file systems take and differ."""
    taken = {}
    keys = [f"val/{letter * 300}{i}" for letter in "x日" for i in range(3)]
    paths = [folder_of(key, taken) for key in keys]
    assert len(set(paths)) == len(keys)
    assert max(len(part.encode()) for path in paths for part in path.parts) <= 140


def test_a_key_has_the_same_folder_every_time():
    """The folder does not change when it is asked for again, nor when other keys come."""
    taken = {}
    keys = ["val/F1", "val/f1", "val/é", "val/e\u0301", "a//b", "a/b"]
    first = [folder_of(key, taken) for key in keys]
    assert [folder_of(key, taken) for key in keys] == first
    assert [str(first[0]), str(first[2])] == ["val/F1", "val/é"]


def seen_by_macos(path):
    """A path as a file system sees it that tells neither cases nor ways to write an accent apart."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", str(path)).casefold())


ODD = st.sampled_from("aAbB.% ~/é\u0301\u212bÅß#:\\\x00▫2Ec7on日png")
KEYS = st.text(ODD, min_size=1, max_size=8) | st.text(min_size=1)


@given(st.lists(KEYS, min_size=2, max_size=6, unique=True))
@example(["▫", "%AB", "~AB"])
@example(["a", "A", "a~~ca978112"])
@example(["a/7", "A/7.png", "a"])
@example(["/a", "a", "a/", "A//"])
@settings(deadline=None, max_examples=400)
def test_two_keys_never_share_a_file_and_none_leaves_its_folder(keys):
    """Whatever the keys: distinct files on any file system, none where another has a folder, all below one."""
    taken = {}
    files = [PurePosixPath("figures") / folder_of(key, taken) / "7.png" for key in keys]
    seen = [seen_by_macos(file) for file in files]
    assert len(set(seen)) == len(keys)
    assert not set(seen) & {seen_by_macos(parent) for file in files for parent in file.parents}
    for file in files:
        assert file.parts[0] == "figures"
        for part in file.parts:
            assert part.strip(".")
            assert part[-1] not in ". "
            assert len(part.encode()) <= 255
            assert not set(part) & set('<>:"/\\|?*\x00')
            assert not is_reserved(part)
