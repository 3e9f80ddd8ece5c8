"""A stand-in for SendGrid and Mailchimp on this machine: checks the rules that they publish, answers and fails as they do."""

import base64
import contextlib
import hashlib
import html
import io
import json
import random
import re
import tarfile
import threading
import time
from collections.abc import Callable
from email.headerregistry import Address
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from jsonschema import Draft202012Validator

ONE_LINE = r"^[^\r\n\x00]*$"
TEXT = {"type": "string"}
LINE = {"type": "string", "pattern": ONE_LINE}
EMAIL = {
    "type": "object",
    "required": ["email"],
    "properties": {"email": {"type": "string", "maxLength": 254}, "name": LINE},
    "additionalProperties": False,
}
ARGS = {"type": "object", "additionalProperties": TEXT}
HEADERS = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^[\x20-\x7e]*$", "maxLength": 998}}
RESERVED = set(
    "x-sg-id x-sg-eid received dkim-signature content-type content-transfer-encoding to from subject reply-to cc bcc".split()
)
MAIL_SEND = {
    "type": "object",
    "required": ["personalizations", "from"],
    "additionalProperties": False,
    "properties": {
        "personalizations": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1000,
            "items": {
                "type": "object",
                "required": ["to"],
                "additionalProperties": False,
                "properties": {
                    "to": {"type": "array", "items": EMAIL, "minItems": 1},
                    "cc": {"type": "array", "items": EMAIL},
                    "bcc": {"type": "array", "items": EMAIL},
                    "subject": {**LINE, "minLength": 1},
                    "headers": HEADERS,
                    "custom_args": ARGS,
                    "dynamic_template_data": {"type": "object"},
                    "send_at": {"type": "integer"},
                },
            },
        },
        "from": EMAIL,
        "reply_to": EMAIL,
        "subject": {**LINE, "minLength": 1},
        "template_id": {"type": "string", "pattern": "^d-[0-9a-f]{32}$"},
        "categories": {"type": "array", "maxItems": 10, "uniqueItems": True, "items": {"type": "string", "maxLength": 255}},
        "custom_args": ARGS,
        "headers": HEADERS,
        "asm": {
            "type": "object",
            "required": ["group_id"],
            "additionalProperties": False,
            "properties": {"group_id": {"type": "integer"}, "groups_to_display": {"type": "array", "maxItems": 25}},
        },
        "content": {"type": "array", "minItems": 1},
    },
}
BATCH = {
    "type": "object",
    "required": ["operations"],
    "additionalProperties": False,
    "properties": {
        "operations": {
            "type": "array",
            "minItems": 1,
            "maxItems": 500,
            "items": {
                "type": "object",
                "required": ["method", "path"],
                "additionalProperties": False,
                "properties": {
                    "method": {"enum": ["GET", "POST", "PUT", "PATCH", "DELETE"]},
                    "path": {"type": "string", "pattern": "^/"},
                    "operation_id": TEXT,
                    "params": {"type": "object"},
                    "body": TEXT,
                },
            },
        }
    },
}
STATUS = {"enum": ["subscribed", "unsubscribed", "cleaned", "pending", "transactional"]}
MEMBER = {
    "type": "object",
    "required": ["email_address", "status_if_new"],
    "additionalProperties": False,
    "properties": {
        "email_address": {"type": "string", "maxLength": 254},
        "status_if_new": STATUS,
        "status": STATUS,
        "merge_fields": {"type": "object", "propertyNames": {"pattern": "^[A-Z0-9_]{1,10}$"}, "additionalProperties": LINE},
    },
}
MERGE_FIELD = {
    "type": "object",
    "required": ["name", "type"],
    "additionalProperties": False,
    "properties": {
        "tag": {"type": "string", "pattern": "^[A-Z0-9_]{1,10}$"},
        "name": {"type": "string", "minLength": 1, "maxLength": 50},
        "type": {
            "enum": ["text", "number", "address", "phone", "date", "url", "imageurl", "radio", "dropdown", "birthday", "zip"]
        },
        "public": {"type": "boolean"},
        "required": {"type": "boolean"},
    },
}
CAMPAIGN = {
    "type": "object",
    "required": ["type", "recipients", "settings"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "regular"},
        "recipients": {
            "type": "object",
            "required": ["list_id", "segment_opts"],
            "additionalProperties": False,
            "properties": {
                "list_id": TEXT,
                "segment_opts": {
                    "type": "object",
                    "required": ["match", "conditions"],
                    "properties": {
                        "match": {"enum": ["any", "all"]},
                        "conditions": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 5,
                            "items": {
                                "type": "object",
                                "required": ["condition_type", "field", "op", "value"],
                                "additionalProperties": False,
                                "properties": {
                                    "condition_type": {"const": "TextMerge"},
                                    "field": TEXT,
                                    "op": {"enum": ["is", "not", "contains", "starts", "ends"]},
                                    "value": TEXT,
                                },
                            },
                        },
                    },
                },
            },
        },
        "settings": {
            "type": "object",
            "required": ["subject_line", "from_name", "reply_to"],
            "additionalProperties": False,
            "properties": {
                "title": {**LINE, "maxLength": 100},
                "subject_line": {**LINE, "maxLength": 150},
                "preview_text": {**LINE, "maxLength": 150},
                "from_name": {**LINE, "maxLength": 100},
                "reply_to": TEXT,
            },
        },
    },
}
CONTENT = {
    "type": "object",
    "required": ["html"],
    "additionalProperties": False,
    "properties": {"html": TEXT, "plain_text": TEXT},
}


