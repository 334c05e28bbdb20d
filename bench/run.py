#!/usr/bin/env python3
"""Relais beside HAProxy and nginx, on this machine, in one run.

All three proxy the same origin (nginx) with one worker pinned to one core; load and origin share the other.
In all three: HTTP/1.1 keep-alive on both sides, active checks where the product has them (nginx has none),
X-Forwarded-For added, one access line a request in HAProxy's httplog fields (nginx: the same amount of text),
written to the standard output, which is a file; each product batches or does not, as it does by default.

CPU is the scheduler's own account (/proc/PID/task/*/schedstat, nanoseconds) of every thread of every process
of a product, divided by the requests that the load tool counted. Latency is h2load's at a fixed rate, 70 % of
what the slowest of the three can do. Memory is the proportional set size of all processes of a product; what
the kernel keeps for a socket is not in it, and is the same for all. Rounds alternate; medians are quoted.
Large transfers go through `mode tcp`, HAProxy once as it is by default (it copies) and once with `option splice-auto`;
CPU per GiB is counted likewise, and nginx is not measured. `--tcp` measures these alone.
TLS (`--tls` measures it alone): HAProxy and Relais with one P-256 certificate, TLS 1.3 as their defaults have it; requests kept
alive (wrk), a full handshake for each request (wrk, `Connection: close`), HTTP/2 (h2load, 8 connections of 16
streams), and memory of idle connections. nginx is not measured.
On a machine that does other work meanwhile the figures swing: it is said then.

usage: bench/run.py [--seconds 4] [--rounds 3] [--idle 10000] [--relais target/dist/relais] [--tcp|--tls|--guards]
Prints a table; writes target/bench/result.json. Ends only what it started, by pid.
"""

