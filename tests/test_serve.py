"""scripts/serve.py: answers are Recommender's, whoever shares a batch; what is wrong is one sentence."""

import asyncio
import csv
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import urlencode

import forks
import hypothesis
import pytest
import schemathesis
from conftest import ROOT
from good_folder import write_good_folder

from pixelrec_train.config.serving import LimitFlags, ServeConfig
from pixelrec_train.errors import InputError
from pixelrec_train.flags import parse_args
from pixelrec_train.serving.app import FILES, make_app
from pixelrec_train.serving.batching import Batcher, Busy, TooLate
from pixelrec_train.serving.column import Column
from pixelrec_train.serving.running import bound, server_of
from pixelrec_train.serving.shelf import Shelf
from pixelrec_train.trainings import serve
from pixelrec_train.trainings.recommend import Recommender

HOSTILE = "<img src=x onerror=\"document.title='taken over'\">"


@pytest.fixture(scope="module")
def folder(demo, demo_config, tmp_path_factory):
    """The good folder, as the current directory; two titles of its items are changed."""
    folder, before = tmp_path_factory.mktemp("served"), os.getcwd()
    write_good_folder(folder, demo, demo_config)
    with open(folder / "items.csv", encoding="utf-8", newline="") as file:
        names, *rows = list(csv.reader(file))
    rows[0][names.index("title")] = HOSTILE
    with open(folder / "items.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    os.chdir(folder)
    yield SimpleNamespace(path=folder, hostile=rows[0][names.index("item_id")])
    os.chdir(before)


BOTH = ("done/best_model", "told/best_model")
FLAGS = {
    "retrieval": "exact",
    "port": 0,
    "timeout": 20.0,
    "max_body": 4000,
    "max_history": 20,
}


@pytest.fixture(scope="module")
def served(folder):
    """A server of both heads in a thread of this process."""
    config = ServeConfig(checkpoint=BOTH, **FLAGS)
    guard, listener = serve.app_of(config), bound(config.host, 0)
    server = server_of(guard, 1.0)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield SimpleNamespace(port=listener.getsockname()[1], guard=guard, columns=guard.served.columns)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def ask(port, path, body=None, method=None, **headers):
    """(status, what the JSON holds, headers)"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"content-type": "application/json"} if body is not None else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, sent, kind | named)
        answer = connection.getresponse()
        text = answer.read()
        told = json.loads(text) if "json" in answer.getheader("content-type", "") else text.decode()
        return answer.status, told, dict(answer.getheaders())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def doors(folder):
    return dict(
        zip(("two_tower", "generative"), (Recommender.load(c, retrieval="exact") for c in BOTH), strict=True)
    )


def test_who_asks_at_once_gets_what_each_would_get_alone(served, doors):
    """Histories of many lengths, so that searches of a generative model are of several widths."""
    ids = doors["two_tower"].item_ids
    wanted = [
        (name, ids[n : n + length], 1 + n % 7, bool(n % 3))
        for name in doors
        for n, length in enumerate([1, 2, 5, 18, 3, 11, 1, 20])
    ]

    def one(question):
        name, history, k, exclude = question
        body = {"history": history, "k": k, "checkpoint": name, "exclude_seen": exclude}
        return ask(served.port, "/recommend", body)

    with ThreadPoolExecutor(len(wanted)) as pool:
        answers = list(pool.map(one, wanted))
    for (name, history, k, exclude), (status, told, _) in zip(wanted, answers, strict=True):
        assert status == 200 and told["checkpoint"] == name and told["latency_ms"] > 0
        (alone,) = doors[name].recommend([history], k, exclude)
        assert [item["item_id"] for item in told["items"]] == [item.item_id for item in alone]
        assert [item["score"] for item in told["items"]] == pytest.approx(
            [item.score for item in alone], abs=1e-5
        )
        assert [item["because"] for item in told["items"]] == [item.because for item in alone]
        codes = [list(doors["generative"].codes(doors[name].number[item.item_id])) for item in alone]
        assert [item["semantic_id"] for item in told["items"]] == codes


def test_items_are_found_by_words_of_text_and_id_and_cold_ones_are_marked(served, doors, folder):
    door = doors["two_tower"]
    counts = door.loaded.inputs.split.train_counts
    status, told, _ = ask(served.port, "/items?limit=100&offset=0")
    assert status == 200 and [item["item_id"] for item in told["items"]] == door.item_ids[:100]
    for item in told["items"]:
        n = door.number[item["item_id"]]
        assert item["text"] == door.texts[n] and item["cold"] == (counts[n] == 0) and not item["new"]
    words = door.texts[7].split()[:2]
    query = urlencode({"q": " ".join(words).upper(), "limit": 100})
    _, told, _ = ask(served.port, f"/items?{query}")
    assert door.item_ids[7] in [item["item_id"] for item in told["items"]]
    _, told, _ = ask(served.port, "/items?q=no+such+words+anywhere")
    assert told == {"items": [], "more": False}
    _, told, _ = ask(served.port, "/health")
    assert told["cold_items"] == int((counts == 0).sum()) + told["new_items"]
    assert [one["places_new_items"] for one in told["checkpoints"]] == [True, False]


def test_what_is_alike_is_what_a_slow_search_finds(served, doors):
    door = doors["two_tower"]
    item = door.item_ids[5]
    cosines = {
        i: float(door.recommender.items[n] @ door.recommender.items[5])
        for i, n in door.number.items()
        if n != 5
    }
    _, told, _ = ask(served.port, f"/similar?item={item}&k=4&checkpoint=two_tower")
    first = sorted(cosines, key=cosines.get, reverse=True)[:4]
    assert [one["item_id"] for one in told["items"]] == first
    door = doors["generative"]
    shared = {
        i: len(os.path.commonprefix([door.codes(n), door.codes(5)])) for i, n in door.number.items() if n != 5
    }
    _, told, _ = ask(served.port, f"/similar?item={item}&k=4&checkpoint=generative")
    assert [one["score"] for one in told["items"]] == sorted(shared.values(), reverse=True)[:4]


def test_a_new_item_is_there_at_once_as_the_flag_new_items_places_it(served, doors, tmp_path, monkeypatch):
    door = doors["two_tower"]
    twin = door.texts[9]
    status, told, _ = ask(served.port, "/items", {"item_id": "fresh", "texts": {"title": twin}})
    wanted = {"item_id": "fresh", "text": twin, "cold": True, "new": True, "semantic_id": None}
    assert (status, told) == (201, wanted)
    table = tmp_path / "new.csv"
    with open(table, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("item_id", "title", "tag", "description"), ("fresh", twin, "", "")])
    other = Recommender.load(BOTH[0], retrieval="exact", new_items=str(table))
    for history in (["fresh"], [door.item_ids[9], "fresh"], [door.item_ids[9]]):
        _, told, _ = ask(served.port, "/recommend", {"history": history, "k": 5})
        (wanted,) = other.recommend([history], 5)
        assert [item["item_id"] for item in told["items"]] == [item.item_id for item in wanted]
        assert [item["score"] for item in told["items"]] == pytest.approx([i.score for i in wanted], abs=1e-5)
    status, told, _ = ask(served.port, "/recommend", {"history": ["fresh"], "checkpoint": "generative"})
    assert status == 404 and told["error"] == "generative cannot place the new item 'fresh': leave it out."
    assert ask(served.port, "/items", {"item_id": "fresh", "texts": {"title": "x"}})[0] == 409
    monkeypatch.setattr(served.guard.served, "limits", LimitFlags(max_new_items=1))
    status, told, _ = ask(served.port, "/items", {"texts": {"title": "x"}})
    assert status == 409 and told["error"] == "1 items were added; no more are taken (--max_new_items)."


def test_what_a_model_cannot_do_it_says(folder):
    ids, blend = (
        Shelf(Recommender.load(name, retrieval="exact")) for name in ("ids/best_model", f"{BOTH[0]}+item_knn")
    )
    for shelf in (ids, blend):
        with pytest.raises(InputError, match="cannot place a new item by its text alone"):
            shelf.add_item("fresh", {"title": "x"})
    with pytest.raises(InputError, match="a blend has no vectors or ids"):
        blend.similar(blend.door.item_ids[0], 3)
    assert len(ids.similar(ids.door.item_ids[0], 3)) == 3


WRONG = json.loads((ROOT / "tests/fixtures/wrong_requests.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", WRONG, ids=[case["name"] for case in WRONG])
def test_a_wrong_request_is_answered_with_one_sentence(served, doors, case):
    """A body is JSON, or bytes: hex, or so many zeros. ITEM is one of the catalogue, X*3 stands for xxx."""
    text = json.dumps(case).replace('"ITEM*21"', ", ".join(['"ITEM"'] * 21))
    text = re.sub(r"X\*(\d+)", lambda found: "x" * int(found[1]), text)
    case = json.loads(text.replace("ITEM", doors["two_tower"].item_ids[3]))
    body = bytes.fromhex(case["hex"]) if "hex" in case else bytes(case["zeros"]) if "zeros" in case else None
    status, told, _ = ask(served.port, case["path"], case.get("body", body))
    assert status == case["status"] and list(told) == ["error"], told
    assert re.search(case["says"], told["error"]), told
    assert told["error"].endswith((".", "?")) and len(told["error"]) < 300


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"host": "127.0.0.1:1"}, 200), ({"host": "LOCALHOST"}, 200), ({"host": "[::1]:80"}, 200),
        ({"host": "evil.example"}, 403), ({"host": "evil.example:8000"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403), ({"host": "127.0.0.1@evil.example"}, 403),
        ({"host": ""}, 400), ({"host": "[::1"}, 400), ({"origin": "http://127.0.0.1:9"}, 200),
        ({"origin": "https://evil.example"}, 403), ({"origin": "null"}, 403),
    ],
)  # fmt: skip
def test_foreign_hosts_and_other_sites_pages_are_refused(served, headers, status):
    """A page of another site may give its own name this address, and ask as if it were ours."""
    found, told, more = ask(served.port, "/health", **headers)
    assert found == status and (status == 200 or list(told) == ["error"])
    assert "access-control-allow-origin" not in {name.lower() for name in more}


def test_a_form_of_another_site_cannot_add_items(served):
    """Browsers send text/plain anywhere without asking first."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.request("POST", "/items", '{"texts": {"title": "x"}}', {"content-type": "text/plain"})
    assert connection.getresponse().status == 422
    connection.close()


def test_the_page_loads_nothing_from_elsewhere(served):
    for path in (*FILES, "/openapi.json"):
        status, text, headers = ask(served.port, path)
        headers = {name.lower(): value for name, value in headers.items()}
        assert status == 200 and headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        for elsewhere in ("http://", "https://", "//cdn", "@import", "innerHTML", "<script>", "style="):
            assert elsewhere not in str(text).replace("http://www.w3.org/2000/svg", ""), (path, elsewhere)


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /health HT", b"POST /items HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{"],
    ids=["nothing", "half a head", "half a body"],
)
def test_who_says_nothing_more_is_not_waited_for(served, sent, monkeypatch):
    monkeypatch.setattr(served.guard, "seconds", 1.0)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port)) as silent:
        silent.settimeout(10)
        silent.sendall(sent)
        said = silent.recv(4000)
    assert time.monotonic() - began < 5
    assert said == b"" or said.startswith(b"HTTP/1.1 408 ")


