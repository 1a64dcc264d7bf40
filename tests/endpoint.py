"""An OpenAI-compatible endpoint on loopback, which behaves as badly as it is told to."""

import json
import math
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text, top=None, first=None):
    content = None
    if top is not None:
        entries = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in top.items()]
        content = [{"token": first or text, "logprob": 0.0, "bytes": None, "top_logprobs": entries}]
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "stub",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": content} if content else None,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
    }


class Stub:
    """A server whose `behave` is given each request and its number, and returns status and body."""

    def __init__(self, behave):
        self.lock, self.answered, self.requests, self.running, self.most = (
            threading.Lock(),
            Counter(),
            [],
            0,
            0,
        )
        self.headers = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"]
                with stub.lock:
                    stub.requests.append(body)
                    stub.headers.append({name.lower(): value for name, value in self.headers.items()})
                    number = len(stub.requests)
                    stub.running += 1
                    stub.most = max(stub.most, stub.running)
                try:
                    status, answer = behave(prompt, number)
                finally:
                    with stub.lock:
                        stub.running -= 1
                if status is None:
                    return
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(data)
                if status == 200:
                    with stub.lock:
                        stub.answered[prompt] += 1

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"
