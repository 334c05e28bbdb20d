#!/usr/bin/env python3
"""Relais beside nginx's stream module: what a question and its answer cost by UDP.

Both give DNS questions to the same server (dnsmasq), one worker pinned to one core, no access log, one answer expected
for each question, so a session is as short as it can be: dnsperf's clients keep their ports, and each has a few questions
under way. dnsperf and dnsmasq share the other core. CPU is the scheduler's own account of every thread of a product,
divided by the answers that dnsperf counted. Rounds alternate; medians are quoted. HAProxy has no UDP proxy.

usage: bench/udp.py [--seconds 4] [--rounds 3] [--relais target/dist/relais]
"""

import argparse, os, pathlib, re, shutil, socket, statistics, struct, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from run import LOAD_CORE, ROOT, Product, free_port

QUESTION = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\x03www\x07example\x00" + struct.pack(">HH", 1, 1)


def wait_until_it_answers(port):
    end = time.monotonic() + 15
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.1)
        s.connect(("127.0.0.1", port))
        while time.monotonic() < end:
            try:
                s.send(QUESTION)
                if s.recv(512):
                    return
            except OSError:
                time.sleep(0.02)
    sys.exit(f"bench: nobody answers on UDP port {port}")


def ask(port, d, seconds):
    """Answers that came, and questions that had none."""
    out = subprocess.run(
        ["taskset", "-c", LOAD_CORE, "dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(d / "questions"), "-l", str(seconds),
         "-c", "16", "-q", "64"], capture_output=True, text=True, check=True).stdout
    count = lambda name: int(re.search(rf"Queries {name}:\s+(\d+)", out).group(1))
    return count("completed"), count("lost")


def write_configs(d, origin, ports):
    (d / "questions").write_text("www.example A\n")
    (d / "nginx.conf").write_text(
        f"load_module modules/ngx_stream_module.so; worker_processes 1; daemon off; master_process off; error_log {d}/nginx.err; "
        f"pid {d}/nginx.pid; events {{ worker_connections 30000; }} stream {{ server {{ listen 127.0.0.1:{ports['nginx']} udp; "
        f"proxy_pass 127.0.0.1:{origin}; proxy_responses 1; proxy_timeout 5s; }} }}")
    (d / "relais.kdl").write_text(f"""
platform bench {{ admin "127.0.0.1:{free_port()}"; access-log off; drain "1s"; }}
node here {{ link "127.0.0.1"; }}
frontend dns {{ mode udp; bind "127.0.0.1:{ports['relais']}"; default-backend resolvers; }}
backend resolvers {{ mode udp; responses 1; timeout session="5s"; server s1 "127.0.0.1:{origin}"; }}
""")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--relais", default=str(ROOT / "target/dist/relais"))
    args = parser.parse_args()
    for tool in ("nginx", "dnsperf", "dnsmasq", "taskset"):
        if not shutil.which(tool):
            sys.exit(f"bench: {tool} is missing: run packaging/packages bench as root")
    if not pathlib.Path(args.relais).exists():
        sys.exit(f"bench: {args.relais} is not there: cargo build --profile dist -p relais")
    load, origin = os.getloadavg()[0], free_port()
    ports = {"nginx": free_port(), "relais": free_port()}
    figures = {name: [] for name in ports}
    with tempfile.TemporaryDirectory(prefix="relais-bench-") as temp:
        d = pathlib.Path(temp)
        d.chmod(0o755)
        write_configs(d, origin, ports)
        argv = {"nginx": ["nginx", "-c", str(d / "nginx.conf")],
                "relais": [args.relais, "run", str(d / "relais.kdl"), "--node", "here", "--run-dir", str(d / "run")]}
        server = subprocess.Popen(
            ["taskset", "-c", LOAD_CORE, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file",
             "--bind-interfaces", "--listen-address=127.0.0.1", f"--port={origin}", "--address=/www.example/192.0.2.7", "--user=root"],
            stderr=subprocess.DEVNULL)
        started = []
        try:
            wait_until_it_answers(origin)
            for round_ in range(args.rounds):
                for name in sorted(ports, reverse=round_ % 2 == 1):
                    started.append(product := Product(name, argv[name], ports[name], d / f"{name}.log"))
                    wait_until_it_answers(ports[name])
                    ask(ports[name], d, 1)
                    before, began = product.cpu_ns(), time.monotonic()
                    answered, lost = ask(ports[name], d, args.seconds)
                    took = time.monotonic() - began
                    figures[name].append(((product.cpu_ns() - before) / answered / 1000, answered / took, lost))
                    started.remove(product)
                    product.stop()
        finally:
            for product in started:
                product.stop()
            server.terminate()
            server.wait()
    print(f"medians of {args.rounds}")
    for name, rounds in figures.items():
        cpu, rate, lost = (statistics.median(column) for column in zip(*rounds))
        print(f"{name:8} {cpu:8.2f} us CPU a question {rate:10.0f} questions/s {lost:6.0f} lost")
    if load > 0.5:
        print(f"The machine was busy when this began (load {load:.1f}): quiet it and measure again.")


if __name__ == "__main__":
    main()
