"""XXH3 with 64 bits and seed 0, as https://github.com/Cyan4973/xxHash describes it, for those who read snapshots."""

import struct

M = (1 << 64) - 1
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def word(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def key(at):
    return word(SECRET, at)


def fold(a, b):
    product = (a & M) * (b & M)
    return product & M ^ product >> 64


def mix(data, at, secret):
    return fold(word(data, at) ^ key(secret), word(data, at + 8) ^ key(secret + 8))


def avalanche(h):
    h = (h & M) ^ (h & M) >> 37
    h = h * 0x165667919E3779F9 & M
    return h ^ h >> 32


def avalanche64(h):
    h = (h ^ h >> 33) * P64[1] & M
    h = (h ^ h >> 29) * P64[2] & M
    return h ^ h >> 32


def short(data):
    """Up to 16 bytes."""
    n = len(data)
    if n == 0:
        return avalanche64(key(56) ^ key(64))
    if n < 4:
        combined = data[0] << 16 | data[n >> 1] << 24 | data[-1] | n << 8
        flip = struct.unpack_from("<II", SECRET)
        return avalanche64(combined ^ flip[0] ^ flip[1])
    if n <= 8:
        first, last = struct.unpack_from("<I", data)[0], struct.unpack_from("<I", data, n - 4)[0]
        h = (last + (first << 32)) ^ key(8) ^ key(16)
        h ^= (h << 49 | h >> 15) & M ^ (h << 24 | h >> 40) & M
        h = h * 0x9FB21C651E98DF25 & M
        h = (h ^ (h >> 35) + n) * 0x9FB21C651E98DF25 & M
        return h ^ h >> 28
    low, high = word(data, 0) ^ key(24) ^ key(32), word(data, n - 8) ^ key(40) ^ key(48)
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    return avalanche(n + swapped + high + fold(low, high))


def middle(data):
    """17 to 240 bytes."""
    n = len(data)
    sum = n * P64[0]
    if n <= 128:
        for step in range((n - 1) // 32, -1, -1):
            sum += mix(data, 16 * step, 32 * step) + mix(data, n - 16 * (step + 1), 32 * step + 16)
        return avalanche(sum)
    for round in range(8):
        sum += mix(data, 16 * round, 16 * round)
    sum = avalanche(sum)
    for round in range(8, n // 16):
        sum += mix(data, 16 * round, 16 * (round - 8) + 3)
    return avalanche(sum + mix(data, n - 16, 136 - 17))


def accumulate(sums, data, at, secret):
    for lane in range(8):
        value = word(data, at + 8 * lane)
        keyed = value ^ key(secret + 8 * lane)
        sums[lane ^ 1] = sums[lane ^ 1] + value & M
        sums[lane] = sums[lane] + (keyed & 0xFFFFFFFF) * (keyed >> 32) & M


def xxh3(data):
    n = len(data)
    if n <= 16:
        return short(data)
    if n <= 240:
        return middle(data)
    sums = [P32[2], P64[0], P64[1], P64[2], P64[3], P32[1], P64[4], P32[0]]
    blocks = (n - 1) // 1024
    for block in range(blocks):
        for stripe in range(16):
            accumulate(sums, data, 1024 * block + 64 * stripe, 8 * stripe)
        for lane in range(8):
            sums[lane] = (sums[lane] ^ sums[lane] >> 47 ^ key(128 + 8 * lane)) * P32[0] & M
    for stripe in range((n - 1 - 1024 * blocks) // 64):
        accumulate(sums, data, 1024 * blocks + 64 * stripe, 8 * stripe)
    accumulate(sums, data, n - 64, 192 - 64 - 7)
    merged = n * P64[0]
    for pair in range(4):
        merged += fold(sums[2 * pair] ^ key(11 + 16 * pair), sums[2 * pair + 1] ^ key(19 + 16 * pair))
    return avalanche(merged)


assert xxh3(b"") == 0x2D06800538D394C2
