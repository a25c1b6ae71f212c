"""What MiniOneRec's index.json, item.json and info.txt say of items; they must say the same."""

from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.data.convert.reading import field, lines_of, listed, read_object
from pixelrec_train.errors import InputError

TOGETHER = "Both must be of one build of the data"


@dataclass
class Items:
    """The items of index.json, each with its fields in item.json."""

    index_path: Path
    spelled: dict[str, str]  # item id -> the tokens of its id as one text
    rows: list[tuple[str, str, str, str]]  # item id, title, brand and categories, description
    other_titles: int = 0  # places that have another title: only texts of prompts depend on it
    first_other_title: str = ""

    def __post_init__(self):
        self.titles = {item_id: title for item_id, title, *_ in self.rows}

    @staticmethod
    def read(index_path, item_path):
        """Raises InputError where a file is of another form, or one lacks an item of the other."""
        index = read_object(index_path, "the tokens of its id")
        spelled = {item_id: "".join(map(str, words)) for item_id, words in index.items()}
        fields = read_object(item_path, 'an object with "title" and "description"')
        for path, here, other, there in (
            (index_path, spelled, item_path, fields),
            (item_path, fields, index_path, spelled),
        ):
            if lacking := [item_id for item_id in here if item_id not in there]:
                raise InputError(
                    f"{path}: {len(lacking):,} items have no entry in {other} ({listed(lacking)}). "
                    f"{TOGETHER}."
                )
        rows = [row_of(item_id, own, f"{item_path}: item {item_id!r}") for item_id, own in fields.items()]
        return Items(index_path, spelled, rows)

    def check(self, item_id, sid, title, where):
        """Compare what a place says of an item; sid, title: None = it says nothing of it.

        Raises:
            InputError: the item is unknown, or has another id.
        """
        if item_id not in self.spelled:
            raise InputError(
                f"{where}: item {item_id!r} has no entry in {self.index_path}. {TOGETHER}; name that of an "
                f"index with --name, or make the index for these items."
            )
        if sid is not None and sid != self.spelled[item_id]:
            raise InputError(
                f"{where}: item {item_id!r} has the id {sid[:80]!r}, but {self.index_path} says "
                f"{self.spelled[item_id]!r}. {TOGETHER}; make the files anew from one index."
            )
        if title is not None and title.split() != self.titles[item_id].split():
            self.first_other_title = self.first_other_title or f"{title[:60]!r} in {where}"
            self.other_titles += 1

    def lacking(self, info_path):
        """[item id] of the items that info.txt does not have. What it has is checked."""
        there = set()
        for number, line in lines_of(info_path):
            if not line.strip():
                continue
            where = f"{info_path} line {number:,}"
            sid, _, rest = line.strip("\r\n").partition("\t")
            title, tab, item_id = rest.rpartition("\t")
            if not tab:
                raise InputError(
                    f"{where} is {line.strip()[:60]!r}. It must be an id, a title and an item id, by tabs."
                )
            self.check(item_id.strip(), sid.strip(), title, where)
            there.add(item_id.strip())
        return [item_id for item_id in self.spelled if item_id not in there]


def row_of(item_id, fields, where):
    """(item id, title, brand and categories, description)"""
    if not isinstance(fields, dict):
        raise InputError(f'{where} is {str(fields)[:60]!r}. It must be an object with "title" and so on.')
    title, brand, categories, description = (
        field(fields, key, where) for key in ("title", "brand", "categories", "description")
    )
    return item_id, title, ", ".join(filter(None, (brand, categories))), description