import argparse, json, os, pathlib, re, resource, shutil, signal, socket, ssl, statistics, struct, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = "a response of thirty-four bytes..\n"
PROXY_CORE, LOAD_CORE = "0", "1"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port, seconds=15):
    """Whether a server answers 200 on this port before the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s:
                s.sendall(b"GET /small HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                if s.recv(64).startswith(b"HTTP/1.1 200"):
                    return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


class Product:
    """A program under test: how it is started, and the processes it consists of."""

    def __init__(self, name, argv, port, log):
        self.name, self.port = name, port
        self.out = open(log, "ab")
        self.log = log
        self.process = subprocess.Popen(["taskset", "-c", PROXY_CORE, *argv], stdout=self.out, stderr=self.out)

    def wait_until_it_answers(self):
        if not answers(self.port):
            sys.exit(f"bench: {self.name} does not answer; it said last:\n{self.log.read_text(errors='replace')[-2000:]}")

    def pids(self):
        """The started process and all its descendants."""
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    queue += [int(p) for p in task.read_text().split()]
                except OSError:
                    pass
        return found

    def cpu_ns(self):
        total = 0
        for pid in self.pids():
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
                total += int(task.read_text().split()[0])
        return total

    def memory_kib(self):
        """Proportional set size of all processes: shared pages are counted once."""
        total = 0
        for pid in self.pids():
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1))
        return total

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            for pid in reversed(self.pids()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()
        self.out.close()


TCP_CASES = {"haproxy": ("tcp", "tcp_splice"), "relais": ("tcp",)}
BIG = 256 << 20


def write_configs(d, origin, ports, most):
    (d / "www").mkdir()
    with open(d / "www/big", "wb") as big:
        big.truncate(BIG)
    (d / "www/small").write_text(SMALL)
    (d / "www/large").write_bytes(os.urandom(65536))
    assert len(SMALL) == 34
    temp = "".join(f"{k}_temp_path {d}/{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    nginx_head = "worker_processes 1; daemon off; master_process off; error_log {d}/{n}.err; pid {d}/{n}.pid; " \
                 "events {{ worker_connections 30000; }} http {{ " + temp + " sendfile on; "
    (d / "origin.conf").write_text(
        nginx_head.format(d=d, n="origin")
        + "keepalive_requests 1000000000; access_log off; open_file_cache max=10; "
        + f"server {{ listen 127.0.0.1:{origin} backlog=4096; root {d}/www; }} }}")
    (d / "nginx.conf").write_text(
        nginx_head.format(d=d, n="nginx")
        + "keepalive_requests 1000000000; keepalive_timeout 300s; "
        + "log_format h '$remote_addr:$remote_port [$time_local] web app/s1 $request_time/$upstream_connect_time/"
          "$upstream_header_time/$upstream_response_time $status $bytes_sent - - ---- $connection/$connection_requests "
          "\"$request\"'; access_log /dev/stdout h; "
        + f"upstream app {{ server 127.0.0.1:{origin}; keepalive 256; keepalive_requests 1000000000; }} "
        + f"server {{ listen 127.0.0.1:{ports['nginx']} backlog=4096; location / {{ proxy_pass http://app; proxy_http_version 1.1; "
          "proxy_set_header Connection ''; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; } } }")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=bench",
         "-addext", "subjectAltName=DNS:bench,IP:127.0.0.1", "-keyout", str(d / "key.pem"), "-out", str(d / "cert.pem")],
        capture_output=True, check=True)
    (d / "tls.pem").write_text((d / "cert.pem").read_text() + (d / "key.pem").read_text())
    haproxy_servers = "\n".join(f"  server s{n} 127.0.0.1:{origin}" for n in range(1, 9))
    relais_servers = "\n".join(f'    server s{n} "127.0.0.1:{origin}"' for n in range(1, 9))
    (d / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn {most}
  maxpipes 64
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  option forwardfor
  retries 3
  option redispatch
  timeout connect 3s
  timeout client 1m
  timeout server 1m
  timeout http-request 10s
  timeout http-keep-alive 300s
frontend web
  bind 127.0.0.1:{ports['haproxy']}
  bind 127.0.0.1:{ports['haproxy tls']} ssl crt {d}/tls.pem alpn h2,http/1.1
  default_backend app
backend app
  http-reuse always
  option httpchk GET /small
  server s1 127.0.0.1:{origin} check inter 1s fall 2 rise 2
frontend plain
  bind 127.0.0.1:{ports['haproxy plain']}
  default_backend plain
backend plain
  balance roundrobin
  http-reuse always
{haproxy_servers}
frontend guarded
  bind 127.0.0.1:{ports['haproxy guarded']}
  stick-table type ip size 100k expire 10m store http_req_rate(10s)
  http-request track-sc0 src
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 100000000 }}
  default_backend guarded_app
backend guarded_app
  balance leastconn
  http-reuse always
  stick-table type ip size 100k expire 30m
  stick on src
{haproxy_servers}
listen tcp
  mode tcp
  option tcplog
  bind 127.0.0.1:{ports['haproxy tcp']}
  server s1 127.0.0.1:{origin}
listen tcp_splice
  mode tcp
  option tcplog
  option splice-auto
  bind 127.0.0.1:{ports['haproxy tcp_splice']}
  server s1 127.0.0.1:{origin}
""")
    (d / "relais.kdl").write_text(f"""
platform bench {{
    admin "127.0.0.1:{free_port()}"
    access-log stdout
    drain "1s"
}}
node here {{ link "127.0.0.1"; }}
frontend web {{
    bind "127.0.0.1:{ports['relais']}"
    bind "127.0.0.1:{ports['relais tls']}" {{ tls {{ certificate "{d}/tls.pem"; }} }}
    max-connections {most}
    forwarded-for
    timeout request="10s" client="1m" keep-alive="300s"
    default-backend app
}}
backend app {{
    check http path="/small" expect=200 every="1s" fall=2 rise=2
    timeout connect="3s" server="1m"
    retries 3
    redispatch
    server s1 "127.0.0.1:{origin}"
}}
frontend plain {{ bind "127.0.0.1:{ports['relais plain']}"; max-connections {most}; forwarded-for; default-backend plain; }}
backend plain {{
{relais_servers}
}}
frontend guarded {{
    bind "127.0.0.1:{ports['relais guarded']}"
    max-connections {most}
    forwarded-for
    rule "nobody asks that often" {{ match rate key=src over=100000000 per="10s"; deny 429; }}
    default-backend guarded
}}
backend guarded {{
    balance leastconn
    stick src size=100000 expire="30m"
{relais_servers}
}}
frontend tcp {{ mode tcp; bind "127.0.0.1:{ports['relais tcp']}"; default-backend tcp; }}
backend tcp {{ mode tcp; server s1 "127.0.0.1:{origin}"; }}
""")


def start(name, d, ports, relais):
    argv = {
        "haproxy": ["haproxy", "-db", "-f", str(d / "haproxy.cfg")],
        "nginx": ["nginx", "-c", str(d / "nginx.conf")],
        "relais": [relais, "run", str(d / "relais.kdl"), "--node", "here", "--run-dir", str(d / "run")],
    }[name]
    return Product(name, argv, ports[name], d / f"{name}.log")


