"""The form of the live page, from the declarations of a wish."""

import dataclasses
import html
from dataclasses import fields

from sample.live.studio import DOWNLOADS, LONGEST_PROMPT, Wish


def form(wish: Wish) -> str:
    """HTML with an input per field, filled in as `wish`."""
    inputs = "\n".join(_input(field, getattr(wish, field.name)) for field in fields(wish))
    return f"""<form id="wish">
{inputs}
<button type="submit">generate</button>
<progress id="progress" value="0" max="1" hidden></progress>
<p id="told" role="status"></p>
<ul id="downloads" aria-label="downloads" data-formats="{" ".join(DOWNLOADS)}"></ul>
</form>"""


def _input(field: "dataclasses.Field[object]", value: object) -> str:
    name, rules = field.name, field.metadata
    text = html.escape(str(value))
    if rules["choices"]:
        options = "".join(
            f"<option{' selected' if choice == value else ''}>{html.escape(choice)}</option>"
            for choice in rules["choices"]
        )
        control = f'<select name="{name}">{options}</select>'
    elif isinstance(value, str):
        control = (
            f'<input type="text" name="{name}" value="{text}" maxlength="{LONGEST_PROMPT}" '
            'required placeholder="a person waves with the left hand" autocomplete="off">'
        )
    else:
        step = "1" if isinstance(value, int) else "0.1"
        control = (
            f'<input type="number" name="{name}" value="{text}" min="{rules["minimum"]}" '
            f'max="{rules["maximum"]}" step="{step}" required>'
        )
    return f'<label title="{html.escape(rules["help"])}">{name} {control}</label>'
