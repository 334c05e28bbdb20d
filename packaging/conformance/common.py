"""What the conformance scripts share: certificates, an origin, Relais and HAProxy side by side, the report.

Everything listens on loopback, on ports that the kernel chose, and is ended by pid.
"""

import contextlib, os, pathlib, shutil, socket, socketserver, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "target/conformance"
NAME = "www.conformance.test"


def missing(what, how):
    """Without `what` there is nothing to run: said out loud, and no success where nobody reads it."""
    print(f"SKIPPED: {what} is not here; {how}", file=sys.stderr)
    sys.exit(1 if os.environ.get("CI") == "true" else 0)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    sys.exit(f"conformance: nothing listens on port {port}")


def venv(*packages):
    """The bin directory of a Python environment with these packages of the registry."""
    home = BUILT / "venv"
    if not (home / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    subprocess.run([home / "bin/pip", "install", "-q", *packages], check=True)
    return home / "bin"


def openssl(*words, **more):
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, **more)


def certificates(d):
    """An authority in `ca.pem`, and `www.pem`: certificate, chain and key of NAME, RSA, for 90 days."""
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", d / "ca.key", "-out", d / "ca.pem", "-days", 365,
            "-subj", "/CN=Conformance CA", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", d / "www.key", "-out", d / "www.csr", "-subj", f"/CN={NAME}")
    (d / "www.ext").write_text(f"subjectAltName=DNS:{NAME},IP:127.0.0.1\nbasicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
                               "extendedKeyUsage=serverAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
    openssl("x509", "-req", "-in", d / "www.csr", "-CA", d / "ca.pem", "-CAkey", d / "ca.key", "-set_serial", int.from_bytes(os.urandom(12), "big"),
            "-sha256", "-days", 90, "-extfile", d / "www.ext", "-out", d / "www.crt")
    (d / "www.pem").write_text((d / "www.crt").read_text() + (d / "ca.pem").read_text() + (d / "www.key").read_text())


class Origin:
    """A server that answers every request with a small page, head and body in one piece, over kept connections."""

    def __init__(self):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"

        class Answer(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self):
                while line := self.rfile.readline():
                    length, chunked = 0, False
                    while (field := self.rfile.readline()) not in (b"\r\n", b""):
                        name, _, value = field.partition(b":")
                        length = int(value) if name.lower() == b"content-length" else length
                        chunked |= name.lower() == b"transfer-encoding"
                    self.rfile.read(length)
                    while chunked and (size := int(self.rfile.readline() or b"0", 16)):
                        self.rfile.read(size + 2)
                    while chunked and self.rfile.readline() not in (b"\r\n", b""):
                        pass  # trailers
                    self.wfile.write(head if line.startswith(b"HEAD ") else head + b"page\n")

        class Server(socketserver.ThreadingTCPServer):
            request_queue_size, daemon_threads = 1024, True

            def handle_error(self, *_):
                pass  # a connection that was cut

        self.server = Server(("127.0.0.1", 0), Answer)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def relais(d, binary, origin, plain=None, secure=None, timeouts='request="10s" client="30s" keep-alive="30s"'):
    """Relais in front of the origin, on these ports; the process."""
    if not os.access(binary, os.X_OK):
        sys.exit(f"conformance: there is no {binary}: build it with `cargo build --release -p relais`")
    binds = f'bind "127.0.0.1:{plain}"\n' if plain else ""
    if secure:
        binds += f'bind "127.0.0.1:{secure}" {{ tls {{ certificate "{d}/www.pem"; hsts "730d"; }}; }}\n'
    (d / "plan.kdl").write_text(f"""
platform conformance {{ admin "127.0.0.1:{free_port()}"; access-log "{d}/access.log"; drain "1s"; }}
node here {{ link "127.0.0.1"; }}
frontend web {{
    {binds}
    timeout {timeouts}
    default-backend app
}}
backend app {{ server s1 "127.0.0.1:{origin.port}"; }}
""")
    log = open(d / "relais.log", "wb")
    process = subprocess.Popen([binary, "run", d / "plan.kdl", "--node", "here", "--run-dir", d / "run"], stdout=log, stderr=log)
    wait_port(plain or secure)
    return process


def haproxy(d, origin, secure):
    """HAProxy with Mozilla's intermediate settings; the process."""
    if not shutil.which("haproxy"):
        return None
    suites = ("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
              "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305")
    (d / "haproxy.cfg").write_text(f"""
global
    ssl-default-bind-ciphers {suites}
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    timeout connect 3s
    timeout client 30s
    timeout server 30s
    timeout http-request 10s
frontend web
    bind 127.0.0.1:{secure} ssl crt {d}/www.pem alpn h2,http/1.1 curves X25519:P-256:P-384
    default_backend app
backend app
    server s1 127.0.0.1:{origin.port}
""")
    process = subprocess.Popen(["haproxy", "-db", "-q", "-f", d / "haproxy.cfg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_port(secure)
    return process


@contextlib.contextmanager
def scratch():
    """A directory that other users may read, and a list of processes that are ended behind it."""
    started = []
    with tempfile.TemporaryDirectory(prefix="relais-conformance-") as temp:
        d = pathlib.Path(temp)
        d.chmod(0o755)
        try:
            yield d, started
        finally:
            for process in filter(None, started):
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