def wrk(port, path, seconds, connections=64, scheme="http", fields=()):
    fields = [part for field in fields for part in ("-H", field)]
    out = subprocess.run(
        ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *fields, f"{scheme}://127.0.0.1:{port}{path}"],
        capture_output=True, text=True, check=True).stdout
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    failed = sum(map(int, errors.groups())) if errors else 0
    return int(re.search(r"(\d+) requests in", out).group(1)), failed + (int(bad.group(1)) if bad else 0)


def cost(product, path, seconds, port=None):
    """CPU microseconds a request, and requests a second."""
    product.wait_until_it_answers()
    port = port or product.port
    wrk(port, path, 1)
    before, began = product.cpu_ns(), time.monotonic()
    requests, failed = wrk(port, path, seconds)
    cpu, took = product.cpu_ns() - before, time.monotonic() - began
    if failed:
        sys.exit(f"bench: {product.name} failed {failed} of {requests} requests")
    return cpu / requests / 1000, requests / took


def transfer(product, port, times=4):
    """CPU milliseconds for each GiB that a client fetches through `mode tcp`, one connection after the other."""
    fetch = ["taskset", "-c", LOAD_CORE, "curl", "-s", "-o", "/dev/null", "-w", "%{size_download}\n",
             f"http://127.0.0.1:{port}/big"]
    subprocess.run(fetch, capture_output=True, check=True)
    before = product.cpu_ns()
    sizes = [int(subprocess.run(fetch, capture_output=True, text=True, check=True).stdout) for _ in range(times)]
    cpu = product.cpu_ns() - before
    if sizes != [BIG] * times:
        sys.exit(f"bench: {product.name} passed on {sizes} bytes of {BIG} each")
    return cpu / 1e6 / (sum(sizes) / (1 << 30))


def transfers(names, rounds, d, ports, relais, started):
    """Medians, by product and case."""
    results = {f"{name} {case}": [] for name in names for case in TCP_CASES.get(name, ())}
    for round_ in range(rounds):
        for name in names[round_ % len(names):] + names[:round_ % len(names)]:
            if name not in TCP_CASES:
                continue
            started.append(product := start(name, d, ports, relais))
            product.wait_until_it_answers()
            for case in TCP_CASES[name]:
                results[f"{name} {case}"].append(transfer(product, ports[f"{name} {case}"]))
            started.remove(product)
            product.stop()
    for row, values in results.items():
        print(f"{row:24}{statistics.median(values):12.1f}  CPU ms/GiB through mode tcp")
    return results


TLS_CASES = ("tls kept alive", "tls handshake", "h2 over tls")
TLS_IDLE = 2000


def h2load(port, seconds):
    out = subprocess.run(
        ["taskset", "-c", LOAD_CORE, "h2load", "-t1", "-c8", "-m16", f"-D{seconds}", f"https://127.0.0.1:{port}/small"],
        capture_output=True, text=True, check=True).stdout
    if "Application protocol: h2" not in out:
        sys.exit(f"bench: h2load did not speak HTTP/2: {out[:400]}")
    total, failed = re.search(r"requests: (\d+) total.*?(\d+) failed", out).groups()
    return int(re.search(r"(\d+) succeeded", out).group(1)), int(failed)


def tls_cost(product, port, case, seconds):
    """CPU microseconds a request."""
    run = {
        "tls kept alive": lambda s: wrk(port, "/small", s, scheme="https"),
        "tls handshake": lambda s: wrk(port, "/small", s, connections=16, scheme="https", fields=["Connection: close"]),
        "h2 over tls": lambda s: h2load(port, s),
    }[case]
    run(1)
    before = product.cpu_ns()
    requests, failed = run(seconds)
    cpu = product.cpu_ns() - before
    if failed or not requests:
        sys.exit(f"bench: {product.name} failed {failed} of {requests} requests ({case})")
    return cpu / requests / 1000


def ask_once(product, s, request):
    """One request and its whole answer, after which the connection is idle."""
    s.sendall(request)
    got = b""
    while SMALL.encode() not in got:
        part = s.recv(4096)
        if not part:
            sys.exit(f"bench: {product.name} closed a connection that should have become idle")
        got += part


