"""What requests and answers look like; FastAPI makes /openapi.json of it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

LONGEST_ID = 200
LONGEST_TEXT = 10_000
ItemId = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_ID)]
# Of a new item: something to see, nothing that a terminal or a line of a table would take for its own.
NewId = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f]{1,200}$")]
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT, pattern=r"\S")]


class Problem(BaseModel):
    """What was found, what was expected, what to do."""

    error: str


class Item(BaseModel):
    item_id: str
    text: str | None = Field(description="the first of its texts; null where none is known")
    cold: bool = Field(description="it occurs in no training window")
    new: bool = Field(description="it was added since the server started")
    semantic_id: list[int] | None = Field(description="its codes, coarse to fine, of a generative checkpoint")


class Recommended(Item):
    score: float | None = Field(
        description="cosine, log-probability or a blend's; of one checkpoint they compare"
    )
    because: str | None = Field(description="the item of the history that it is nearest to")
    likeness: float | None = Field(description="cosine of the two, or codes that their ids begin with alike")


class Recommendations(BaseModel):
    checkpoint: str = Field(description="the name of the one that was asked")
    latency_ms: float = Field(description="from the request's arrival to the answer, waiting included")
    items: list[Recommended] = Field(description="best first; fewer than k where the catalogue has no more")


class Found(BaseModel):
    items: list[Item]
    more: bool = Field(description="whether there are more behind them")


class Checkpoint(BaseModel):
    name: str
    path: str
    places_new_items: bool = Field(description="whether it can rank an item of POST /items")


class Health(BaseModel):
    status: str = Field(description="ok, or stopping once the server was told to end")
    checkpoints: list[Checkpoint]
    items: int = Field(description="in the catalogue, new ones included")
    cold_items: int
    new_items: int
    text_keys: list[str] = Field(description="text columns of a new item; none where nothing places it")
    max_k: int
    max_history: int
    max_new_items: int


def requests(limits, num_items):
    """(body of /recommend, body of POST /items, k and its default); limits: config.serving.LimitFlags."""
    most = min(limits.max_k, num_items)
    Count = Annotated[int, Field(ge=1, le=most, description=f"items; at most {most}")]

    class Recommend(BaseModel):
        model_config = ConfigDict(extra="forbid")
        history: Annotated[list[ItemId], Field(min_length=1, max_length=limits.max_history)] = Field(
            description="item ids, oldest first"
        )
        k: Count = min(10, most)
        checkpoint: str | None = Field(None, description="a name that /health lists; null = the first")
        exclude_seen: bool = Field(True, description="leave out items of the history")

    class NewItem(BaseModel):
        model_config = ConfigDict(extra="forbid")
        texts: dict[str, Text] = Field(
            min_length=1, description="text column: text, of the text_keys that /health lists"
        )
        item_id: NewId | None = Field(None, description="null = one is made up")

    return Recommend, NewItem, Count, min(10, most)
