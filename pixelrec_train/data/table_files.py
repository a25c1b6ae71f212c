"""Files as people have them: packed or not, and in which encoding."""

import codecs
import functools
import os
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from pixelrec_train.errors import InputError, first_line

BLOCK = 1 << 22  # bytes of a file that are read at once
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
GUESSES = ("utf-8", "gb18030", "latin-1")  # the first that decodes the whole file; the last decodes any
DAMAGES = (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile, pa.ArrowException)


def of_beginning(kinds, begin):
    """kinds: {first bytes of a file: what it is}"""
    return next((kind for magic, kind in kinds.items() if begin.startswith(magic)), None)


def open_unpacked(path):
    """The bytes of a file, whatever it is packed with; that is told by its first bytes.

    A path may lead into a zip file: ml-1m.zip/ml-1m/ratings.dat. Nothing is unpacked onto the disk.
    """
    if not os.path.lexists(path) and (archive := next(filter(os.path.isfile, Path(path).parents), None)):
        return zipfile.ZipFile(archive).open(Path(path).relative_to(archive).as_posix())
    with open(path, "rb") as file:
        begin = file.read(4)
    if begin != b"PK\3\4":
        return pa.input_stream(str(path), compression=of_beginning(PACKED, begin))
    archive = zipfile.ZipFile(path)
    names = [
        file.filename for file in archive.infolist() if file.file_size and "__MACOSX" not in file.filename
    ]
    if "[Content_Types].xml" in names:
        raise InputError(f"{path} is an Excel file, not a table. Save it as comma-separated text.")
    if len(names) != 1:
        raise InputError(f"{path} is a zip file with {len(names)} files; it must hold one.")
    return archive.open(names[0])


def parquet_file(path):
    file = open_unpacked(path)  # packed once more, it cannot be read from its end
    return pa.parquet.ParquetFile(file if isinstance(file, pa.OSFile) else pa.BufferReader(file.read()))


def damaged(path, error):
    """The InputError of a file that one of DAMAGES stopped; what the system says goes on as it is."""
    if isinstance(error, OSError) and error.errno:
        raise error
    return InputError(f"{path} is damaged: {first_line(error)} Copy it again, or unpack it yourself.")


def find_encoding(path, guesses):
    """(the first encoding that decodes the whole file, whether it is UTF-8 without a quote)

    Raises:
        InputError: none of them does, or the file holds a NUL byte.
    """
    for encoding in guesses:
        lines, quoted = 1, False
        try:
            with open_unpacked(path) as file:
                for text in codecs.iterdecode(iter(functools.partial(file.read, BLOCK), b""), encoding):
                    if "\0" in text:
                        line = lines + text[: text.index("\0")].count("\n")
                        raise InputError(
                            f"{path} has a NUL byte in line {line}: is it damaged, or UTF-16 (--encoding "
                            f"utf-16-le)? To remove them all: tr -d '\\000' < IN.csv > OUT.csv."
                        )
                    quoted, lines = quoted or '"' in text, lines + text.count("\n")
            return encoding, not quoted and encoding in ("utf-8", "utf-8-sig")
        except LookupError:
            raise InputError(
                f"--encoding {encoding} is not known. Try utf-8, gb18030, latin-1 or utf-16."
            ) from None
        except UnicodeDecodeError as error:
            line, byte = lines + error.object[: error.start].count(b"\n"), error.object[error.start]
    raise InputError(
        f"{path} is not {guesses[0]} (byte {byte:02x} in line {line}). Leave out --encoding to have "
        f"it found, or name another one."
    )
