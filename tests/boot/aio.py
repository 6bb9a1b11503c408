# SPDX-License-Identifier: GPL-2.0
"""A Python program for the guest that reads and writes by io_submit(2) and io_uring."""

SOURCE = """
import ctypes, errno, mmap, os, struct
libc = ctypes.CDLL(None, use_errno=True)

def syscall(number, *arguments):
    done = libc.syscall(number, *[ctypes.c_long(argument) for argument in arguments])
    if done < 0:
        raise OSError(ctypes.get_errno(), f"syscall {number}")
    return done

def buffer(size, content=b""):
    area = mmap.mmap(-1, size)
    area[: len(content)] = content
    return area

def address(area):
    return ctypes.addressof(ctypes.c_char.from_buffer(area))

def name(result):
    return errno.errorcode[-result] if result < 0 else result

class Aio:
    def __init__(self, depth=64):
        context = ctypes.c_ulong(0)
        syscall(206, depth, ctypes.addressof(context))
        self.context = context.value

    # Submits reads and writes (what, fd, buffer, length, offset, [flags]), numbered from 0.
    def submit(self, *operations):
        self.kept = []
        for number, (what, fd, area, length, offset, *flags) in enumerate(operations):
            opcode = {"read": 0, "write": 1}[what]
            control = struct.pack("<QIiHhIQQqQII", number, 0, sum(flags), opcode, 0, fd, address(area), length, offset, 0, 0, 0)
            self.kept.append(ctypes.create_string_buffer(control))
        pointers = (ctypes.c_void_p * len(operations))(*[ctypes.addressof(one) for one in self.kept])
        return syscall(209, self.context, len(operations), ctypes.addressof(pointers))

    # Waits for so many; their results by number, errors by name.
    def wait(self, count):
        events = (ctypes.c_int64 * (4 * count))()
        found = syscall(208, self.context, count, count, ctypes.addressof(events), 0)
        return {events[4 * i]: name(events[4 * i + 2]) for i in range(found)}

    def run(self, *operations):
        assert self.submit(*operations) == len(operations)
        results = self.wait(len(operations))
        return [results[number] for number in range(len(operations))]

    def destroy(self):
        syscall(207, self.context)

class Uring:
    def __init__(self, depth=64):
        parameters = (ctypes.c_uint32 * 30)()
        self.fd = syscall(425, depth, ctypes.addressof(parameters))
        sq, cq = parameters[10:20], parameters[20:30]
        self.sq = mmap.mmap(self.fd, sq[6] + 4 * parameters[0], offset=0)
        self.cq = mmap.mmap(self.fd, cq[5] + 16 * parameters[1], offset=0x8000000)
        self.sqes = mmap.mmap(self.fd, 64 * parameters[0], offset=0x10000000)
        self.sq_tail, self.sq_mask, self.sq_array = sq[1], sq[2], sq[6]
        self.cq_head, self.cq_tail, self.cq_mask, self.cqes = cq[0], cq[1], cq[2], cq[5]

    def at(self, ring, offset):
        return struct.unpack_from("<I", ring, offset)[0]

    def submit(self, *operations):
        tail, mask = self.at(self.sq, self.sq_tail), self.at(self.sq, self.sq_mask)
        for number, (what, fd, area, length, offset, *flags) in enumerate(operations):
            opcode, slot = {"read": 22, "write": 23, "fsync": 3}[what], (tail + number) & mask
            entry = struct.pack("<BBHiQQIIQ", opcode, 0, 0, fd, offset, area and address(area) or 0, length, sum(flags), number)
            self.sqes[64 * slot : 64 * slot + 64] = entry.ljust(64, b"\\0")
            struct.pack_into("<I", self.sq, self.sq_array + 4 * slot, slot)
        struct.pack_into("<I", self.sq, self.sq_tail, (tail + len(operations)) & 0xffffffff)
        return syscall(426, self.fd, len(operations), 0, 0, 0, 0)

    def wait(self, count):
        results = {}
        while len(results) < count:
            head, tail = self.at(self.cq, self.cq_head), self.at(self.cq, self.cq_tail)
            if head == tail:
                syscall(426, self.fd, 0, 1, 1, 0, 0)
                continue
            slot = head & self.at(self.cq, self.cq_mask)
            number, result, _ = struct.unpack_from("<QiI", self.cq, self.cqes + 16 * slot)
            results[number] = name(result)
            struct.pack_into("<I", self.cq, self.cq_head, (head + 1) & 0xffffffff)
        return results

    run = Aio.run
"""
