"""Bytes that are no UTF-8, found and told."""


def wrong_byte(data: bytes) -> int | None:
    r"""The first byte at which a text is no UTF-8, or None where it is.

    >>> wrong_byte(b"a\xc3\xa9"), wrong_byte(b"a\xff")
    (None, 255)
    """
    if data.isascii():
        return None
    try:
        data.decode()
    except UnicodeDecodeError as cause:
        return data[cause.start]
    return None


def told(data: bytes) -> str:
    r"""What was asked of a text, and the first byte of it that is wrong.

    >>> told(b"\xff")
    'must be UTF-8; got the byte 0xff.'
    """
    return f"must be UTF-8; got the byte 0x{wrong_byte(data):02x}."