def test_a_crowd_is_told_to_come_again(served, monkeypatch):
    monkeypatch.setattr(served.guard, "most", 0)
    status, told, headers = ask(served.port, "/health")
    assert status == 503 and headers["retry-after"] == "1" and "Try again" in told["error"]


def test_questions_wait_together_in_a_line_that_ends_and_not_for_ever():
    gate, batches = threading.Event(), []

    def answer(questions):
        batches.append(list(questions))
        gate.wait(20)
        return [ValueError("odd") if q % 2 else 10 * q for q in questions]

    batcher = Batcher(answer, most=3, waiting=4, company_seconds=0.0)

    async def everybody():
        first = asyncio.create_task(batcher.ask(0))
        while not batches:
            await asyncio.sleep(0.001)
        waiting = [asyncio.create_task(batcher.ask(n)) for n in (1, 2, 4)]
        await asyncio.sleep(0)
        with pytest.raises(TooLate):
            await batcher.ask(6, 0.05)
        with pytest.raises(Busy):
            await batcher.ask(8)
        gate.set()
        return await asyncio.gather(first, *waiting, return_exceptions=True)

    zero, one, *others = asyncio.run(everybody())
    assert zero == 0 and isinstance(one, ValueError) and others == [20, 40]
    batcher.close()
    assert not batcher.thread.is_alive()
    assert batches == [[0], [1, 2, 4]]  # 6 was too late: nobody works for it


