"""A key's shard as the database computes it: `(hashtextextended(key, 0) & 63)::smallint`.

The column is generated, and servers before PostgreSQL 18 don't publish generated columns. The function is Bob
Jenkins' lookup3 as PostgreSQL uses it (`hash_bytes_extended`, seed 0, on a little-endian machine); of its 64 bits the
lowest six count. Keys repeat, so what was computed is remembered.
"""

from backstay.outbox.store import SHARDS

_MASK = 0xFFFFFFFF
_MAX_KEYS = 50_000  # remembered
_known: dict[str, int] = {}


def shard_of(key: str) -> int:
    """Return the shard of `key`."""
    shard = _known.get(key)
    if shard is None:
        if len(_known) >= _MAX_KEYS:
            _known.clear()
        shard = _known[key] = _hash(key.encode()) & (SHARDS - 1)
    return shard


def _hash(data: bytes) -> int:
    """Return the lower 32 bits."""
    word, size, at = int.from_bytes, len(data), 0
    a = b = c = (0x9E3779B9 + size + 3923095) & _MASK
    while size - at >= 12:
        a = (a + word(data[at : at + 4], "little")) & _MASK
        b = (b + word(data[at + 4 : at + 8], "little")) & _MASK
        c = (c + word(data[at + 8 : at + 12], "little")) & _MASK
        a, c = ((a - c) & _MASK) ^ ((c << 4 | c >> 28) & _MASK), (c + b) & _MASK
        b, a = ((b - a) & _MASK) ^ ((a << 6 | a >> 26) & _MASK), (a + c) & _MASK
        c, b = ((c - b) & _MASK) ^ ((b << 8 | b >> 24) & _MASK), (b + a) & _MASK
        a, c = ((a - c) & _MASK) ^ ((c << 16 | c >> 16) & _MASK), (c + b) & _MASK
        b, a = ((b - a) & _MASK) ^ ((a << 19 | a >> 13) & _MASK), (a + c) & _MASK
        c, b = ((c - b) & _MASK) ^ ((b << 4 | b >> 28) & _MASK), (b + a) & _MASK
        at += 12
    rest = data[at:]
    a = (a + word(rest[:4], "little")) & _MASK
    b = (b + word(rest[4:8], "little")) & _MASK
    c = (c + (word(rest[8:], "little") << 8)) & _MASK  # its lowest byte is the length's
    c = ((c ^ b) - (b << 14 | b >> 18)) & _MASK
    a = ((a ^ c) - (c << 11 | c >> 21)) & _MASK
    b = ((b ^ a) - (a << 25 | a >> 7)) & _MASK
    c = ((c ^ b) - (b << 16 | b >> 16)) & _MASK
    a = ((a ^ c) - (c << 4 | c >> 28)) & _MASK
    b = ((b ^ a) - (a << 14 | a >> 18)) & _MASK
    return ((c ^ b) - (b << 24 | b >> 8)) & _MASK
