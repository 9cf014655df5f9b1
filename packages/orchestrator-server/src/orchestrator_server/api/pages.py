"""The few pages for people. They are plain: no scripts, nothing from elsewhere, everything that is shown escaped."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Final

from starlette.responses import Response

from orchestrator_core.nodes import ApprovalAnswer

__all__ = ["approval_form", "page", "told"]

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;margin:0;padding:1rem;background:Canvas;color:CanvasText}"
    "main{max-width:32rem;margin:10vh auto 0;padding:1.5rem 2rem 2rem;border:1px solid GrayText;border-radius:.75rem}"
    "h1{font-size:1.4rem;margin:.25rem 0 1rem;overflow-wrap:anywhere}"
    "p{margin:.5rem 0;overflow-wrap:anywhere}"
    "small,label{opacity:.8}"
    "textarea{box-sizing:border-box;width:100%;font:inherit;padding:.5rem;margin:.25rem 0 1rem;border-radius:.4rem;"
    "border:1px solid GrayText}"
    "button{font:inherit;font-weight:600;padding:.55rem 1.4rem;margin-right:.75rem;border-radius:.4rem;cursor:pointer;"
    "border:1px solid}"
    "button[value=approve]{background:#176f2c;border-color:#176f2c;color:#fff}"
    "button[value=reject]{background:Canvas;color:#b3261e;border-color:#b3261e}"
    "@media (prefers-color-scheme:dark){button[value=reject]{color:#ff8a80;border-color:#ff8a80}}"
)
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Cache-Control": "no-store",
}
_BUTTONS: Final[dict[ApprovalAnswer, str]] = {
    "approve": '<button name="answer" value="approve">Approve</button>',
    "reject": '<button name="answer" value="reject">Reject</button>',
}


def page(title: str, body: str, status: int = 200) -> Response:
    """A page; ``body`` is HTML, ``title`` a text."""
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
    return Response(html, status, _HEADERS, media_type="text/html; charset=utf-8")


def told(title: str, text: str, status: int = 200) -> Response:
    """A page that says something."""
    return page(title, f"<h1>{escape(title)}</h1><p>{escape(text)}</p>", status)


def approval_form(workflow: str, node: str, until: str, answer: ApprovalAnswer | None, longest: int) -> Response:
    """The page that asks for a decision. Opening it decides nothing: that takes a button.

    Args:
        workflow: What asks, for people.
        node: Which node of it.
        until: Until when.
        answer: The only answer that can be given; both unless said.
        longest: How many characters a comment may have.
    """
    buttons = "".join(_BUTTONS.values()) if answer is None else _BUTTONS[answer]
    body = (
        f"<p>{escape(workflow)} asks for a decision:</p><h1>{escape(node)}</h1>"
        '<form method="post"><label for="comment">Comment, if you like</label>'
        f'<textarea id="comment" name="comment" rows="3" maxlength="{longest}"></textarea>{buttons}</form>'
        f"<p><small>This page holds until {escape(until)}. The first answer counts.</small></p>"
    )
    return page(f"{node}: approve or reject", body)
