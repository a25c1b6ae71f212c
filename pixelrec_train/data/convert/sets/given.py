"""Files as somebody names them: one by one, or the folder or zip file they lie in."""

import fnmatch
import os
import zipfile
from pathlib import Path

from pixelrec_train.data.convert.reading import listed
from pixelrec_train.data.table_files import damaged
from pixelrec_train.errors import InputError
from pixelrec_train.files import missing


def files_of(named):
    """[path] of every file that is named, or lies in a folder or zip file that is; sorted in each.

    A path into a zip file is one that table_files.open_unpacked opens.

    Raises:
        InputError: something is not there, or is a tar archive.
    """
    files = []
    for path in map(Path, named):
        if os.path.isdir(path):
            files += sorted(file for file in path.rglob("*") if file.is_file())
        elif not os.path.isfile(path):
            raise missing(path, "FILES:")
        elif path.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
            raise InputError(f"{path} is a tar archive. Unpack it (tar -xf {path.name}) and name the folder.")
        elif zipfile.is_zipfile(path):
            files += members(path)
        else:
            files.append(path)
    return files


def members(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(file.filename for file in archive.infolist() if not file.is_dir())
    except zipfile.BadZipFile as error:
        raise damaged(path, error) from None
    return [path / name for name in names if "__MACOSX" not in name]


def pick(files, *patterns, but=()):
    """The files whose names fit a pattern, in their order; case makes no difference."""
    return [
        file for file in files
        if any(fnmatch.fnmatch(file.name.lower(), pattern) for pattern in patterns)
        and not any(fnmatch.fnmatch(file.name.lower(), pattern) for pattern in but)
    ]  # fmt: skip


def needed(files, name, what, *patterns, but=()):
    """The same; an InputError where there is none. name: of the data set; what: is looked for, in words."""
    found = pick(files, *patterns, but=but)
    if not found:
        names = list(dict.fromkeys(file.name for file in files))
        here = f"What was named holds {listed(names, str)}" if names else "What was named holds no file"
        raise InputError(
            f"{name} needs {what}. {here}. Name it, or the folder or zip file it lies in (docs/convert.md)."
        )
    return found


def only(files, name, what, *patterns, but=()):
    """The one file that fits; an InputError where there are several."""
    found = needed(files, name, what, *patterns, but=but)
    if len(found) > 1:
        raise InputError(
            f"{name} needs one file of {what}, but {len(found)} fit: {listed(found, str)}. Name the one to "
            f"read."
        )
    return found[0]