def broken(schema: dict, body: object) -> list[tuple[str, str]]:
    """Where `body` breaks the schema, as (path, message)."""
    found = Draft202012Validator(schema).iter_errors(body)
    return [(".".join(str(part) for part in error.absolute_path), error.message[:200]) for error in found]


def is_address(text: str) -> bool:
    """The form that both services want, told by the standard library's parser."""
    with contextlib.suppress(Exception):
        address = Address(addr_spec=text)
        return text.isascii() and "." in address.domain and not re.search(r"[\s\"<>,;:()\[\]\\]", text) and ".." not in text
    return False


def mail_send_faults(body: dict) -> list[tuple[str, str]]:
    """The published rules of SendGrid's mail/send, as (field, message) of what breaks them."""
    if found := broken(MAIL_SEND, body):
        return found
    seen: set[str] = set()
    recipients = 0
    for i, one in enumerate(body["personalizations"]):
        at = f"personalizations.{i}"
        for kind in ("to", "cc", "bcc"):
            for j, person in enumerate(one.get(kind, [])):
                recipients += 1
                if not is_address(person["email"]):
                    found.append((f"{at}.{kind}.{j}.email", "Does not contain a valid address."))
                if person["email"].lower() in seen:
                    found.append((at, "Each email address in the personalization block should be unique"))
                seen.add(person["email"].lower())
        if not one.get("subject") and not body.get("subject") and not body.get("template_id"):
            found.append((f"{at}.subject", "The subject is required."))
        headers = {name.lower(): value for name, value in one.get("headers", {}).items()}
        found += [(f"{at}.headers", f"{name} is reserved") for name in headers.keys() & RESERVED]
        if "list-unsubscribe" in headers and not re.fullmatch(r"<https://[^<>\s]+>", headers["list-unsubscribe"]):
            found.append((f"{at}.headers", "List-Unsubscribe is not a link"))
        if headers.get("list-unsubscribe-post", "List-Unsubscribe=One-Click") != "List-Unsubscribe=One-Click":
            found.append((f"{at}.headers", "List-Unsubscribe-Post"))
        arguments = {**body.get("custom_args", {}), **one.get("custom_args", {})}
        if len(json.dumps(arguments).encode()) > 10_000:
            found.append((f"{at}.custom_args", "may not exceed 10,000 bytes"))
    if recipients > 1000:
        found.append(("personalizations", "There is a limit of 1000 total recipients (to + cc + bcc) per request."))
    for name in ("from", "reply_to"):
        if name in body and not is_address(body[name]["email"]):
            found.append((f"{name}.email", "Does not contain a valid address."))
    if "content" not in body and "template_id" not in body:
        found.append(("content", "The content value must be a string at least one character in length."))
    return found


