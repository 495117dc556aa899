"""Bytes that are no UTF-8, and texts that cannot be: found and told."""


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


def is_unicode(text: str) -> bool:
    r"""Whether a text can be written in UTF-8: half of a pair of surrogates cannot.

    >>> is_unicode("\u00e9"), is_unicode("\ud800")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def told(data: bytes) -> str:
    r"""What was asked of a text, and the first byte of it that is wrong.

    >>> told(b"\xff")
    'must be UTF-8; got the byte 0xff.'
    """
    return f"must be UTF-8; got the byte 0x{wrong_byte(data):02x}."
