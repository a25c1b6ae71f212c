"""Errors as HTTP sees them: a status, and one sentence as JSON."""

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.serving.batching import Busy, TooLate
from pixelrec_train.serving.messages import Problem

RETRY_SECONDS = 1
MEANINGS = {
    400: "the request cannot be read", 403: "another site asks", 404: "there is no such thing",
    408: "the body did not come in time", 409: "it is there already, or cannot be done here",
    413: "the body is too large", 422: "a value is not what it must be", 500: "a bug",
    503: "busy, or stopping", 504: "the model took too long",
}  # fmt: skip


class Refused(HTTPException):
    """A status and its sentence."""


def documented(*statuses):
    """For OpenAPI; what the guard says may come of any request."""
    common = (400, 403, 503)
    return {s: {"model": Problem, "description": MEANINGS[s]} for s in sorted({*statuses, *common})}


def problem(status, sentence):
    headers = {"retry-after": str(RETRY_SECONDS)} if status == 503 else None
    return JSONResponse({"error": sentence}, status, headers)


def speak_json(app, seconds):
    """Whatever goes wrong in a FastAPI application becomes a Problem."""

    @app.exception_handler(Busy)
    def busy(request, error):
        return problem(503, "more requests wait than can be answered. Try again in a second.")

    @app.exception_handler(TooLate)
    def too_late(request, error):
        return problem(504, f"the answer took longer than {seconds:g} s. Try again, or ask for fewer items.")

    @app.exception_handler(InputError)
    def refused(request, error):
        return problem(409, str(error))

    @app.exception_handler(RequestValidationError)
    def invalid(request, error):
        return problem(422, told(error.errors()[0]))

    @app.exception_handler(HTTPException)
    def refused_by_status(request, error):
        if isinstance(error, Refused) or error.status_code not in (404, 405):
            return problem(error.status_code, first_line(error.detail))
        what = f"{request.method} {request.url.path}"
        return problem(error.status_code, f"there is no {what} here. The page is /; /docs tells the API.")

    @app.exception_handler(Exception)
    def bug(request, error):
        return problem(500, "a bug of the server; its log has the traceback.")


def told(error):
    """One of pydantic's errors as a sentence."""
    kind, context, found = error["type"], error.get("ctx", {}), error.get("input")
    where = ".".join(map(str, error["loc"][1:])) or "the body"
    shown = f", got {found!r:.80}." if isinstance(found, str | int | float | bool | None) else "."
    sentences = {
        "missing": f"{where} is missing.",
        "extra_forbidden": f"{where} is nothing that is read here; /docs lists what is.",
        "json_invalid": f"the body is no JSON: {context.get('error')}.",
        "too_short": f"{where} is empty: it needs at least {context.get('min_length')}.",
        "too_long": f"{where} has {context.get('actual_length')}; at most {context.get('max_length')} go.",
        "greater_than_equal": f"{where} must be at least {context.get('ge')}{shown}",
        "less_than_equal": f"{where} must be at most {context.get('le')}{shown}",
        "string_too_long": f"{where} is longer than {context.get('max_length')} characters.",
        "string_too_short": f"{where} is empty.",
    }
    return sentences.get(kind) or f"{where}: {error['msg']}{shown}"
