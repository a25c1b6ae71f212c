"""Files as people have them: packed or not, and in which encoding."""

import bz2
import codecs
import gzip
import lzma
import zipfile
import zlib

import pyarrow as pa

from pixelrec_train.errors import InputError, first_line

PIECE = 1 << 22  # bytes
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
GUESSES = ("utf-8", "gb18030", "latin-1")  # the first that decodes the whole file; the last decodes any
DAMAGES = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, pa.ArrowException)


def open_unpacked(path):
    """The bytes of a file, whatever it is packed with; that is told by its first bytes."""
    with open(path, "rb") as file:
        begin = file.read(6)
    opener = next((way for magic, way in PACKED.items() if begin.startswith(magic)), None)
    return opener(path) if opener else open(path, "rb")


def open_zip(path):
    archive = zipfile.ZipFile(path)
    names = [
        info.filename for info in archive.infolist() if info.file_size and "__MACOSX" not in info.filename
    ]
    if "[Content_Types].xml" in names:
        raise InputError(f"{path} is an Excel file, not a table. Save it as comma-separated text.")
    if len(names) != 1:
        raise InputError(f"{path} is a zip file with {len(names)} files; it must hold one.")
    return archive.open(names[0])


def open_zstd(path):
    return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")


PACKED = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open, b"\x28\xb5\x2f\xfd": open_zstd,
    b"PK\3\4": open_zip,
}  # fmt: skip


def damaged(path, error):
    """The InputError of a file that one of DAMAGES stopped; what the system says goes on as it is."""
    if isinstance(error, OSError) and error.errno:
        raise error
    return InputError(f"{path} is damaged: {first_line(error)} Copy it again, or unpack it yourself.")


def find_encoding(path, told=None):
    """(encoding, whether the file is UTF-8 without a quote), by decoding all of it.

    Args:
        told: the encoding it must be in; None = a byte order mark is believed, else the first of GUESSES.

    Raises:
        InputError: it is not in that encoding, or holds a NUL byte.
    """
    with open_unpacked(path) as file:
        begin = file.read(4)
    mark = next((name for first, name in BYTE_ORDER_MARKS.items() if begin.startswith(first)), None)
    guesses = [told] if told else [mark] if mark else GUESSES
    for encoding in guesses:
        quotes, lines = False, 1
        try:
            for text in decoded(path, encoding):
                if "\0" in text:
                    raise with_nul(path, lines + text[: text.index("\0")].count("\n"))
                quotes = quotes or '"' in text
                lines += text.count("\n")
        except LookupError:
            raise InputError(
                f"--encoding {encoding} is not known. Try utf-8, gb18030, latin-1 or utf-16."
            ) from None
        except UnicodeDecodeError as error:
            line, byte = lines + error.object[: error.start].count(b"\n"), error.object[error.start]
            continue
        return encoding, not quotes and encoding in ("utf-8", "utf-8-sig")
    raise InputError(
        f"{path} is not {guesses[0]} (byte {byte:02x} in line {line}). Leave out --encoding to have "
        f"it found, or name another one."
    )


def decoded(path, encoding):
    decoder = codecs.getincrementaldecoder(encoding)()
    with open_unpacked(path) as file:
        while piece := file.read(PIECE):
            yield decoder.decode(piece)
    yield decoder.decode(b"", True)


def with_nul(path, line):
    return InputError(
        f"{path} has a NUL byte in line {line}: is it damaged, or UTF-16 (--encoding utf-16-le)? To remove "
        f"them all: tr -d '\\000' < IN.csv > OUT.csv."
    )
