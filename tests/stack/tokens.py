"""A service that gives bearer tokens: as Entra ID does, as a machine's identity endpoint does, and as any other by OIDC's
client credentials. Tokens live a few seconds, so that what runs longer must renew them; they are signed by nobody, which
Azurite and Kafka's own validator accept. `given` holds every token."""

import base64
import http.server
import json
import secrets
import threading
import time
import urllib.parse

CLIENT_SECRET, ASSERTION = secrets.token_urlsafe(32), secrets.token_urlsafe(32)


class Service(http.server.ThreadingHTTPServer):
    def __init__(self, port, seconds):
        super().__init__(("127.0.0.1", port), Request)
        self.seconds, self.given = seconds, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def token(self):
        def part(value):
            return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

        now = int(time.time())
        says = {"iss": "https://sts.windows.net/tenant/", "aud": "https://storage.azure.com", "sub": "lode", "scope": "kafka"}
        says.update(iat=now, nbf=now, exp=now + self.seconds, jti=secrets.token_hex(8))
        token = f"{part({'typ': 'JWT', 'alg': 'none'})}.{part(says)}."
        self.given.append(token)
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.seconds, "expires_on": str(says["exp"])}


class Request(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        basic = "Basic " + base64.b64encode(f"client:{CLIENT_SECRET}".encode()).decode()
        entra = form.get("client_secret") == CLIENT_SECRET or form.get("client_assertion") == ASSERTION
        self.answer((entra or self.headers.get("authorization") == basic) and self.path == "/tenant/oauth2/v2.0/token")

    def do_GET(self):
        self.answer(self.path.startswith("/machine?") and self.headers.get("metadata") == "true")

    def answer(self, right):
        body = json.dumps(self.server.token() if right else {"error": "invalid_client"}).encode()
        self.send_response(200 if right else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
