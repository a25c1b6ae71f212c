"""Where the assistant's words lie in the text that a chat template makes of a chat.

A template may drop thoughts, put in empty ones, strip newlines and add what it likes, and a user may write
what looks like the beginning of an answer. So nothing is searched in the text: the chat is rendered a second
time with a mark behind the content of each message that matters. Where the marks taken out leave the very
text, they stand where these contents end.
"""

import os
import re

from pixelrec_train.errors import InputError, first_line

MARKS = range(0xE000, 0xF8FF)  # characters for private use: no template strips them, few texts hold one


class Turns:
    """Of one tokenizer's chat template. What depends on roles alone is found once and kept."""

    def __init__(self, tokenizer):
        self.tokenizer, self.headers_of = tokenizer, {}

    def of(self, messages):
        """A chat -> (its text, [(start, stop)] of what the assistant says in each turn, in characters).

        An assistant's words begin behind the generation prompt, and end where the template's own begin again.

        Raises:
            InputError: the template refuses the chat, or rewrites it so that these places cannot be told.
        """
        spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not spoken:
            return self.render([messages])[0], []
        text, ends = self.ends(messages, sorted({*spoken, *(i - 1 for i in spoken if i)}))
        lost = [i for i in spoken if i not in ends]
        if lost:
            raise InputError(
                f"its chat template leaves out or changes what the assistant says in message {lost[0] + 1}, "
                f"so what is to be learned is not clear. Take a tokenizer whose template keeps it."
            )
        return text, [(self.start(messages, i, text, ends), ends[i]) for i in spoken]

    def ends(self, messages, asked):
        """The chat's text, and {i: where message i's content ends}, for those asked that can be told."""
        mark = unused_mark(messages)
        behind = {i: len(messages[i]["content"]) for i in asked}
        text, marked = self.render([messages, with_marks(messages, behind, mark)])
        ends = places(marked, text, mark)
        if ends is not None and len(ends) == len(asked):
            return text, ends
        one_by_one = {i: self.end(messages, i, text, mark) for i in asked}
        return text, {i: end for i, end in one_by_one.items() if end is not None}

    def end(self, messages, i, text, mark):
        """Where message i's content ends, by a mark in it alone; None where no mark leaves the text as it is.

        Where the template strips the content's end, the mark stands before what is stripped.
        """

        def ends_behind(length):
            (marked,) = self.render([with_marks(messages, {i: length}, mark)])
            return (places(marked, text, mark) or {}).get(i)

        content = messages[i]["content"]
        end, kept, lost = ends_behind(len(content)), len(content.rstrip()), len(content)
        if end is not None or kept == lost:
            return end
        end = ends_behind(kept)
        while end is not None and lost - kept > 1:  # as much of the white space as stays
            half = (kept + lost) // 2
            further = ends_behind(half)
            kept, lost, end = (kept, half, end) if further is None else (half, lost, further)
        return end

    def start(self, messages, i, text, ends):
        """Where the assistant's words of message i begin: behind what the model is given when it is asked."""
        roles = tuple(message["role"] for message in messages[:i])
        if i - 1 in ends:
            for header in self.headers(roles):
                if text.startswith(header, ends[i - 1]):
                    return ends[i - 1] + len(header)
        # First in the chat, or behind a message that the template puts elsewhere: look for the prompt.
        earlier = max((end for j, end in ends.items() if j < i), default=0)
        for prompt in self.prompts():
            place = text.find(prompt, earlier, ends[i])
            if place >= 0:
                return place + len(prompt)
        raise InputError(
            f"where the assistant's words begin in message {i + 1} cannot be told from its chat template. "
            f"Take a tokenizer whose template has a generation prompt (add_generation_prompt)."
        )

    def headers(self, roles):
        """What may stand between the last of these messages' content and the assistant's words, longest
        first.

        The generation prompt, as far as the texts of whole chats have it, too: some templates open a thought
        for the model that they leave out of the turns that are over.
        """
        if roles not in self.headers_of:
            chat = [{"role": role, "content": "x"} for role in roles]
            answer, next_question = {"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}
            asked = self.behind(chat, len(chat) - 1, add_generation_prompt=True)
            last = self.behind([*chat, answer], len(chat) - 1, len(chat))
            inner = self.behind([*chat, answer, next_question], len(chat) - 1, len(chat))
            told = [between for between in (last, inner) if between is not None]
            if asked is not None and asked == self.behind(chat, len(chat) - 1) and told:
                # The template has no generation prompt. A space in front of words belongs to their token.
                found = {os.path.commonprefix(told).rstrip(" ")}
            else:
                found = (
                    {asked, *(os.path.commonprefix([asked, between]) for between in told)} if asked else ()
                )
            self.headers_of[roles] = sorted(filter(None, found), key=len, reverse=True)
        return self.headers_of[roles]

    def prompts(self):
        """What headers() gives behind a question, without what ends the question itself."""
        end = self.behind([{"role": "user", "content": "x"}], 0) or ""
        return [prompt for header in self.headers(("user",)) if (prompt := header.removeprefix(end))]

    def behind(self, chat, i, until=None, **settings):
        """The text behind message i's content, to its end or to the content of message `until`; None where
        the template refuses such a chat or does not have these contents in it once."""
        mark = chr(MARKS[0])
        marks = {j: 0 if j == until else len(chat[j]["content"]) for j in (i, until) if j is not None}
        try:
            (text,) = self.render([with_marks(chat, marks, mark)], **settings)
        except InputError:
            return None
        ends = places(text, None, mark)
        plain = without_marks(text, mark)
        if set(ends) != set(marks):
            return None
        return plain[ends[i] : None if until is None else ends[until]]

    def render(self, chats, **settings):
        """Their texts, by the template."""
        if not self.tokenizer.chat_template:
            raise InputError(
                "its tokenizer has no chat template, and this is a chat. Take the tokenizer of an instruct "
                "model, or put the template beside it as chat_template.jinja."
            )
        try:
            return self.tokenizer.apply_chat_template(chats, tokenize=False, **settings)
        except Exception as error:  # whatever a template that anybody may have written makes of a chat
            raise InputError(f"its chat template refuses this chat: {first_line(error)}") from None


def unused_mark(messages):
    texts = [message["content"] for message in messages]
    return next(mark for mark in map(chr, MARKS) if not any(mark in text for text in texts))


def with_marks(messages, behind, mark):
    """The chat with a mark in message i behind its first behind[i] characters."""
    marked = list(messages)
    for i, length in behind.items():
        content = messages[i]["content"]
        marked[i] = messages[i] | {"content": f"{content[:length]}{mark}{i}{mark}{content[length:]}"}
    return marked


def places(marked, text, mark):
    """{i: place of its mark, in the text without marks}, of those that stand in it once; None where what is
    left is not the text."""
    parts = re.split(f"{mark}([0-9]+){mark}", marked)  # text, number, text, …
    if text is not None and "".join(parts[::2]) != text:
        return None
    found, place, twice = {}, 0, set()
    for piece, number in zip(parts[::2], map(int, parts[1::2]), strict=False):
        place += len(piece)
        twice |= {number} & set(found)
        found[number] = place
    return {i: at for i, at in found.items() if i not in twice}


def without_marks(marked, mark):
    return "".join(re.split(f"{mark}[0-9]+{mark}", marked))