def member_faults(path: str, body: dict, tags: set[str]) -> list[tuple[str, str]]:
    """The rules of Mailchimp's `PUT /lists/{id}/members/{hash}`."""
    if found := broken(MEMBER, body):
        return found
    place = re.fullmatch(r"/lists/[A-Za-z0-9]+/members/([0-9a-f]{32})", path)
    if not place or place[1] != hashlib.md5(body["email_address"].lower().encode()).hexdigest():
        found.append(("subscriber_hash", "is not the MD5 of the lower-case address"))
    if not is_address(body["email_address"]):
        found.append(("email_address", "Please provide a valid email address."))
    for tag, value in body.get("merge_fields", {}).items():
        if tag not in tags:
            found.append((tag, "no such merge field"))
        if len(value.encode()) > 255:
            found.append((tag, "Please enter a value of 255 bytes or less."))
        if "*|" in value or "|*" in value:
            found.append((tag, "holds a merge tag"))
    return found


def content_faults(body: dict, tags: set[str]) -> list[tuple[str, str]]:
    """The rules of a campaign's content: a link to unsubscribe, known tags, blocks that end."""
    if found := broken(CONTENT, body):
        return found
    for name, text in body.items():
        if "*|UNSUB|*" not in text:
            found.append((name, "lacks *|UNSUB|*"))
        depth = 0
        for tag in re.findall(r"\*\|(.*?)\|\*", text):
            depth += tag.startswith("IF:") - (tag == "END:IF")
            if depth < 0 or (tag.removeprefix("IF:") not in tags | {"UNSUB", "ELSE:", "END:IF"}):
                found.append((name, f"unknown or unopened tag {tag}"))
        if depth:
            found.append((name, "a block does not end"))
    return found


Fault = Callable[[str, str], str | None]


