"""What a picture will take once decoded, told from its header: the pipeline keeps its bounds before any pixel exists."""

from __future__ import annotations

from transforms.errors import RecordError
from transforms.images.header import sniff
from transforms.pictures import FORMATS
from transforms.record import IMAGE_EXTENSIONS, extension


def estimate_decoded_bytes(data: bytes, field: str) -> int:
    """Bytes of the decoded samples; 0 for other fields and for damaged headers, which decode to nothing."""
    if extension(field) not in IMAGE_EXTENSIONS and extension(field) != "npy":
        return 0
    try:
        header = FORMATS[sniff(data)].read_header(data)
    except RecordError:
        return 0
    return header.width * header.height * header.channels * max(header.bits, 8) // 8