def tls_idle(product, port, count):
    """KiB of memory that each idle TLS connection costs, each having had one answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    before, sockets = product.memory_kib(), []
    try:
        for _ in range(count):
            s = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5))
            ask_once(product, s, b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n")
            sockets.append(s)
        time.sleep(1.5)  # the measured thing itself: connections at rest
        return (product.memory_kib() - before) / count
    finally:
        for s in sockets:
            s.close()


def encrypted(names, rounds, seconds, d, ports, relais, started):
    """As [`transfers`], of what goes over TLS."""
    names = [name for name in names if name != "nginx"]
    cases = (*TLS_CASES, "KiB/idle tls connection")
    results = {case: {name: [] for name in names} for case in cases}
    for round_ in range(rounds):
        for name in names[round_ % len(names):] + names[:round_ % len(names)]:
            started.append(product := start(name, d, ports, relais))
            product.wait_until_it_answers()
            port = ports[f"{name} tls"]
            results[cases[-1]][name].append(tls_idle(product, port, TLS_IDLE))
            for case in TLS_CASES:
                results[case][name].append(tls_cost(product, port, case, seconds))
            started.remove(product)
            product.stop()
    print(f"{'over TLS 1.3':24}" + "".join(f"{name:>12}" for name in names))
    for case, row in results.items():
        medians = [statistics.median(row[name]) for name in names]
        ratio = f"{medians[-1] / max(medians[0], 1e-9):19.2f}" if names == ["haproxy", "relais"] else ""
        print(f"{case:24}" + "".join(f"{value:12.2f}" for value in medians) + ratio + ("" if "KiB" in case else "  CPU us/request"))
    return results


def guards(names, rounds, seconds, d, ports, relais, started):
    """What a stick table, a rate rule and leastconn cost above round robin: CPU microseconds a request, medians."""
    names = [name for name in names if name != "nginx"]
    results = {name: {"plain": [], "guarded": []} for name in names}
    for round_ in range(rounds):
        for name in names[round_ % len(names):] + names[:round_ % len(names)]:
            started.append(product := start(name, d, ports, relais))
            for case in ("plain", "guarded", "guarded", "plain"):  # whatever drifts meanwhile drifts for both
                results[name][case].append(cost(product, "/small", seconds, ports[f"{name} {case}"])[0])
            started.remove(product)
            product.stop()
    for name, row in results.items():
        plain, guarded = (statistics.median(row[case]) for case in ("plain", "guarded"))
        print(f"{name:24}{plain:12.2f}{guarded:12.2f}{guarded - plain:+12.2f}  CPU us/request: round robin; stick, rate and leastconn; more")
    return results


def latency(product, rate, seconds, d):
    """p50 and p99 in microseconds at a fixed rate, from every single request."""
    product.wait_until_it_answers()
    log = d / "h2load.log"
    log.unlink(missing_ok=True)
    clients = 32
    subprocess.run(
        ["taskset", "-c", LOAD_CORE, "h2load", "--h1", "-t1", f"-c{clients}", f"-D{seconds}", "--warm-up-time=1",
         f"--rps={max(1, rate // clients)}", f"--log-file={log}", f"http://127.0.0.1:{product.port}/small"],
        capture_output=True, text=True, check=True)
    answers = [line.split("\t") for line in log.read_text().splitlines()]  # begin, status, microseconds
    times = sorted(int(took) for _, status, took in answers if status == "200")
    if len(times) < len(answers) or len(times) < rate * seconds / 2:
        sys.exit(f"bench: {product.name} answered {len(times)} of {rate * seconds} requests with 200")
    return times[len(times) // 2], times[len(times) * 99 // 100]


def idle(product, count):
    """KiB of memory that each idle keep-alive connection costs, each having had one answer."""
    request = b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n"
    before, sockets = product.memory_kib(), []
    try:
        for n in range(count):
            s = socket.socket()
            s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: a port only has to be free towards this peer
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leave no TIME_WAIT behind
            s.bind((f"127.0.0.{2 + n // 5000}", 0))
            s.connect(("127.0.0.1", product.port))
            ask_once(product, s, request)
            sockets.append(s)
        time.sleep(1.5)  # the measured thing itself: connections at rest
        return (product.memory_kib() - before) / count
    finally:
        for s in sockets:
            s.close()


def versions(relais):
    """What was measured, and on what."""
    def first_line(*argv):
        done = subprocess.run(argv, capture_output=True, text=True)
        return (done.stdout or done.stderr).strip().split("\n")[0]

    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {"haproxy": first_line("haproxy", "-v"), "nginx": first_line("nginx", "-v"),
            "relais": first_line(relais, "--version"), "kernel": os.uname().release,
            "cpu": model.group(1) if model else os.uname().machine}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=int, default=10000)
    parser.add_argument("--relais", default=str(ROOT / "target/dist/relais"))
    parser.add_argument("--tcp", action="store_true", help="only large transfers through mode tcp")
    parser.add_argument("--tls", action="store_true", help="only what goes over TLS")
    parser.add_argument("--guards", action="store_true", help="only what a stick table, a rate rule and leastconn cost")
    parser.add_argument("--only", nargs="*", default=["haproxy", "nginx", "relais"])
    args = parser.parse_args()
    for tool in ("haproxy", "nginx", "wrk", "h2load", "taskset", "curl", "openssl"):
        if not shutil.which(tool):
            sys.exit(f"bench: {tool} is missing: run packaging/packages bench as root")
    if "relais" in args.only and not pathlib.Path(args.relais).exists():
        sys.exit(f"bench: {args.relais} is not there: cargo build --profile dist -p relais")
    if os.cpu_count() < 2:
        sys.exit("bench: two cores are needed, one for the proxy and one for the load")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))  # what was started is ended too
    load = os.getloadavg()[0]
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (70000, 70000))
        files = 70000
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    most = (files - 500) // 2  # a proxied connection costs two
    args.idle = min(args.idle, most)

    names, origin = args.only, free_port()
    ports = {name: free_port() for name in ("haproxy", "nginx", "relais")}
    ports |= {f"{name} tls": free_port() for name in ("haproxy", "relais")}
    ports |= {f"{name} {case}": free_port() for name in ("haproxy", "relais") for case in ("plain", "guarded")}
    ports |= {f"{name} {case}": free_port() for name, cases in TCP_CASES.items() for case in cases}
    results = {name: {"small_us": [], "large_us": [], "small_rps": [], "large_rps": [], "p50_us": [], "p99_us": [], "idle_kib": []} for name in names}
    started = []
    with tempfile.TemporaryDirectory(prefix="relais-bench-") as temp:
        d = pathlib.Path(temp)
        d.chmod(0o755)
        write_configs(d, origin, ports, most)
        origin_process = subprocess.Popen(["taskset", "-c", LOAD_CORE, "nginx", "-c", str(d / "origin.conf")])
        try:
            if not answers(origin):
                sys.exit("bench: the origin does not answer")
            if args.guards:
                guards(names, args.rounds, args.seconds, d, ports, args.relais, started)
                return
            tls = [] if args.tcp else encrypted(names, args.rounds, args.seconds, d, ports, args.relais, started)
            if args.tls:
                return
            tcp = transfers(names, args.rounds, d, ports, args.relais, started)
            if args.tcp:
                return
            for round_ in range(args.rounds):
                order = names[round_ % len(names):] + names[:round_ % len(names)]
                for name in order:
                    started.append(product := start(name, d, ports, args.relais))
                    row = results[name]
                    us, rps = cost(product, "/small", args.seconds)
                    row["small_us"].append(us)
                    row["small_rps"].append(rps)
                    us, rps = cost(product, "/large", args.seconds)
                    row["large_us"].append(us)
                    row["large_rps"].append(rps)
                    started.remove(product)
                    product.stop()
            rate = int(min(statistics.median(results[n]["small_rps"]) for n in names) * 0.7)
            for round_ in range(args.rounds):
                for name in names[round_ % len(names):] + names[:round_ % len(names)]:
                    started.append(product := start(name, d, ports, args.relais))
                    p50, p99 = latency(product, rate, args.seconds, d)
                    results[name]["p50_us"].append(p50)
                    results[name]["p99_us"].append(p99)
                    results[name]["idle_kib"].append(idle(product, args.idle))
                    started.remove(product)
                    product.stop()
        finally:
            for product in started:
                product.stop()
            origin_process.terminate()
            origin_process.wait()

    medians = {name: {key: statistics.median(values) for key, values in row.items()} for name, row in results.items()}
    columns = [("small_us", "CPU us/request, 34 B"), ("large_us", "CPU us/request, 64 KiB"), ("small_rps", "requests/s, 34 B"), ("large_rps", "requests/s, 64 KiB"),
               ("p50_us", "p50 us"), ("p99_us", "p99 us"), ("idle_kib", "KiB/idle connection")]
    print(f"medians of {args.rounds}; latency at {rate} requests/s; {args.idle} idle connections")
    print(f"{'':24}" + "".join(f"{name:>12}" for name in names) + ("     relais/haproxy" if {"relais", "haproxy"} <= set(names) else ""))
    for key, title in columns:
        line = f"{title:24}" + "".join(f"{medians[name][key]:12.2f}" for name in names)
        if {"relais", "haproxy"} <= set(names):
            line += f"{medians['relais'][key] / max(medians['haproxy'][key], 1e-9):19.2f}"
        print(line)
    if load > 0.5:
        print(f"The machine was busy when this began (load {load:.1f}): quiet it and measure again.")
    out = ROOT / "target/bench"
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(
        {"rate": rate, "idle_connections": args.idle, "load_before": load, "tcp_ms_per_gib": tcp, "tls": tls, "versions": versions(args.relais),
         "rounds": results, "medians": medians}, indent=1))


if __name__ == "__main__":
    main()