class StandIn:
    """The server. `fault(method, path)` says how to fail a request, None to serve it: `429` and `503` (with `Retry-After`) or
    `500` before it is taken, `500-after`, `drop` before and `drop-after` it is taken. `delay` seconds, at most, go by before a
    request is taken, `lag` until SendGrid's log shows it. `scopes` are the key's."""

    def __init__(self, key: str, fault: Fault | None = None, delay: float = 0.0, lag: float = 0.0, seed: int = 0) -> None:
        self.key, self.fault, self.delay, self.lag = key, fault or (lambda method, path: None), delay, lag
        self.scopes = ["mail.send", "messages.read"]
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.mailed: list[dict] = []
        self.requests: list[tuple[str, str]] = []
        self.tags = {"FNAME", "LNAME"}
        self.members: dict[str, dict] = {}
        self.batches: dict[str, dict] = {}
        self.campaigns: dict[str, dict] = {}

    def __enter__(self) -> "StandIn":
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def do_GET(self) -> None:
                stand_in.serve(self)

            do_POST = do_PUT = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("content-length") or 0)
        data = handler.rfile.read(length)
        if len(data) < length:
            return
        path = handler.path
        with self.lock:
            fault = self.fault(handler.command, path)
            wait = self.random.uniform(0, self.delay)
        time.sleep(wait)
        headers = {}
        if fault in ("429", "503"):
            status, headers, body = int(fault), {"retry-after": "0"}, self.problem(path, int(fault), "too many requests")
        elif fault == "500":
            status, body = 500, self.problem(path, 500, "internal error")
        elif fault == "drop":
            handler.close_connection = True
            return
        else:
            with self.lock:
                self.requests.append((handler.command, path))
                status, headers, body = self.answer(handler, data)
            if fault == "drop-after":
                handler.close_connection = True
                return
            if fault == "500-after":
                status, body = 500, self.problem(path, 500, "internal error")
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def problem(self, path: str, status: int, text: str, faults: list[tuple[str, str]] = ()) -> dict:
        if path.startswith("/3.0"):
            fields = [{"field": field, "message": message} for field, message in faults]
            return {"type": "about:blank", "title": text, "status": status, "detail": text, "instance": "", "errors": fields}
        return {"errors": [{"message": m, "field": f, "help": None} for f, m in (faults or [(None, text)])]}

    def answer(self, handler: BaseHTTPRequestHandler, data: bytes) -> tuple[int, dict, object]:
        url = urlsplit(handler.path)
        mailchimp = url.path.startswith("/3.0/")
        wanted = "Basic " + base64.b64encode(f"recsys:{self.key}".encode()).decode() if mailchimp else f"Bearer {self.key}"
        if url.path.startswith("/results/"):
            return 200, {}, self.batches[url.path.rsplit("/", 1)[1]]["archive"]
        if handler.headers.get("authorization") != wanted:
            return 401, {}, self.problem(handler.path, 401, "API Key Invalid")
        if len(data) > 30_000_000:
            return 413, {}, self.problem(handler.path, 413, "Payload too large")
        if data and handler.headers.get("content-type") != "application/json":
            return 415, {}, self.problem(handler.path, 415, "Unsupported media type")
        try:
            body = json.loads(data) if data else None
        except ValueError:
            return 400, {}, self.problem(handler.path, 400, "Bad Request")
        call = self.mailchimp if mailchimp else self.sendgrid
        return call(handler.command, url.path.removeprefix("/3.0"), parse_qs(url.query), body)

    def sendgrid(self, method: str, path: str, query: dict, body: dict | None) -> tuple[int, dict, object]:
        if (method, path) == ("GET", "/v3/scopes"):
            return 200, {}, {"scopes": self.scopes}
        if (method, path) == ("GET", "/v3/messages"):
            if "messages.read" not in self.scopes:
                return 403, {}, self.problem(path, 403, "access forbidden")
            batch = re.fullmatch(r"unique_args\['batch'\]=\"([0-9a-f]+)\"", query["query"][0])[1]
            seen = time.monotonic() - self.lag
            found = [one for one in self.mailed if one["batch"] == batch and one["time"] <= seen]
            limit = int(query["limit"][0])
            return 200, {}, {"messages": [{"msg_id": one["letter"], "to_email": one["email"]} for one in found[:limit]]}
        if (method, path) == ("POST", "/v3/mail/send"):
            if faults := mail_send_faults(body):
                return 400, {}, self.problem(path, 400, "", faults)
            for one in body["personalizations"]:
                arguments = {**body["custom_args"], **one["custom_args"]}
                self.mailed.append({"email": one["to"][0]["email"], "time": time.monotonic(), **arguments})
            return 202, {"x-message-id": f"message-{len(self.mailed)}"}, None
        return 404, {}, self.problem(path, 404, "not found")

    def mailchimp(self, method: str, path: str, query: dict, body: dict | None) -> tuple[int, dict, object]:
        def bad(faults: list[tuple[str, str]]) -> tuple[int, dict, object]:
            return 400, {}, self.problem("/3.0", 400, "Invalid Resource", faults)

        parts = path.strip("/").split("/")
        if parts[0] == "lists" and parts[1] != "list1":
            return 404, {}, self.problem("/3.0", 404, "Resource Not Found")
        if parts[2:] == ["merge-fields"] and method == "GET":
            return 200, {}, {"merge_fields": [{"tag": tag} for tag in sorted(self.tags)]}
        if parts[2:] == ["merge-fields"]:
            faults = broken(MERGE_FIELD, body)
            if not faults and (body["tag"] in self.tags or len(self.tags) >= 30):
                faults = [("tag", "exists already, or there are 30")]
            if faults:
                return bad(faults)
            self.tags.add(body["tag"])
            return 200, {}, body
        if parts == ["batches"]:
            if faults := broken(BATCH, body):
                return bad(faults)
            name = f"batch{len(self.batches)}"
            results = [self.operate(one) for one in body["operations"]]
            failed = sum(result["status_code"] >= 300 for result in results)
            self.batches[name] = {"archive": packed(results), "total": len(results), "failed": failed, "looks": 0}
            return 200, {}, {"id": name, "status": "pending", "total_operations": 0}
        if parts[0] == "batches":
            state = self.batches[parts[1]]
            state["looks"] += 1
            done = state["looks"] > 1
            return (
                200,
                {},
                {
                    "id": parts[1],
                    "status": "finished" if done else "started",
                    "total_operations": state["total"],
                    "finished_operations": state["total"] if done else 0,
                    "errored_operations": state["failed"] if done else 0,
                    "response_body_url": f"{self.url}/results/{parts[1]}" if done else "",
                },
            )
        if parts == ["campaigns"]:
            faults = broken(CAMPAIGN, body)
            if not faults and not is_address(body["settings"]["reply_to"]):
                faults = [("reply_to", "not an address")]
            if faults:
                return bad(faults)
            name = f"campaign{len(self.campaigns)}"
            self.campaigns[name] = {"id": name, "status": "save", **body}
            return 200, {}, self.campaigns[name]
        campaign = self.campaigns[parts[1]]
        if method == "GET":
            return 200, {}, {"status": campaign["status"]}
        if parts[2:] == ["content"]:
            if campaign["status"] != "save":
                return bad([("content", "Cannot edit a campaign that was sent")])
            if faults := content_faults(body, self.tags):
                return bad(faults)
            campaign["content"] = body
            return 200, {}, body
        if parts[2:] == ["actions", "send"]:
            if campaign["status"] != "save" or "content" not in campaign:
                return bad([("campaign", "Your Campaign is not ready to send")])
            campaign["status"] = "sending"
            mark = campaign["recipients"]["segment_opts"]["conditions"][0]
            for member in self.members.values():
                if member["status"] == "subscribed" and member["merge_fields"].get(mark["field"]) == mark["value"]:
                    self.mailed.append({"email": member["email_address"], "mailing": mark["value"], **member["merge_fields"]})
            return 204, {}, None
        return 404, {}, self.problem("/3.0", 404, "Resource Not Found")

    def operate(self, operation: dict) -> dict:
        body = json.loads(operation["body"])
        faults = member_faults(operation["path"], body, self.tags)
        if not faults:
            member = self.members.setdefault(
                operation["path"], {"status": body["status_if_new"], "merge_fields": {}, "email_address": body["email_address"]}
            )
            member["merge_fields"] |= body["merge_fields"]
        status = 400 if faults else 200
        response = {"title": "Invalid Resource", "detail": str(faults)} if faults else {}
        return {"status_code": status, "operation_id": operation.get("operation_id"), "response": json.dumps(response)}


