"""The requests of include/caw/ioctl.h."""

import fcntl
import os
import struct

MAGIC = 0xCA
READ, WRITE = 2, 1
TOKEN_BYTES, CLONE_BYTES, REMOVE_BYTES, SAME_BYTES, INFO_BYTES = 16, 320, 288, 32, 512


def _request(direction, number, size):
    return direction << 30 | size << 16 | MAGIC << 8 | number


TOKEN = _request(READ, 1, TOKEN_BYTES)
CLONE = _request(READ | WRITE, 2, CLONE_BYTES)
REMOVE_TREE = _request(WRITE, 3, REMOVE_BYTES)
SYNC = _request(0, 4, 0)
SAME = _request(READ | WRITE, 5, SAME_BYTES)
INFO = _request(READ, 6, INFO_BYTES)
CHECKPOINT = _request(0, 7, 0)

INFO_FIELDS = (
    "total_bytes used_bytes reserve_bytes reclaiming_bytes node_reads node_read_bytes node_writes "
    "node_write_bytes blob_reads blob_read_bytes blob_writes blob_write_bytes checkpoints "
    "cache_bytes dirty_bytes dead_nodes requests clones flushed_writers").split()


def token(fd):
    buffer = bytearray(TOKEN_BYTES)
    fcntl.ioctl(fd, TOKEN, buffer)
    return bytes(buffer)


def clone_request(source_token, name, flags=0):
    name = os.fsencode(name)
    return bytearray(struct.pack("=16sIIQ32x256s", source_token, flags, 0, 0, name))


def clone(parent_fd, request):
    """`request` from clone_request(); apart so that only the system call is timed."""
    fcntl.ioctl(parent_fd, CLONE, request)


def remove_request(name, flags=0):
    return bytearray(struct.pack("=II24x256s", flags, 0, os.fsencode(name)))


def remove(parent_fd, request):
    fcntl.ioctl(parent_fd, REMOVE_TREE, request)


def sync(fd):
    fcntl.ioctl(fd, SYNC)


def checkpoint(fd):
    fcntl.ioctl(fd, CHECKPOINT)


def same(fd, other_token):
    buffer = bytearray(struct.pack("=16sI12x", other_token, 0))
    fcntl.ioctl(fd, SAME, buffer)
    return struct.unpack_from("=I", buffer, 16)[0] == 1


def info(fd):
    buffer = bytearray(INFO_BYTES)
    fcntl.ioctl(fd, INFO, buffer)
    version, flags, format_version, pid = struct.unpack_from("=IIIi", buffer, 0)
    result = dict(version=version, flags=flags, format_version=format_version, pid=pid)
    result["uuid"] = bytes(buffer[16:32]).hex()
    result.update(zip(INFO_FIELDS, struct.unpack_from(f"={len(INFO_FIELDS)}Q", buffer, 104)))
    return result
