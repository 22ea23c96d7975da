"""What the pair factory is measured against: decode, crop and encode alone, in one loop without engine, threads or bookkeeping.

Every crop is encoded twice, once for each half of a pair, with the same encoder, and written to a tar with `tarfile`.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

import numpy as np

from transforms.formats.tar import read_tar
from transforms.pictures import EncodeOptions, Picture, Samples, decode, encode
from transforms.record import source_field


def encoded(samples: Samples, codec: str) -> bytes:
    if codec == "npy":
        buffer = io.BytesIO()
        np.save(buffer, samples, allow_pickle=False)
        return buffer.getvalue()
    data, _ = encode(Picture(samples, None, codec), codec, EncodeOptions())
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, nargs="+", help="tars")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--codec", choices=("png", "webp", "npy"))
    parser.add_argument("--patches", type=int)
    parser.add_argument("--size", type=int)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    arguments.output.mkdir(parents=True)
    for tar in arguments.input:
        with tarfile.open(arguments.output / tar.name, "w") as archive:
            for record in read_tar(str(tar)):
                field = source_field(record.fields)
                samples = decode(record.fields[field], field).samples
                for patch in range(arguments.patches):
                    top, left = (rng.integers(side - arguments.size + 1) for side in samples.shape[:2])
                    crop = np.ascontiguousarray(samples[top : top + arguments.size, left : left + arguments.size])
                    for half in ("clean", "degraded"):
                        data = encoded(crop, arguments.codec)
                        member = tarfile.TarInfo(f"{record.key}-p{patch:05d}.{half}.{arguments.codec}")
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main()
