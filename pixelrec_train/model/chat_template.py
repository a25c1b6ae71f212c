"""Chat templates by name, for models that come without, or are to speak as another project's do.

chatml: with the rules for thoughts that Qwen3's own has. An answer before the last question loses its
thought; behind it, an answer keeps it, and the last one of a chat gets an empty one where it has none.
minionerec: its instruction (the system message), input (user) and response (assistant).
"""

CHATML = r"""
{%- set ns = namespace(last_question=messages|length - 1, open=true) -%}
{%- for message in messages[::-1] -%}
    {%- set text = message.content -%}
    {%- set told = text.startswith('<tool_response>') and text.endswith('</tool_response>') -%}
    {%- if ns.open and message.role == 'user' and not told -%}
        {%- set ns.open = false -%}
        {%- set ns.last_question = messages|length - 1 - loop.index0 -%}
    {%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
    {%- set content = message.content -%}
    {%- if message.role == 'tool' -%}
        {%- if loop.first or loop.previtem.role != 'tool' %}{{ '<|im_start|>user' }}{% endif -%}
        {{- '\n<tool_response>\n' + content + '\n</tool_response>' -}}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\n' }}{% endif -%}
    {%- else -%}
        {{- '<|im_start|>' + message.role + '\n' -}}
        {%- if message.role == 'assistant' -%}
            {%- set thought = '' -%}
            {%- if '</think>' in content -%}
                {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') -%}
                {%- set content = content.split('</think>')[-1].lstrip('\n') -%}
            {%- endif -%}
            {%- if loop.index0 > ns.last_question and (loop.last or thought) -%}
                {%- set content = '<think>\n' + thought + '\n</think>\n\n' + content.lstrip('\n') -%}
            {%- endif -%}
        {%- endif -%}
        {{- content + '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
    {%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif -%}
{%- endif -%}
""".strip()

# Source: github.com/AkaliKong/MiniOneRec, data.py: generate_prompt and the instructions before it.
MINIONEREC = r"""
{%- set before = 'Below is an instruction that describes a task, paired with an input that provides further '
    + 'context. Write a response that appropriately completes the request. \n\n### Instruction:\n' -%}
{%- for message in messages -%}
    {%- if loop.first and message.role != 'system' %}{{ before + '\n' }}{% endif -%}
    {%- if message.role == 'system' -%}
        {{- before + message.content + '\n\n' -}}
    {%- elif message.role == 'user' -%}
        {{- '### User Input: \n' + message.content + '\n\n' -}}
    {%- elif message.role == 'assistant' -%}
        {{- '### Response:\n' + message.content + '\n' + eos_token -}}
    {%- else -%}
        {{- raise_exception('minionerec knows system, user and assistant, not ' + message.role) -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '### Response:\n' }}{% endif -%}
""".strip()

CHAT_TEMPLATES = {"chatml": CHATML, "minionerec": MINIONEREC}