def test_schemathesis_finds_no_answer_that_openapi_does_not_tell(served):
    """Requests drawn from /openapi.json, right and wrong ones; each answer has its status and shape."""
    schema, asked = schemathesis.openapi.from_url(f"http://127.0.0.1:{served.port}/openapi.json"), set()
    for mode in schemathesis.GenerationMode:
        for found in schema.get_all_operations():
            operation = found.ok()
            if (operation.path, mode) == ("/health", schemathesis.GenerationMode.NEGATIVE):
                continue  # it takes nothing that could be wrong

            @hypothesis.settings(
                max_examples=4,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def as_told(case):
                asked.add((case.path, case.call_and_validate().status_code))

            as_told()
    assert {
        ("/items", 200),
        ("/items", 422),
        ("/recommend", 404),
        ("/recommend", 422),
        ("/health", 200),
    } <= asked


def started(folder, *flags):
    """A server of the two-tower model as a process: (Popen, its port)."""
    command = [
        forks.folder() / "python",
        ROOT / "scripts/serve.py",
        "--checkpoint",
        BOTH[0],
        "--port",
        "0",
        *flags,
    ]
    process = subprocess.Popen(
        list(map(str, command)), cwd=folder.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    said = ""
    while "serving http://" not in said:
        assert process.poll() is None and (line := process.stdout.readline()), said
        said += line
    return process, int(re.search(r"serving http://127.0.0.1:(\d+)/", said)[1])


def test_told_to_end_it_answers_whom_it_has_heard_and_ends_with_status_0(folder, doors):
    """Eight people ask on and on, half of them over connections that they keep; none waits in vain."""
    process, port = started(folder, "--company_ms", "20")
    ids, answered, lost, refused = doors["two_tower"].item_ids, [], [], []

    def person(number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps({"history": [ids[number]], "k": 2})
        head = {"content-type": "application/json"} | ({"connection": "close"} if number % 2 else {})
        while not lost:
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:
                refused.append(number)  # nobody has taken the request: another server may
                return
            try:
                connection.request("POST", "/recommend", body, head)
                answer = connection.getresponse()
                answered.append((answer.status, len(json.loads(answer.read())["items"])))
            except (OSError, http.client.HTTPException) as error:
                lost.append(error)

    people = [threading.Thread(target=person, args=(n,)) for n in range(8)]
    for one in people:
        one.start()
    while len(answered) < 100:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    for one in people:
        one.join(30)
    rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0 and "every request that was taken is answered" in rest
    assert not lost and len(refused) == 8 and set(answered) == {(200, 2)}


def test_what_takes_too_long_is_504_and_a_full_line_503(served):
    gate, limits = threading.Event(), LimitFlags(timeout=0.3, max_waiting=1, batch=1)
    column = Column("slow", "slow", served.columns[0].shelf, limits)
    column.batcher.close()
    column.batcher = Batcher(lambda questions: gate.wait(20), 1, 1, 0.0)
    app = make_app([column], limits)
    body = json.dumps({"history": [column.shelf.door.item_ids[0]]}).encode()

    async def post():
        said = []
        head = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/recommend", "query_string": b"", "headers": head}

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            said.append(message)

        await app(scope | {"raw_path": b"/recommend", "root_path": ""}, receive, send)
        return said[0]["status"], json.loads(said[1]["body"])["error"]

    async def several():
        first = asyncio.create_task(post())
        await asyncio.sleep(0.1)  # until the thread has it
        answers = await asyncio.gather(first, post(), post())
        gate.set()
        await asyncio.to_thread(column.batcher.close)
        return answers

    answers = asyncio.run(asyncio.wait_for(several(), 20))
    assert sorted(status for status, _ in answers) == [503, 504, 504]
    assert {said for status, said in answers if status == 504} == {
        "the answer took longer than 0.3 s. Try again, or ask for fewer items."
    }


@pytest.mark.parametrize(
    "words, says",
    [
        ("--port -1", "--port must be in \\[0, 65535\\], got -1"),
        ("--port 70000", "--port must be in"),
        ("--host 0.0.0.0", "--host '0.0.0.0' answers other machines: say with --allowed_hosts"),
        ("--timeout 0", "--timeout must be a positive number"),
        ("--max_k 0", "--max_k must be at least 1"),
        ("--max_history 0", "--max_history must be at least 1"),
        ("--max_body 0", "--max_body must be at least 1"),
        ("--max_new_items -1", "--max_new_items must be at least 0"),
        ("--batch 0", "--batch must be at least 1"),
        ("--company_ms 2000", "--company_ms must be in"),
        ("--checkpoint=", "--checkpoint needs at least one"),
        ("--checkpoint a,a", "--checkpoint must name each only once"),
    ],
)  # fmt: skip
def test_flags_that_cannot_be(words, says):
    with pytest.raises(InputError, match=says):
        parse_args(ServeConfig, ["--checkpoint", "c", *words.split()])


def test_addresses_that_cannot_be_had(served, folder):
    with pytest.raises(InputError, match=f"--port {served.port} cannot be had .*in use.*another --port"):
        bound("127.0.0.1", served.port)
    with pytest.raises(InputError, match="--host 192.0.2.1 --port 0 cannot be had"):
        bound("192.0.2.1", 0)
    with pytest.raises(InputError, match="--host no.such.host.invalid is no address"):
        bound("no.such.host.invalid", 0)


def test_checkpoints_that_cannot_be_served_together(folder, monkeypatch):
    other = folder.path / "fewer.csv"
    lines = (folder.path / "interactions.csv").read_text().splitlines(keepends=True)
    other.write_text("".join(lines[: len(lines) // 2]))
    loaded = serve.loaded

    def of_half(config, checkpoint):
        table = {"interaction_data": str(other)} if checkpoint == BOTH[1] else {}
        return loaded(replace(config, **table), checkpoint)

    monkeypatch.setattr(serve, "loaded", of_half)
    with pytest.raises(InputError, match="done/best_model and told/best_model rank different .*on two ports"):
        serve.app_of(ServeConfig(checkpoint=BOTH, **FLAGS))


def test_columns_are_named_by_their_kind(folder):
    assert serve.names_of([*BOTH, "done/best_model+item_knn"]) == ["two_tower", "generative", "blend"]
    assert serve.names_of(["done/best_model", "ids/best_model"]) == [
        "two_tower done/best_model", "two_tower ids/best_model",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window. Debian: apt-get install chromium chromium-driver."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("there is no chromium and chromedriver: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(driver))
    yield running
    running.quit()


def test_the_page_in_a_browser(served, doors, folder, browser):
    """Search, click a history together, see both columns; a title that is a tag stays text; add an item."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    def all_of(selector):
        return browser.find_elements("css selector", selector)

    def until(what):
        return WebDriverWait(browser, 30, 0.05, [StaleElementReferenceException]).until(lambda _: what())

    def search(words):
        field = all_of("#search")[0]
        field.clear()
        field.send_keys(words)
        until(
            lambda: (
                (shown := all_of("#items .id")) and words in (shown[0].text, all_of("#items .text")[0].text)
            )
        )

    def shown(name):
        return [id.text for id in all_of(f'.column[data-name="{name}"] li .id')]

    browser.get(f"http://127.0.0.1:{served.port}/")
    until(lambda: len(all_of(".column")) == 2 and all_of("#items .take"))
    history = [folder.hostile, *doors["two_tower"].item_ids[4:6]]
    for item in history:
        search(item)
        all_of("#items .take")[0].click()
    until(lambda: all(shown(name) and not all_of(".asking") for name in doors))
    for name, door in doors.items():
        (found,) = door.recommend([history], 11)
        assert set(shown(name)) - {"fresh", "new-1"} <= {one.item_id for one in found}
        column = browser.find_element("css selector", f'.column[data-name="{name}"]')
        assert re.fullmatch(r"\d+\.\d ms", column.find_element("css selector", ".latency").text)
        codes = [pill.text for pill in column.find_elements("css selector", "li:first-child .code")]
        first = doors["generative"].number[shown(name)[0]]
        assert codes == [str(code) for code in doors["generative"].codes(first)]
    assert HOSTILE in [chip.text.splitlines()[0] for chip in all_of("#history button")]
    assert browser.title == "pixelrec_train" and not all_of("main img")
    cold = doors["two_tower"].item_ids[int(served.columns[0].shelf.cold.argmax())]
    search(cold)
    assert all_of("#items .badge.cold")

    all_of("summary")[0].click()
    all_of("#fields input")[0].send_keys("A title that nobody has seen")
    all_of("form button")[0].click()
    until(lambda: "is in the catalogue" in all_of("#added")[0].text)
    new = all_of("#added")[0].text.split()[0]
    search(new)
    assert all_of("#items .badge.new") and all_of("#items .text")[0].text == "A title that nobody has seen"
    all_of("#items .take")[0].click()
    until(lambda: "1 of 4 are new" in all_of('.column[data-name="generative"] .note')[0].text)

    from_where = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert from_where and all(url.startswith(f"http://127.0.0.1:{served.port}/") for url in from_where)
    browser.get(f"http://127.0.0.1:{served.port}/docs")
    until(lambda: "/recommend" in browser.find_element("css selector", "main").text)
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_no_answer_waits_for_the_other_side_to_confirm_its_head():
    """asyncio sets TCP_NODELAY where a socket says that it is TCP; without it an answer costs 40 ms."""
    with bound("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
