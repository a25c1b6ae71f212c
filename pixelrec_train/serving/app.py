"""The API and the page."""

import asyncio
import difflib
import math
import time
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from pixelrec_train.serving import messages
from pixelrec_train.serving.batching import TooLate
from pixelrec_train.serving.catalogue import Catalogue
from pixelrec_train.serving.column import Wanted
from pixelrec_train.serving.guard import Guard
from pixelrec_train.serving.problems import Refused, documented, speak_json

PAGE = Path(__file__).with_name("page")
FILES = {"/": "index.html", "/docs": "docs.html"} | {
    f"/{name}": name for name in ("style.css", "page.js", "docs.js", "icon.svg")
}


class Served:
    """What the endpoints share."""

    def __init__(self, columns, limits):
        """
        Args:
            columns: [Column], the first of them the one that is asked where a request names none.
            limits: config.serving.LimitFlags.
        """
        self.columns, self.limits = columns, limits
        self.catalogue = Catalogue(columns)
        self.takers = [column for column in columns if column.places_new_items]
        keys = [column.shelf.placer.text_keys for column in self.takers]
        self.text_keys = [key for key in keys[0] if all(key in other for other in keys)] if keys else []
        self.adding, self.made_up, self.tasks = asyncio.Lock(), 0, set()

    def column(self, name):
        if name is None:
            return self.columns[0]
        names = [column.name for column in self.columns]
        if name not in names:
            near = difflib.get_close_matches(name[:100], names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names)}."
            raise Refused(404, f"there is no checkpoint {name[:100]!r} here. {hint}")
        return self.columns[names.index(name)]

    async def check(self, column, item_ids):
        """Raises Refused where a column does not rank one of them."""
        for item_id in item_ids:
            if item_id in column.shelf.door.number:
                continue
            if item_id in self.catalogue.number:
                raise Refused(404, f"{column.name} cannot place the new item {item_id!r}: leave it out.")
            hint = await run_in_threadpool(self.catalogue.near, item_id)
            raise Refused(404, f"there is no item {item_id!r} among {len(self.catalogue.item_ids):,}. {hint}")

    async def add(self, body):
        """messages.Item of a new item, which all columns know that can place it."""
        async with self.adding:
            if not self.takers:
                raise Refused(409, "no checkpoint that is served places new items by their texts.")
            if self.catalogue.new >= self.limits.max_new_items:
                added = self.catalogue.new
                raise Refused(409, f"{added} items were added; no more are taken (--max_new_items).")
            if other := body.texts.keys() - set(self.text_keys):
                keys = ", ".join(self.text_keys)
                raise Refused(
                    404, f"no text column {min(other)!r:.100} is read here. Those that are: {keys}."
                )
            item_id = body.item_id or self.free_id()
            if item_id in self.catalogue.number:
                raise Refused(409, f"the catalogue has an item {item_id!r} already. Choose another id.")
            for column in self.takers:
                await column.add_item(item_id, body.texts)
            first = next(body.texts[key] for key in self.text_keys if key in body.texts)
            self.catalogue.add(item_id, first)
        return messages.Item(**self.catalogue.told(item_id))

    def free_id(self):
        while True:
            self.made_up += 1
            if (item_id := f"new-{self.made_up}") not in self.catalogue.number:
                return item_id

    def answer(self, column, found, began):
        """found: [Recommendation]"""
        items = [
            messages.Recommended(
                **self.catalogue.told(one.item_id) | {"text": one.text},
                score=one.score if math.isfinite(one.score) else None,
                because=one.because, likeness=one.likeness,
            )
            for one in found
        ]  # fmt: skip
        took = round(1000 * (time.perf_counter() - began), 3)
        return messages.Recommendations(checkpoint=column.name, latency_ms=took, items=items)


def make_app(columns, limits, hosts=("localhost",)):
    """The application behind its Guard; hosts: names of this server. See Served."""
    served = Served(columns, limits)

    @asynccontextmanager
    async def lifespan(app):
        yield
        for column in columns:
            await run_in_threadpool(column.batcher.close)

    app = FastAPI(
        title="pixelrec_train", docs_url=None, redoc_url=None, lifespan=lifespan,
        description="Items for a history, from checkpoints of pixelrec_train.",
    )  # fmt: skip
    seconds = limits.timeout
    speak_json(app, seconds)
    routes(app, served, seconds)
    for path, name in FILES.items():
        app.get(path, include_in_schema=False)(file_of(name))
    guard = Guard(app, set(hosts), limits.max_body, seconds, 4 * limits.max_waiting)
    served.guard, guard.served = guard, served
    return guard


def file_of(name):
    def file():
        return FileResponse(PAGE / name, headers={"cache-control": "no-cache"})

    return file


def routes(app, served, seconds):
    catalogue, limits = served.catalogue, served.limits
    Recommend, NewItem, Count, default_k = messages.requests(limits, len(catalogue.item_ids))

    @app.post("/recommend", responses=documented(404, 408, 413, 422, 409, 504))
    async def recommend(body: Recommend) -> messages.Recommendations:
        """The k best items for a history."""
        began = time.perf_counter()
        column = served.column(body.checkpoint)
        await served.check(column, body.history)
        found = await column.recommend(Wanted(tuple(body.history), body.k, body.exclude_seen), seconds)
        return served.answer(column, found, began)

    @app.get("/items", responses=documented(422))
    def items(
        q: str = Query("", max_length=200, description="words that all occur in its text or id"),
        limit: int = Query(20, ge=1, le=100),
        offset: int = Query(0, ge=0, le=10**9),
    ) -> messages.Found:
        """Items of the catalogue, in its order."""
        found, more = catalogue.find(q, limit, offset)
        return messages.Found(items=[catalogue.told(catalogue.item_ids[n]) for n in found], more=more)

    @app.post("/items", status_code=201, responses=documented(404, 408, 409, 413, 422, 504))
    async def add(body: NewItem) -> messages.Item:
        """Make an item recommendable that nobody took yet: its text says where it belongs. It stays until the
        server ends."""
        task = asyncio.create_task(served.add(body))
        served.tasks.add(task)  # it goes on when nobody waits any longer
        task.add_done_callback(served.tasks.discard)
        try:
            return await asyncio.wait_for(asyncio.shield(task), seconds)
        except asyncio.TimeoutError:
            raise TooLate from None

    @app.get("/similar", responses=documented(404, 409, 422, 504))
    async def similar(
        item: messages.ItemId, k: Count = default_k, checkpoint: str | None = None
    ) -> messages.Recommendations:
        """The items most like one: by the cosine of their vectors, or by the codes that their ids share."""
        began = time.perf_counter()
        column = served.column(checkpoint)
        await served.check(column, [item])
        return served.answer(column, await column.similar(item, k, seconds), began)

    @app.get("/health", responses=documented())
    async def health() -> messages.Health:
        """What is served, and the limits of requests."""
        return messages.Health(
            status="stopping" if served.guard.stopping else "ok",
            checkpoints=[
                messages.Checkpoint(name=c.name, path=c.checkpoint, places_new_items=c.places_new_items)
                for c in served.columns
            ],
            items=len(catalogue.item_ids), cold_items=catalogue.num_cold, new_items=catalogue.new,
            text_keys=served.text_keys, max_k=min(limits.max_k, catalogue.of_training),
            max_history=limits.max_history, max_new_items=limits.max_new_items,
        )  # fmt: skip
