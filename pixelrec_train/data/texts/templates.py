"""Chat templates as JSON files, in the two forms that Genesis has, as the Jinja that a tokenizer renders
with.

1. {"system_prefix": …, "system_suffix": …, "user_prefix": …, …, "assistant_suffix": …}
2. {"messages": [{"role": "user", "template": "User: {input}"}, …], "separator": …, "stop_tokens": […],
   "bos_token": …, "eos_token": …}, where {system}, {input}, {output} or {content} stands for the words.
"""

import json
import re
from typing import NamedTuple

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import existing_file, refuse_repeated_keys

ROLES = ("system", "user", "assistant")
AFFIXES = tuple(f"{role}_{end}" for role in ROLES for end in ("prefix", "suffix"))
OTHERS = ("messages", "separator", "stop_tokens", "bos_token", "eos_token", "name")
PLACE = re.compile(r"\{(content|system|input|output|instruction|query|response)\}")


class Template(NamedTuple):
    """What stands around each role's words."""

    around: dict[str, tuple[str, str]]  # {role: (before, after)}
    begin: str = ""
    separator: str = ""  # between messages
    stops: tuple[str, ...] = ()  # what may end an answer

    def jinja(self):
        """The template as transformers reads it.

        The words behind which an answer is asked for end before a space: that belongs to the answer's token.
        """
        branches = "".join(
            f"{{% {'elif' if n else 'if'} message['role'] == {quoted(role)} %}}"
            f"{{{{ {quoted(before)} + message['content'] + {quoted(after)} }}}}"
            for n, (role, (before, after)) in enumerate(self.around.items())
        )
        refused = "{{ raise_exception('the template has no words for the role ' + message['role']) }}"
        between = f"{{% if not loop.first %}}{{{{ {quoted(self.separator)} }}}}{{% endif %}}"
        asks = f"{self.separator}{self.around['assistant'][0]}".rstrip(" ")
        return (
            f"{{{{ {quoted(self.begin)} }}}}{{% for message in messages %}}{between * bool(self.separator)}"
            f"{branches}{{% else %}}{refused}{{% endif %}}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{{{{ {quoted(asks)} }}}}{{% endif %}}"
        )

    @staticmethod
    def load(path, flag_name="--template"):
        """Raises InputError where the file is none of the two forms."""
        path = existing_file(path, flag_name)
        try:
            found = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=refuse_repeated_keys)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{flag_name} {path} is not valid JSON: {first_line(error)}") from None
        try:
            return of_json(found)
        except ValueError as error:
            raise InputError(f"{flag_name} {path}: {error}.") from None


def of_json(found):
    """Template. Raises ValueError."""
    if not isinstance(found, dict):
        raise ValueError("it must hold an object")
    if unknown := [key for key in found if key not in (*AFFIXES, *OTHERS)]:
        raise ValueError(
            f"{unknown[0]!r} is no key of a template; there are {', '.join((*AFFIXES, *OTHERS))}"
        )
    texts = {key: value for key, value in found.items() if key not in ("messages", "stop_tokens")}
    if odd := [key for key, value in texts.items() if not isinstance(value, str | None)]:
        raise ValueError(f"{odd[0]} must be a text")
    stops = found.get("stop_tokens") or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError("stop_tokens must be a list of texts")
    around = of_messages(found["messages"]) if "messages" in found else of_affixes(found)
    if missing := [role for role in ("user", "assistant") if role not in around]:
        raise ValueError(f"it has no words for the role {missing[0]}")
    end = found.get("eos_token") or ""
    before, after = around["assistant"]
    if end and not after.rstrip().endswith(end):
        around["assistant"] = before, after + end
    stops = (*filter(None, (around["assistant"][1].strip(), end)), *stops)
    bos, separator = (found.get(key) or "" for key in ("bos_token", "separator"))
    return Template(around, bos, separator, tuple(dict.fromkeys(stops)))


def of_affixes(found):
    return {
        role: (found.get(f"{role}_prefix") or "", found.get(f"{role}_suffix") or "")
        for role in ROLES
        if f"{role}_prefix" in found or f"{role}_suffix" in found
    }


def of_messages(messages):
    if not isinstance(messages, list):
        raise ValueError("messages must be a list of {role, template}")
    around = {}
    for message in messages:
        role, text = (
            (message.get(key) for key in ("role", "template")) if isinstance(message, dict) else (None,) * 2
        )
        if role not in ROLES or not isinstance(text, str):
            raise ValueError(f"a message must have a role ({', '.join(ROLES)}) and a template")
        parts = PLACE.split(text)
        if len(parts) != 3:
            raise ValueError(
                f"the template of {role} must hold one of {{content}}, {{system}}, {{input}}, {{output}} once"
            )
        if role in around:
            raise ValueError(f"the role {role} stands there twice")
        around[role] = parts[0], parts[2]
    return around


def quoted(text):
    """A string as Jinja reads it."""
    return json.dumps(text, ensure_ascii=False)
