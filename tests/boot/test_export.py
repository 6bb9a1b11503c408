# SPDX-License-Identifier: GPL-2.0
"""File handles: name_to_handle_at(2) and open_by_handle_at(2)."""

import pytest

RIG = {"settings": {"entry_timeout": 3600, "attr_timeout": 3600}}

# What the programs below have at hand.
PROGRAM = """
import ctypes, errno, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)

def result(done):
    if done < 0:
        raise OSError(ctypes.get_errno(), "")
    return done

def name(path, flags=0, room=128):
    handle = ctypes.create_string_buffer(struct.pack("Ii", room, 0), 8 + 128)
    mount = ctypes.c_int()
    result(libc.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(mount), flags))
    length, kind = struct.unpack_from("Ii", handle.raw)
    return handle.raw[:8 + length].hex()

def opened(handle, flags=os.O_RDONLY):
    mount = os.open("/mnt", os.O_RDONLY)
    try:
        return result(libc.open_by_handle_at(mount, ctypes.create_string_buffer(bytes.fromhex(handle)), flags))
    finally:
        os.close(mount)

def attempt(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]

def content(handle):
    fd = opened(handle)
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)

def forget():
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("2")

"""


def files(tree):
    """What is shared."""
    tree.file("file", "content\n")
    tree.file("a/b/c/deep", "deep\n")
    tree.link("link", "file")
    for number in range(4):
        tree.file(f"gone{number}", "gone\n")


@pytest.fixture
def share(rig):
    """Mounts the share as a test asks for it, and unmounts it at the end."""

    def mount(flags=""):
        rig.daxd.configure(init_flags=flags)
        rig.guest.mount("daxd")
        return lambda script: rig.guest.value(PROGRAM + script)

    yield mount
    rig.guest.umount()
    rig.unmounted()


@pytest.mark.parametrize("flags", ["", "+EXPORT_SUPPORT"])
def test_cached(share, flags):
    """A handle of what is in the cache leads to it, and two names of a file have one handle."""
    run = share(flags)
    assert run("""
held = [os.open(path, os.O_PATH) for path in ("/mnt/file", "/mnt/a/b/c/deep", "/mnt/a/b")]
directory = opened(name("/mnt/a/b"), os.O_DIRECTORY)
print(json.dumps([content(name("/mnt/file")), content(name("/mnt/a/b/c/deep")), os.listdir(directory),
                  name("/mnt/file") == name("/mnt/./file"), name("/mnt/file") != name("/mnt/a")]))
""") == ["content\n", "deep\n", ["c"], True, True]


def test_without_support(rig, share):
    """Without EXPORT_SUPPORT a handle of what is not cached any more is stale, and the daemon is not asked."""
    run = share()
    assert run("""
handle = name("/mnt/file")
forget()
print(json.dumps(attempt(content, handle)))
""") == "ESTALE"
    assert rig.daxd.count("LOOKUP") == 1


def test_with_support(rig, share):
    """With EXPORT_SUPPORT the daemon finds what is not cached any more: files, and directories with their way to the root."""
    run = share("+EXPORT_SUPPORT")
    assert run("""
handles = [name("/mnt/file"), name("/mnt/a/b/c/deep"), name("/mnt/a/b/c")]
forget()
got = [content(handles[0]), content(handles[1])]
forget()
directory = opened(handles[2], os.O_DIRECTORY)
got += [os.listdir(directory), os.readlink(f"/proc/self/fd/{directory}"), os.listdir(f"/proc/self/fd/{directory}/../..")]
got += [os.stat("/mnt/a/b/c").st_ino == os.fstat(directory).st_ino, os.read(os.open("/mnt/a/b/c/deep", 0), 9).decode()]
print(json.dumps(got))
""") == ["content\n", "deep\n", ["deep"], "/mnt/a/b/c", ["b"], True, "deep\n"]


def test_gone(rig, share):
    """The handle of a file that was deleted, or is another one now, is stale."""
    run = share("+EXPORT_SUPPORT")
    assert run("""
handle = name("/mnt/gone0")
os.unlink("/mnt/gone0")
forget()
print(json.dumps(attempt(content, handle)))
""") == "ESTALE"
    handle = run("""
handle = name("/mnt/gone1")
forget()
print(json.dumps(handle))
""")
    rig.daxd.set_fault("set", "LOOKUP", fields={"entry.generation": 7})
    assert run(f"print(json.dumps(attempt(content, {handle!r})))") == "ESTALE"
    rig.daxd.clear_faults()
    assert run(f"forget()\nprint(json.dumps(attempt(content, {handle!r})))") == "gone\n"


def test_foreign_handles(share):
    """Handles that are made up are stale, whatever they say: no such node, another generation, another form, another length."""
    run = share("+EXPORT_SUPPORT")
    assert run("""
def made(kind, *words):
    return struct.pack(f"Ii{len(words)}I", 4 * len(words), kind, *words).hex()
made_up = [made(0x81, 0, 0, 0), made(0x81, 0, 1, 5), made(0x81, 0, 99999, 0), made(0x81, 0xffffffff, 0xffffffff, 0), made(0x81, 0, 1),
           made(0x82, 0, 99999, 0, 0, 1, 0), made(1, 0, 1, 0)]
print(json.dumps([attempt(content, handle) for handle in made_up]))
""") == ["ESTALE"] * 7


def test_root(share):
    """The root has a handle, which never goes."""
    run = share("+EXPORT_SUPPORT")
    assert run("""
handle = name("/mnt")
forget()
print(json.dumps(sorted(os.listdir(opened(handle)))[:2]))
""") == ["a", "file"]


def test_too_little_room(share):
    """Whoever has too little room for a handle is told how much it takes."""
    run = share()
    assert run("""
handle = ctypes.create_string_buffer(struct.pack("Ii", 4, 0), 16)
mount = ctypes.c_int()
done = libc.name_to_handle_at(-100, b"/mnt/file", handle, ctypes.byref(mount), 0)
print(json.dumps([done, errno.errorcode[ctypes.get_errno()], struct.unpack_from("I", handle.raw)[0]]))
""") == [-1, "EOVERFLOW", 12]


def test_no_export(share):
    """A daemon that takes NO_EXPORT_SUPPORT: no handles that could be opened, but those that tell files apart (AT_HANDLE_FID)."""
    run = share("+NO_EXPORT_SUPPORT")
    assert run("""
print(json.dumps([attempt(name, "/mnt/file"), name("/mnt/file", 0x200) != name("/mnt/a", 0x200)]))
""") == ["ENOTSUP", True]