def packed(results: list[dict]) -> bytes:
    """Results as Mailchimp packs them: a compressed archive of JSON files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        folder = tarfile.TarInfo("results/")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        data = json.dumps(results).encode()
        entry = tarfile.TarInfo("results/0.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


MERGE_TAG = re.compile(r"\*\|(?:(?P<open>IF:)|(?P<else>ELSE:)|(?P<close>END:IF)|(?=\w))(?P<name>\w*)\|\*")
HANDLEBARS = re.compile(r"{{(?P<raw>{)?(?:(?P<open>#if|#each) |(?P<else>else)|(?P<close>/if|/each)|)(?P<name>[\w.]*)}?}}")


def filled(template: str, grammar: re.Pattern, values: dict, escaped: bool) -> str:
    """What the service makes of a template for one customer: the part of `MERGE_TAG` or `HANDLEBARS` that is used here."""
    tokens, at = [], 0
    for match in grammar.finditer(template):
        tokens += [template[at : match.start()], match]
        at = match.end()
    tokens = iter([*tokens, template[at:]])

    def find(name: str, this: object) -> object:
        for part in name.split("."):
            this = this if part == "this" else this.get(part) if isinstance(this, dict) else None
        return this

    def parsed() -> tuple[list, str]:
        """Nodes up to the end of the block, and what ended it."""
        nodes = []
        for token in tokens:
            if isinstance(token, str):
                nodes.append(token)
                continue
            kind = token.groupdict()
            if kind["else"] or kind["close"]:
                return nodes, "else" if kind["else"] else "close"
            if kind["open"]:
                shown, ended = parsed()
                nodes.append((token, shown, parsed()[0] if ended == "else" else []))
            else:
                nodes.append((token, None, None))
        return nodes, "end"

    def written(nodes: list, this: object) -> str:
        text = ""
        for node in nodes:
            if isinstance(node, str):
                text += node
                continue
            token, shown, otherwise = node
            value = find(token["name"], this)
            if shown is None:
                plain = "" if value is None else str(value)
                text += html.escape(plain) if escaped and not token.groupdict().get("raw") else plain
            elif token["open"] == "#each":
                text += "".join(written(shown, one) for one in value or [])
            else:
                text += written(shown if value else otherwise, this)
        return text

    return written(parsed()[0], values)
